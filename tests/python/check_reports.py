"""Checks reports against the schemas of their forms.

    check_reports.py FOLDER [--sarif SCHEMA] [--junit SCHEMA]

FOLDER holds *.json, *.sarif, *.xml and *.html. JSON is checked against docs/formats, SARIF and JUnit
against the schemas that are named. Prints the number of reports of each form.
"""

import argparse
import collections
import html.parser
import json
import pathlib
import sys

import jsonschema
import xmlschema

OURS = pathlib.Path(__file__).parents[2] / "docs/formats/report.schema.json"
# Elements that load something by themselves, and attributes that name what.
LOADING = {"script", "link", "img", "iframe", "object", "embed", "base", "video", "audio", "source"}
NAMING = {"src", "href", "srcset", "data", "action", "poster", "background"}


class Page(html.parser.HTMLParser):
    """Refuses what would be fetched from elsewhere."""

    def __init__(self):
        super().__init__()
        self.policy = None
        self.style = False

    def handle_starttag(self, tag, attrs):
        named = dict(attrs)
        assert tag not in LOADING, f"<{tag}>"
        assert not NAMING & named.keys(), f"<{tag} {named}>"
        assert not any(name.startswith("on") for name in named), f"<{tag} {named}>"
        if named.get("http-equiv") == "Content-Security-Policy":
            self.policy = named["content"]
        self.style = tag == "style"

    def handle_data(self, data):
        if self.style:
            assert "url(" not in data and "@import" not in data, data


def check_html(text):
    page = Page()
    page.feed(text)
    page.close()
    assert page.policy and page.policy.startswith("default-src 'none'"), page.policy


def json_check(path):
    schema = json.loads(pathlib.Path(path).read_text())
    kind = jsonschema.validators.validator_for(schema)
    kind.check_schema(schema)
    checker = kind(schema, format_checker=kind.FORMAT_CHECKER)
    return lambda text: checker.validate(json.loads(text))


def main():
    asked = argparse.ArgumentParser()
    asked.add_argument("folder", type=pathlib.Path)
    asked.add_argument("--sarif")
    asked.add_argument("--junit")
    asked = asked.parse_args()
    checks = {".json": json_check(OURS), ".html": check_html}
    if asked.sarif:
        checks[".sarif"] = json_check(asked.sarif)
    if asked.junit:
        checks[".xml"] = xmlschema.XMLSchema(asked.junit).validate
    counts = collections.Counter()
    for path in sorted(asked.folder.iterdir()):
        check = checks.get(path.suffix)
        if check is None:
            continue
        try:
            check(path.read_text(encoding="utf-8"))
        except Exception as error:  # whatever the validators say, with the file it is about
            sys.exit(f"{path}: {error}")
        counts[path.suffix[1:]] += 1
    print(*(f"{form}={count}" for form, count in sorted(counts.items())))


main()
