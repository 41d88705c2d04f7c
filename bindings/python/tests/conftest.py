"""A real server for the tests: `lastkey dev`, found by LASTKEY_BIN."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import faulthandler
import pytest

import lastkey

BINARY = os.environ.get("LASTKEY_BIN", "lastkey")
# A test that hangs tells where, and ends.
faulthandler.dump_traceback_later(600, exit=True)


class Server:
    """A running server, and the command line as its administrator."""

    def __init__(self, folder):
        data = folder / "data"
        command = [BINARY, "dev", "--data", str(data), "--listen", "127.0.0.1:0"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for line in self.process.stdout:
            if "is ready on" in line:
                break
        else:
            raise RuntimeError("the server did not start")
        self.env = dict(os.environ, HOME=str(folder))
        for line in (data / "env").read_text().splitlines():
            name, _, value = line.removeprefix("export ").partition("=")
            if name.startswith("LASTKEY_"):
                self.env[name] = value.strip("'\"")
        self.addr = self.env["LASTKEY_ADDR"]
        self.token = self.env["LASTKEY_TOKEN"]

    def cli(self, *args, data=b""):
        """Runs `lastkey` and answers what it prints."""
        done = subprocess.run([BINARY, *map(str, args)], input=data, env=self.env, capture_output=True)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout

    def python(self, program, *args):
        """Runs a Python program that finds the server by its environment."""
        return subprocess.run(
            [sys.executable, str(program), *map(str, args)], env=self.env, capture_output=True, text=True
        )

    def stop(self):
        self.process.terminate()
        self.process.wait()


@pytest.fixture(scope="session")
def server():
    with tempfile.TemporaryDirectory(prefix="lastkey-python.") as folder:
        server = Server(Path(folder))
        server.cli("key", "create", "--alias", "alias/app")
        yield server
        server.stop()


@pytest.fixture(scope="session")
def client(server):
    return lastkey.Client(server.addr, token=server.token)


@pytest.fixture
def cache():
    return lastkey.DataKeyCache()
