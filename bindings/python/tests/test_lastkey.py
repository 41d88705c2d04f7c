"""The package against a real server and the real command line."""

import gzip
import io
import os
import shutil
import threading
from pathlib import Path

import pytest

import lastkey

IDENTITY = "AGE-SECRET-KEY-1NHJKXCKV03SNME4X46R7D70GLMSGKHCM4HLF5J72LNGXW8CULP7SW5LYY3"
RECIPIENT = "age1x39xr6qs749apfqcnrlmq9xl3pml55a4fu3d2t9nju5qlgsstfnsqs6x5w"
SAMPLE = bytes(range(251)) * 100


def test_ten_line_program_and_command_line_open_what_the_other_made(server, tmp_path):
    plain, sealed, from_cli, opened = (tmp_path / name for name in ["plain", "a.lk", "b.lk", "opened"])
    plain.write_bytes(SAMPLE)
    server.cli("encrypt", "--key", "alias/app", plain, "-o", from_cli)
    done = server.python(Path(__file__).parent / "roundtrip.py", plain, sealed, from_cli, opened)
    assert done.returncode == 0, done.stderr
    assert opened.read_bytes() == SAMPLE
    assert server.cli("decrypt", sealed, "--context", "app=web") == SAMPLE


@pytest.mark.parametrize("length", [0, 1, 4095, 4096, 4097, 25_000])
def test_every_form_opens_what_every_form_made(client, cache, length):
    plaintext = (SAMPLE * 2)[:length]
    encryptor = client.encryptor("alias/app", cache=cache, segment_log2=12)
    decryptor = client.decryptor(cache=cache)
    file = io.BytesIO()
    with encryptor.open(file) as writer:
        shutil.copyfileobj(io.BytesIO(plaintext), writer, 1000)
    for envelope in [encryptor.encrypt(plaintext), file.getvalue()]:
        assert decryptor.decrypt(envelope) == plaintext
        assert decryptor.decrypt_range(envelope, 0, length) == plaintext
        assert decryptor.open(io.BytesIO(envelope)).read() == plaintext
        assert io.BufferedReader(decryptor.open(io.BytesIO(envelope)), 777).read() == plaintext
        assert decryptor.open_ranges(io.BytesIO(envelope)).read() == plaintext
    assert cache.stats().misses == 2


def test_anything_with_a_buffer_is_bytes_and_nothing_else(client, cache):
    encryptor, decryptor = client.encryptor("alias/app", cache=cache), client.decryptor(cache=cache)
    for given in [b"text", bytearray(b"text"), memoryview(b"text"), memoryview(b"-t-e-x-t")[1::2]]:
        envelope = encryptor.encrypt(given)
        assert decryptor.decrypt(memoryview(envelope)) == b"text"
    for given in ["text", 5, None, [1, 2]]:
        with pytest.raises(TypeError):
            encryptor.encrypt(given)


def test_ranges_are_those_of_the_plaintext(client):
    envelope = client.encryptor("alias/app", segment_log2=12).encrypt(SAMPLE)
    with client.decryptor().open_ranges(io.BytesIO(envelope)) as ranges:
        assert len(ranges) == len(SAMPLE)
        ranges.seek(-10, io.SEEK_END)
        assert ranges.read() == SAMPLE[-10:]
        ranges.seek(4_090)
        assert ranges.tell() == 4_090
        assert io.BufferedReader(ranges).read(20) == SAMPLE[4_090:4_110]
        with pytest.raises(ValueError):
            ranges.seek(-1)
    with pytest.raises(OSError):
        client.decryptor().decrypt_range(envelope, 0, len(SAMPLE) + 1)


def test_text_and_compression_go_through_the_writer(client):
    file = io.BytesIO()
    with client.encryptor("alias/app").open(file) as writer:
        with gzip.GzipFile(fileobj=writer, mode="wb") as packed, io.TextIOWrapper(packed) as text:
            text.write("one\ntwo\n")
    reader = client.decryptor().open(io.BytesIO(file.getvalue()))
    with gzip.open(io.BufferedReader(reader), "rt") as text:
        assert list(text) == ["one\n", "two\n"]


