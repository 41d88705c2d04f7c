"""A bucket named `kept`, served as S3 by moto on any port of loopback. Signatures and permissions are
checked by moto and botocore: code that is none of ours.

    s3_server.py [CERTIFICATE KEY]

Its first line tells the port and the key that may use the bucket, with blanks between. Then it does
what each line of its input says, answers by one line, and ends with its input:

    names              the keys that are there
    uploads            the keys of uploads that did not end
    begin KEY          begins an upload that does not end
    cut KEY LENGTH     keeps the first bytes of an object
    versions           the bucket keeps versions from now on
    suspend            new objects have no versions from now on
    keep KEY           writes an object
    mark KEY           removes an object as somebody does who names no version
    unlisted           versions are not listed from now on
    lost               from now on uploads end and nobody is told
    busy               from now on no upload ends, and whoever asks is told to come again
    kept               how many versions and marks of removal there are
    allow ACTION...    what the key may do from now on
"""

import json
import logging
import os
import sys
import threading
from urllib.parse import parse_qsl, quote

# The calls below that make bucket, user and key; nothing after them is taken without a signature.
os.environ["INITIAL_NO_AUTH_ACTION_COUNT"] = "4"
os.environ["AWS_EC2_METADATA_DISABLED"] = "true"
# Short pages, so that lists have more than one.
os.environ["MOTO_S3_DEFAULT_MAX_KEYS"] = "2"

import boto3  # noqa: E402
from moto.core import DEFAULT_ACCOUNT_ID  # noqa: E402
from moto.iam.access_control import IAMRequestBase  # noqa: E402
from moto.iam.models import iam_backends  # noqa: E402
from moto.server import DomainDispatcherApplication, create_backend_app  # noqa: E402
from werkzeug.serving import make_server  # noqa: E402

BUCKET = "kept"
USER = "keeper"


# The server hands the query to the check with `/` in clear, so that the check refuses what botocore
# itself has signed. It gets the query as it was sent.
checked_request = IAMRequestBase._create_aws_request


def request_as_sent(self):
    """The request that is checked."""
    path, mark, query = self._path.partition("?")
    pairs = parse_qsl(query, keep_blank_values=True)
    words = [f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in pairs]
    self._path = path + mark + "&".join(words)
    return checked_request(self)


IAMRequestBase._create_aws_request = request_as_sent


class Door:
    """Lets requests through to an application, and some not."""

    def __init__(self, app):
        self.app = app
        self.lists_versions = True
        self.loses = False
        self.is_busy = False

    def __call__(self, environ, start):
        query = dict(parse_qsl(environ["QUERY_STRING"], keep_blank_values=True))
        if "versions" in query and not self.lists_versions:
            start("501 Not Implemented", [("content-type", "application/xml")])
            return [b"<Error><Code>NotImplemented</Code></Error>"]
        if "versioning" in query and environ["REQUEST_METHOD"] == "GET":
            return self.versioning(environ, start)
        ends_upload = environ["REQUEST_METHOD"] == "POST" and "uploadId" in query
        if ends_upload and self.is_busy:
            environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
            start("503 Slow Down", [("content-type", "application/xml")])
            return [b"<Error><Code>SlowDown</Code></Error>"]
        answer = self.app(environ, start)
        if ends_upload and self.loses:
            raise ConnectionResetError
        return answer

    def versioning(self, environ, start):
        """The answer under the name that S3 gives it; moto has another."""
        told = []
        answer = b"".join(self.app(environ, lambda *of_it: told.append(of_it)))
        answer = answer.replace(b"GetBucketVersioningResponse", b"VersioningConfiguration")
        start(told[0][0], [("content-type", "application/xml")])
        return [answer]


def policy(actions):
    """Allows actions on every bucket, also on those that are not there."""
    allow = {"Effect": "Allow", "Action": actions, "Resource": "arn:aws:s3:::*"}
    return json.dumps({"Version": "2012-10-17", "Statement": [allow]})


def client(service, url, certificate, key_id="none", secret="none"):
    """A client of the server."""
    return boto3.client(
        service,
        endpoint_url=url,
        region_name="us-east-1",
        aws_access_key_id=key_id,
        aws_secret_access_key=secret,
        verify=certificate,
    )


def answer(s3, door, line):
    """Does what a line says."""
    word, *rest = line.split()
    if word == "names":
        pages = s3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET)
        return " ".join(one["Key"] for page in pages for one in page.get("Contents", []))
    if word == "uploads":
        uploads = s3.list_multipart_uploads(Bucket=BUCKET).get("Uploads", [])
        return " ".join(one["Key"] for one in uploads)
    if word == "begin":
        upload = s3.create_multipart_upload(Bucket=BUCKET, Key=rest[0])["UploadId"]
        s3.upload_part(Bucket=BUCKET, Key=rest[0], UploadId=upload, PartNumber=1, Body=b"x" * 100)
        return upload
    if word == "cut":
        value = s3.get_object(Bucket=BUCKET, Key=rest[0])["Body"].read()[: int(rest[1])]
        s3.put_object(Bucket=BUCKET, Key=rest[0], Body=value)
        return str(len(value))
    if word == "versions":
        s3.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"})
        return "on"
    if word == "suspend":
        s3.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Suspended"})
        return "off"
    if word == "keep":
        s3.put_object(Bucket=BUCKET, Key=rest[0], Body=b"x")
        return "done"
    if word == "mark":
        s3.delete_object(Bucket=BUCKET, Key=rest[0])
        return "done"
    if word == "unlisted":
        door.lists_versions = False
        return "done"
    if word == "lost":
        door.loses = True
        return "done"
    if word == "busy":
        door.is_busy = True
        return "done"
    if word == "kept":
        pages = s3.get_paginator("list_object_versions").paginate(Bucket=BUCKET)
        kinds = ("Versions", "DeleteMarkers")
        return str(sum(len(page.get(kind, [])) for page in pages for kind in kinds))
    if word == "allow":
        iam_backends[DEFAULT_ACCOUNT_ID]["aws"].put_user_policy(USER, "backups", policy(rest))
        return "done"
    return f"unknown: {line}"


def main():
    """Serves until the input ends."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    files = tuple(sys.argv[1:3]) or None
    door = Door(DomainDispatcherApplication(create_backend_app))
    server = make_server("127.0.0.1", 0, door, threaded=True, ssl_context=files)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    scheme, certificate = ("https", files[0]) if files else ("http", None)
    url = f"{scheme}://localhost:{server.server_port}"
    client("s3", url, certificate).create_bucket(Bucket=BUCKET)
    iam = client("iam", url, certificate)
    iam.create_user(UserName=USER)
    iam.put_user_policy(UserName=USER, PolicyName="backups", PolicyDocument=policy(["s3:*"]))
    key = iam.create_access_key(UserName=USER)["AccessKey"]
    print(server.server_port, key["AccessKeyId"], key["SecretAccessKey"], flush=True)
    s3 = client("s3", url, certificate, key["AccessKeyId"], key["SecretAccessKey"])
    for line in sys.stdin:
        print(answer(s3, door, line), flush=True)


if __name__ == "__main__":
    main()
