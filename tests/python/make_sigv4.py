#!/usr/bin/env python3
"""Writes requests signed by botocore: vectors for our verifier of Signature Version 4.

Needs the PyPI package `botocore`. The vectors are kept; this runs only to make them anew.

    python3 make_sigv4.py > crates/lastkey-trust/tests/vectors/sigv4.json
"""

import datetime
import json
import sys
import urllib.parse
from unittest import mock

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

NOW = datetime.datetime(2015, 8, 30, 12, 36, 0, tzinfo=datetime.timezone.utc)
ACCESS = ("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY")
JSON_TYPE = "application/x-amz-json-1.1"
FORM_TYPE = "application/x-www-form-urlencoded; charset=utf-8"

CASES = [
    # name, method, url, headers, body, service, token
    ("kms_decrypt", "POST", "https://kms.example/", {"X-Amz-Target": "TrentService.Decrypt", "Content-Type": JSON_TYPE}, '{"CiphertextBlob":"AQ=="}', "kms", None),
    ("kms_with_session", "POST", "https://kms.example/", {"X-Amz-Target": "TrentService.Encrypt", "Content-Type": JSON_TYPE}, "{}", "kms", "lks1.AAAA-_"),
    ("sts_form", "POST", "https://sts.example/", {"Content-Type": FORM_TYPE}, "Action=GetCallerIdentity&Version=2011-06-15", "sts", None),
    ("empty_body", "POST", "https://kms.example/", {}, "", "kms", None),
    ("port_in_host", "POST", "https://127.0.0.1:8443/", {"Content-Type": JSON_TYPE}, "{}", "kms", None),
    ("deep_path", "GET", "https://lk.example/v1/keys/3fa85f64/versions", {}, "", "kms", None),
    ("slash_at_the_end", "GET", "https://lk.example/v1/keys/", {}, "", "kms", None),
    ("encoded_path", "GET", "https://lk.example/v1/keys/alias%2Fa%20b%C3%A9", {}, "", "kms", None),
    ("reserved_in_path", "GET", "https://lk.example/v1/a:b@c,d;e=f+g", {}, "", "kms", None),
    ("query_unsorted", "GET", "https://lk.example/v1/keys?z=1&a=2&a=1&Z=3", {}, "", "kms", None),
    ("query_without_value", "GET", "https://lk.example/v1/keys?flag&b=", {}, "", "kms", None),
    ("query_encoded", "GET", "https://lk.example/v1/keys?prefix=a%2Fb%20c&t=~%C3%A9", {}, "", "kms", None),
    ("spaces_in_header", "POST", "https://kms.example/", {"X-Amz-Meta": "  a   b  c "}, "{}", "kms", None),
    ("declared_hash", "PUT", "https://lk.example/v1/x", {"X-Amz-Content-SHA256": "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"}, "{}", "kms", None),
]


def sign(name, method, url, headers, body, service, token):
    parts = urllib.parse.urlsplit(url)
    request = AWSRequest(method=method, url=url, headers=dict(headers), data=body)
    with mock.patch("botocore.auth.get_current_datetime", return_value=NOW):
        SigV4Auth(Credentials(*ACCESS, token=token), service, "eu-west-1").add_auth(request)
    sent = {key: value for key, value in request.headers.items() if key != "Authorization"}
    sent.setdefault("Host", parts.netloc)
    return {
        "name": name,
        "method": method,
        "path": parts.path,
        "query": parts.query,
        "headers": [[key, value] for key, value in sent.items()],
        "body": body,
        "authorization": request.headers["Authorization"],
    }


json.dump([sign(*case) for case in CASES], sys.stdout, indent=1)
sys.stdout.write("\n")