def test_block_that_fails_leaves_nothing_that_opens(client):
    file = io.BytesIO()
    with pytest.raises(KeyError):
        with client.encryptor("alias/app", segment_log2=12).open(file) as writer:
            writer.write(SAMPLE)
            raise KeyError
    assert writer.closed
    with pytest.raises(ValueError):
        writer.write(b"late")
    with pytest.raises(lastkey.EnvelopeError):
        client.decryptor().decrypt(file.getvalue())
    writer = client.encryptor("alias/app").open(io.BytesIO())
    writer.close()
    writer.close()
    with pytest.raises(ValueError):
        writer.write(b"late")


def test_damaged_envelope_gives_no_byte_of_the_damaged_part(client):
    envelope = bytearray(client.encryptor("alias/app", segment_log2=12).encrypt(SAMPLE))
    cut = client.decryptor().open(io.BytesIO(envelope[:-1]))
    with pytest.raises(lastkey.EnvelopeError, match="cannot be decrypted|truncated"):
        cut.read()
    envelope[-1] ^= 1
    reader, given = client.decryptor().open(io.BytesIO(envelope)), b""
    with pytest.raises(lastkey.EnvelopeError):
        while True:
            given += reader.read(1000)
    assert SAMPLE.startswith(given) and len(given) == len(SAMPLE) // 4096 * 4096
    with pytest.raises(lastkey.EnvelopeError):
        reader.read(1)
    for wrong in [b"", b"x" * 5000, bytes(envelope[:100])]:
        with pytest.raises(lastkey.EnvelopeError):
            client.decryptor().decrypt(wrong)


def test_file_appears_whole_or_not_at_all(client, tmp_path):
    plain, sealed, opened = (tmp_path / name for name in ["plain", "sealed", "opened"])
    plain.write_bytes(SAMPLE * 50)
    plain.chmod(0o640)
    encryptor, decryptor = client.encryptor("alias/app"), client.decryptor()
    assert encryptor.encrypt_file(plain, sealed) == len(SAMPLE) * 50
    with pytest.raises(FileExistsError):
        encryptor.encrypt_file(plain, sealed)
    assert decryptor.decrypt_file(str(sealed), str(opened)) == len(SAMPLE) * 50
    assert opened.read_bytes() == SAMPLE * 50 and opened.stat().st_mode & 0o777 == 0o640
    with open(sealed, "r+b") as file:
        file.truncate(sealed.stat().st_size - 1)
    with pytest.raises(lastkey.EnvelopeError):
        decryptor.decrypt_file(sealed, opened, overwrite=True)
    assert opened.read_bytes() == SAMPLE * 50
    with pytest.raises(FileNotFoundError):
        decryptor.decrypt_file(tmp_path / "none", tmp_path / "other")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["opened", "plain", "sealed"]


def test_what_a_file_object_raises_comes_out_as_it_is(client):
    class Broken(io.RawIOBase):
        def read(self, size=-1):
            raise ZeroDivisionError("mine")

        def write(self, data):
            raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine"):
        client.decryptor().open(Broken())
    with pytest.raises(ZeroDivisionError, match="mine"):
        client.encryptor("alias/app").open(Broken()).close()

    class TooMuch:
        def read(self, size):
            return b"x" * (size + 1)

        def write(self, data):
            return len(data) + 1

    with pytest.raises(TypeError, match="more than"):
        client.decryptor().open(TooMuch())
    with pytest.raises(TypeError, match="more than"):
        client.encryptor("alias/app").open(TooMuch()).close()


def test_other_context_is_refused(client):
    envelope = client.encryptor("alias/app", context={"app": "web"}).encrypt(b"text")
    assert client.decryptor(context={"app": "web"}).decrypt(envelope) == b"text"
    with pytest.raises(lastkey.EnvelopeError, match="context"):
        client.decryptor(context={"app": "mail"}).decrypt(envelope)
    assert client.decryptor().open(io.BytesIO(envelope)).context() == {"app": "web"}


def test_threads_share_one_call_through_the_cache(client, cache):
    encryptor = client.encryptor("alias/app", cache=cache)
    envelopes = []
    threads = [threading.Thread(target=lambda: envelopes.append(encryptor.encrypt(b"x"))) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    stats = cache.stats()
    assert (len(envelopes), stats.misses, stats.hits + stats.shared) == (20, 1, 19)
    assert len({envelope[32:64] for envelope in envelopes}) == 20
    cache.clear()
    assert cache.stats().entries == 0


def test_cache_keeps_its_bounds(client):
    cache = lastkey.DataKeyCache(max_messages=2, max_age=60)
    encryptor = client.encryptor("alias/app", cache=cache)
    for _ in range(5):
        encryptor.encrypt(b"text")
    assert cache.stats().misses == 3
    for wrong in [-1.0, float("nan")]:
        with pytest.raises(ValueError):
            lastkey.DataKeyCache(max_age=wrong)


def test_other_threads_run_while_a_call_waits(client, tmp_path):
    """Opening a pipe waits for its other end, which this thread opens: it must be free to."""
    pipe, sealed = tmp_path / "pipe", tmp_path / "sealed"
    os.mkfifo(pipe)
    encryptor = client.encryptor("alias/app")
    worker = threading.Thread(target=encryptor.encrypt_file, args=(pipe, sealed))
    worker.start()
    with open(pipe, "wb") as other_end:
        other_end.write(SAMPLE)
    worker.join()
    assert client.decryptor().decrypt(sealed.read_bytes()) == SAMPLE


def test_forked_child_gets_an_error_and_does_not_hang(client):
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            client.random(8)
            said = b"worked"
        except lastkey.LastkeyError as error:
            said = str(error).encode()
        finally:
            os.write(write, said)
            os._exit(0)
    os.close(write)
    assert os.waitpid(child, 0)[1] == 0
    with os.fdopen(read, "rb") as pipe:
        assert b"after a fork" in pipe.read()
    assert len(client.random(8)) == 8


def test_recipients_need_no_server(client, tmp_path):
    envelope = client.encryptor("alias/app", recipients=[RECIPIENT]).encrypt(b"text")
    assert lastkey.Decryptor(identities=IDENTITY).decrypt(envelope) == b"text"
    assert client.decryptor().decrypt(envelope) == b"text"
    envelope = lastkey.Encryptor(recipients=[RECIPIENT], suite="CHACHA20_POLY1305").encrypt(b"text")
    assert lastkey.Decryptor(identities=IDENTITY.encode()).decrypt(envelope) == b"text"
    envelope = lastkey.Encryptor(passphrase="correct horse").encrypt(b"text")
    assert lastkey.Decryptor(passphrase="correct horse").decrypt(envelope) == b"text"
    with pytest.raises(lastkey.EnvelopeError):
        lastkey.Decryptor(passphrase="wrong horse").decrypt(envelope)
    with pytest.raises(lastkey.EnvelopeError):
        client.decryptor().decrypt(envelope)
    for wrong in [{}, {"recipients": ["age1x"]}, {"recipients": [RECIPIENT], "suite": "ROT13"}]:
        with pytest.raises(ValueError):
            lastkey.Encryptor(**wrong)
    with pytest.raises(TypeError):
        lastkey.Encryptor(recipients=RECIPIENT)


def test_command_line_opens_by_identity_what_was_encrypted_offline(server, tmp_path):
    envelope, identity = tmp_path / "a.lk", tmp_path / "identity"
    envelope.write_bytes(lastkey.Encryptor(recipients=[RECIPIENT]).encrypt(SAMPLE))
    identity.write_text(IDENTITY + "\n")
    identity.chmod(0o600)
    assert server.cli("decrypt", envelope, "--identity", identity) == SAMPLE


def test_rewrap_follows_a_rotation_and_changes_recipients(client, tmp_path):
    key = client.create_key(description="rewrap")["id"]
    path = tmp_path / "a.lk"
    path.write_bytes(client.encryptor(key).encrypt(SAMPLE))
    assert client.rotate_key(key)["primary_version"] == 2
    client.decryptor().rewrap(path, refresh=client, add_recipients=[RECIPIENT])
    header = lastkey.inspect(path)
    assert header["recipients"] == [
        {"kind": "key", "key": key, "version": 2},
        {"kind": "age", "key": RECIPIENT},
    ]
    offline = lastkey.Decryptor(identities=IDENTITY)
    offline.rewrap(path, remove_keys=[key])
    assert offline.decrypt(path.read_bytes()) == SAMPLE
    with pytest.raises(lastkey.EnvelopeError):
        client.decryptor().decrypt(path.read_bytes())
    with pytest.raises(lastkey.EnvelopeError, match="not encrypted for"):
        offline.rewrap(path, remove_keys=[key])
    offline.rewrap(path, add_keys=[(client, key)], remove_recipients=[RECIPIENT])
    assert client.decryptor().decrypt(path.read_bytes()) == SAMPLE
    assert lastkey.inspect(path.read_bytes())["sequence"] == 4
    before = path.read_bytes()
    client.decryptor().rewrap(path, rewrite=True, refresh=client, add_recipients=[RECIPIENT])
    assert lastkey.inspect(path)["sequence"] == 1
    assert path.read_bytes()[-len(SAMPLE) :] != before[-len(SAMPLE) :]
    assert offline.decrypt(path.read_bytes()) == SAMPLE


def test_inspect_reads_paths_files_and_bytes(client, tmp_path):
    envelope = client.encryptor("alias/app", context={"a": "1"}, segment_log2=12).encrypt(b"text")
    path = tmp_path / "a.lk"
    path.write_bytes(envelope)
    for given in [path, str(path), io.BytesIO(envelope), envelope, memoryview(envelope)]:
        header = lastkey.inspect(given)
        assert (header["context"], header["segment_len"]) == ({"a": "1"}, 4096)
        assert header["suite"] == "AES_256_GCM"
    with pytest.raises(lastkey.EnvelopeError):
        lastkey.inspect(b"no envelope")


def test_operations_of_the_server(client):
    ciphertext = client.encrypt("alias/app", b"text", {"a": "1"})
    assert client.decrypt(ciphertext, {"a": "1"}) == b"text"
    with pytest.raises(lastkey.ServerError) as refused:
        client.decrypt(ciphertext)
    assert refused.value.code == "Undecryptable" and refused.value.request_id
    moved = client.reencrypt(ciphertext, "alias/app", {"a": "1"})
    assert client.decrypt(moved) == b"text"
    data_key = client.data_key("alias/app")
    assert len(data_key.plaintext) == 32 and client.decrypt(data_key.ciphertext) == data_key.plaintext
    assert len(client.random(40)) == 40

    signing = client.create_key(spec="ED25519")["id"]
    signature = client.sign(signing, b"message")
    assert client.verify(signing, b"message", signature)
    assert not client.verify(signing, b"massage", signature)
    macs = client.create_key(spec="HMAC_256")["id"]
    assert client.verify_mac(macs, b"message", client.mac(macs, b"message"))
    assert not client.verify_mac(macs, b"massage", client.mac(macs, b"message"))
    assert client.describe_key(macs)["spec"] == "HMAC_256"
    assert len(client.list_keys(limit=1)["keys"]) == 1
    assert client.status()["sealed"] is False


def test_failures_are_sorted_by_what_to_do_next(server, tmp_path, monkeypatch):
    for name in ["LASTKEY_ADDR", "LASTKEY_TOKEN", "LASTKEY_CA"]:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    stranger = lastkey.Client(server.addr, token="nobody")
    with pytest.raises(lastkey.DeniedError) as denied:
        stranger.random(8)
    assert denied.value.code == "Unauthenticated"
    with pytest.raises(lastkey.DeniedError):
        stranger.encryptor("alias/app").encrypt(b"text")
    with pytest.raises(lastkey.ServerError) as unknown:
        lastkey.Client(server.addr, token=server.token).describe_key("alias/none")
    assert "nobody" not in str(denied.value) and unknown.value.code
    gone = lastkey.Client(f"unix://{tmp_path}/nobody", attempts=1)
    with pytest.raises(lastkey.UnreachableError):
        gone.status()
    for wrong in [{}, {"addr": "nonsense"}, {"addr": "https://localhost"}, {"config_file": tmp_path / "x"}]:
        with pytest.raises(lastkey.ConfigError):
            lastkey.Client(**wrong)
    assert "nobody" not in repr(stranger)


def test_client_reads_a_configuration_file(server, tmp_path):
    (tmp_path / "token").write_text(server.token + "\n")
    (tmp_path / "token").chmod(0o600)
    (tmp_path / "client.toml").write_text(f"addr = '{server.addr}'\ntoken_file = 'token'\n")
    client = lastkey.Client(config_file=tmp_path / "client.toml")
    assert len(client.random(8)) == 8
    (tmp_path / "token").chmod(0o644)
    with pytest.raises(lastkey.ConfigError, match="read by others"):
        lastkey.Client(config_file=tmp_path / "client.toml")
