"""Lastkey: encryption on this machine with keys that stay in the server.

    import lastkey

    client = lastkey.Client()
    envelope = client.encryptor("alias/app").encrypt(b"text")
    assert client.decryptor().decrypt(envelope) == b"text"

`Client()` finds its server as the command line does: the variables LASTKEY_ADDR, LASTKEY_TOKEN
and LASTKEY_CA or LASTKEY_CA_FINGERPRINT, a configuration file, or the socket of the node. All
objects may be used by several threads at once, and let other threads run while they work.
"""

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from types import TracebackType
from typing import (
    Any,
    Dict,
    Iterable,
    Mapping,
    NamedTuple,
    Optional,
    Protocol,
    Tuple,
    Type,
    Union,
)

from . import _lastkey
from ._errors import (
    ConfigError,
    DeniedError,
    EnvelopeError,
    LastkeyError,
    ServerError,
    UnreachableError,
)

__all__ = [
    "CacheStats",
    "Client",
    "ConfigError",
    "DataKey",
    "DataKeyCache",
    "DecryptReader",
    "Decryptor",
    "DeniedError",
    "EncryptWriter",
    "Encryptor",
    "EnvelopeError",
    "LastkeyError",
    "RangeReader",
    "ServerError",
    "UnreachableError",
    "inspect",
]

Bytes = Union[bytes, bytearray, memoryview]
PathLike = Union[str, "os.PathLike[str]"]
Context = Mapping[str, str]
Secret = Union[str, Bytes]


class Writable(Protocol):
    """A file object to write to."""

    def write(self, data: bytes, /) -> Optional[int]: ...


class Readable(Protocol):
    """A file object to read from."""

    def read(self, size: int, /) -> bytes: ...


class Seekable(Readable, Protocol):
    """A file object to read anywhere in."""

    def seek(self, offset: int, whence: int, /) -> int: ...


class CacheStats(NamedTuple):
    """What a cache did so far."""

    hits: int
    """Envelopes whose data key was there."""
    misses: int
    """Calls to a server."""
    shared: int
    """Envelopes that waited for the call of another one."""
    failures: int
    """Calls that gave no data key."""
    retired: int
    """Data keys wiped because a bound was reached."""
    entries: int
    """Data keys held now."""


class DataKey(NamedTuple):
    """A data key in the clear and protected."""

    plaintext: bytes
    ciphertext: bytes
    key: str
    version: int


class DataKeyCache(_lastkey.DataKeyCache):
    """Data keys that serve more than one envelope, for a while.

    Every envelope has its own salt and so its own keys, so sharing a data key is safe. It is wiped
    after ``max_age`` seconds, ``max_messages`` envelopes or ``max_bytes`` bytes of plaintext.
    """

    def stats(self) -> CacheStats:
        """Counts since the beginning, and how many data keys are held now."""
        return CacheStats(*self.counts())


class Encryptor(_lastkey.Encryptor):
    """Encrypts data of any length on this machine.

    ``keys`` are pairs of a client and a key, an id or an alias; ``recipients`` are keys of age
    (``age1...``), which need no server. Whoever has one of them can decrypt.
    """

    def __new__(
        cls,
        keys: Iterable[Tuple["Client", str]] = (),
        recipients: Iterable[str] = (),
        *,
        passphrase: Optional[Secret] = None,
        context: Optional[Context] = None,
        cache: Optional[DataKeyCache] = None,
        suite: Optional[str] = None,
        segment_log2: Optional[int] = None,
    ) -> "Encryptor":
        made: Encryptor = super().__new__(
            cls,
            list(keys),
            _list(recipients),
            passphrase=passphrase,
            context=_dict(context),
            cache=cache,
            suite=suite,
            segment_log2=segment_log2,
        )
        return made

    def encrypt(self, plaintext: Bytes) -> bytes:
        """Encrypts bytes."""
        return super().encrypt(plaintext)

    def open(self, file: Writable) -> "EncryptWriter":
        """A file object that encrypts what is written to it into ``file``."""
        return EncryptWriter(self, file)

    def encrypt_file(
        self, source: PathLike, destination: PathLike, *, overwrite: bool = False
    ) -> int:
        """Encrypts a file in constant memory; answers the length of the plaintext.

        The destination appears whole or not at all.
        """
        return super().encrypt_file(source, destination, overwrite=overwrite)


class Decryptor(_lastkey.Decryptor):
    """Decrypts envelopes on this machine.

    Tried in this order: ``identities``, the content of a key file of age; ``passphrase``; the
    servers of ``clients``. With ``context``, only envelopes with exactly this context open.
    """

    def __new__(
        cls,
        clients: Iterable["Client"] = (),
        *,
        identities: Optional[Secret] = None,
        passphrase: Optional[Secret] = None,
        context: Optional[Context] = None,
        cache: Optional[DataKeyCache] = None,
    ) -> "Decryptor":
        made: Decryptor = super().__new__(
            cls,
            list(clients),
            identities=identities,
            passphrase=passphrase,
            context=_dict(context),
            cache=cache,
        )
        return made

    def decrypt(self, envelope: Bytes) -> bytes:
        """Decrypts an envelope. Python does not wipe the bytes that it gives."""
        return super().decrypt(envelope)

    def decrypt_range(self, envelope: Bytes, start: int, end: int) -> bytes:
        """The bytes from ``start`` up to ``end`` of the plaintext."""
        return super().decrypt_range(envelope, start, end)

    def open(self, file: Readable) -> "DecryptReader":
        """A file object with the plaintext of the envelope in ``file``.

        What it gives is authentic. Only at its end it is known to be whole: an envelope that was
        cut ends in `EnvelopeError`.
        """
        return DecryptReader(super().reader(file))

    def open_ranges(self, file: Seekable) -> "RangeReader":
        """The same for reading anywhere. The end is verified at once."""
        return RangeReader(super().seekable(file))

    def decrypt_file(
        self, source: PathLike, destination: PathLike, *, overwrite: bool = False
    ) -> int:
        """Decrypts a file in constant memory; answers the length of the plaintext.

        The destination appears whole, when the last segment was verified, or not at all.
        """
        return super().decrypt_file(source, destination, overwrite=overwrite)

    def rewrap(
        self,
        path: PathLike,
        *,
        add_keys: Iterable[Tuple["Client", str]] = (),
        remove_keys: Iterable[str] = (),
        add_recipients: Iterable[str] = (),
        remove_recipients: Iterable[str] = (),
        add_passphrase: Optional[Secret] = None,
        remove_passphrases: bool = False,
        refresh: Optional["Client"] = None,
        rewrite: bool = False,
    ) -> None:
        """Changes who can decrypt a file, in place: only its header is written.

        ``refresh`` protects the data key anew under the primary version of each key. Who was
        removed and kept the data key or an older copy can still decrypt: to shut somebody out,
        ``rewrite`` encrypts the whole file anew; the keys that stay are those of ``refresh``.
        """
        _lastkey.rewrap(
            self,
            path,
            add_keys=list(add_keys),
            remove_keys=_list(remove_keys),
            add_recipients=_list(add_recipients),
            remove_recipients=_list(remove_recipients),
            add_passphrase=add_passphrase,
            remove_passphrases=remove_passphrases,
            refresh=refresh,
            rewrite=rewrite,
        )


class EncryptWriter:
    """A file object that encrypts. Made by `Encryptor.open`.

    `close` writes the last segment. A ``with`` block that is left by an exception does not: what
    was written then does not decrypt. The file object behind stays open.
    """

    def __init__(self, encryptor: Encryptor, file: Writable) -> None:
        self._writer = encryptor.writer(file)
        self._is_closed = False

    def write(self, data: Bytes) -> int:
        """Encrypts all of it; answers its length."""
        return self._writer.write(data)

    def flush(self) -> None:
        """Hands on whole segments. The rest waits for `close`."""
        if not self._is_closed:
            self._writer.flush()

    def close(self) -> None:
        """Writes the last segment. Only now the envelope is whole."""
        if not self._is_closed:
            self._writer.finish()
            self._is_closed = True

    def abort(self) -> None:
        """Gives up: the envelope has no end and does not decrypt."""
        self._is_closed = True
        self._writer.abort()

    @property
    def closed(self) -> bool:
        """Whether nothing more can be written."""
        return self._is_closed

    def writable(self) -> bool:
        """As of other file objects."""
        return not self._is_closed

    def readable(self) -> bool:
        """As of other file objects."""
        return False

    def seekable(self) -> bool:
        """As of other file objects."""
        return False

    def __enter__(self) -> "EncryptWriter":
        return self

    def __exit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()


class DecryptReader(io.RawIOBase):
    """A file object that decrypts. Made by `Decryptor.open`. The one behind stays open."""

    def __init__(self, reader: _lastkey.StreamReader) -> None:
        self._reader = reader

    def context(self) -> Dict[str, str]:
        """The context of the envelope; it is authenticated."""
        return self._reader.context()

    def readable(self) -> bool:
        """As of other file objects."""
        return True

    def read(self, size: Optional[int] = -1, /) -> bytes:
        """At most ``size`` bytes, or everything up to the end."""
        if size is None or size < 0:
            return self._reader.read_all()
        return self._reader.read(size)

    def readall(self) -> bytes:
        """Everything up to the end."""
        return self._reader.read_all()

    def readinto(self, buffer: Any, /) -> int:
        """Fills a buffer as far as there is something at once."""
        view = memoryview(buffer).cast("B")
        data = self._reader.read(len(view))
        view[: len(data)] = data
        return len(data)


class RangeReader(io.RawIOBase):
    """A file object that decrypts any part. Made by `Decryptor.open_ranges`."""

    def __init__(self, reader: _lastkey.RangeReader) -> None:
        self._reader = reader

    def __len__(self) -> int:
        return self._reader.len()

    def context(self) -> Dict[str, str]:
        """The context of the envelope; it is authenticated."""
        return self._reader.context()

    def readable(self) -> bool:
        """As of other file objects."""
        return True

    def seekable(self) -> bool:
        """As of other file objects."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """As of other file objects."""
        return self._reader.seek(offset, whence)

    def tell(self) -> int:
        """As of other file objects."""
        return self._reader.seek(0, io.SEEK_CUR)

    def read(self, size: Optional[int] = -1, /) -> bytes:
        """At most ``size`` bytes, or everything up to the end."""
        if size is None or size < 0:
            return self._reader.read_all()
        return self._reader.read(size)

    def readall(self) -> bytes:
        """Everything up to the end."""
        return self._reader.read_all()

    def readinto(self, buffer: Any, /) -> int:
        """Fills a buffer as far as there is something at once."""
        view = memoryview(buffer).cast("B")
        data = self._reader.read(len(view))
        view[: len(data)] = data
        return len(data)


class Client(_lastkey.Client):
    """A connection to one server as one caller.

    Without arguments the server is found as the command line finds it. ``addr`` is
    ``https://host:port``, ``http://host:port`` or ``unix:///path``; ``timeout`` is in seconds and
    covers further ``attempts``, which are made for calls that may be done twice.

    A client belongs to its process: after a fork make a new one.
    """

    def encryptor(
        self,
        key: str,
        *,
        recipients: Iterable[str] = (),
        passphrase: Optional[Secret] = None,
        context: Optional[Context] = None,
        cache: Optional[DataKeyCache] = None,
        suite: Optional[str] = None,
        segment_log2: Optional[int] = None,
    ) -> Encryptor:
        """Encrypts on this machine under ``key``, an id or an alias."""
        return Encryptor(
            [(self, key)],
            recipients,
            passphrase=passphrase,
            context=context,
            cache=cache,
            suite=suite,
            segment_log2=segment_log2,
        )

    def decryptor(
        self, *, context: Optional[Context] = None, cache: Optional[DataKeyCache] = None
    ) -> Decryptor:
        """Decrypts on this machine what the caller may decrypt."""
        return Decryptor([self], context=context, cache=cache)

    def encrypt(self, key: str, plaintext: Bytes, context: Optional[Context] = None) -> bytes:
        """Encrypts at most 65,536 bytes in the server."""
        return _lastkey.encrypt(self, key, plaintext, _dict(context))

    def decrypt(self, ciphertext: Bytes, context: Optional[Context] = None) -> bytes:
        """Decrypts in the server what `encrypt` made; the ciphertext names its key."""
        return _lastkey.decrypt(self, ciphertext, _dict(context))

    def reencrypt(
        self,
        ciphertext: Bytes,
        to_key: str,
        context: Optional[Context] = None,
        to_context: Optional[Context] = None,
    ) -> bytes:
        """Moves a ciphertext under another key or context; the plaintext stays in the server."""
        return _lastkey.reencrypt(self, ciphertext, to_key, _dict(context), _dict(to_context))

    def data_key(self, key: str, size: int = 32, context: Optional[Context] = None) -> DataKey:
        """Makes a data key of ``size`` bytes, 1 to 1,024."""
        return DataKey(*_lastkey.data_key(self, key, size, _dict(context)))

    def random(self, size: int) -> bytes:
        """Random bytes of the server."""
        return _lastkey.random(self, size)

    def sign(
        self,
        key: str,
        message: Bytes,
        *,
        message_type: Optional[str] = None,
        algorithm: Optional[str] = None,
    ) -> bytes:
        """Signs a message, or its digest with the message type ``DIGEST``."""
        return _lastkey.sign(self, key, message, message_type, algorithm)

    def verify(
        self,
        key: str,
        message: Bytes,
        signature: Bytes,
        *,
        message_type: Optional[str] = None,
        algorithm: Optional[str] = None,
        version: Optional[int] = None,
    ) -> bool:
        """Whether a signature is good."""
        return _lastkey.verify(self, key, message, signature, message_type, algorithm, version)

    def mac(self, key: str, message: Bytes) -> bytes:
        """Makes a MAC."""
        return _lastkey.mac(self, key, message)

    def verify_mac(
        self, key: str, message: Bytes, mac: Bytes, *, version: Optional[int] = None
    ) -> bool:
        """Whether a MAC is good."""
        return _lastkey.verify_mac(self, key, message, mac, version)

    def create_key(
        self,
        *,
        alias: Optional[str] = None,
        spec: Optional[str] = None,
        usage: Optional[str] = None,
        description: Optional[str] = None,
        tags: Optional[Mapping[str, str]] = None,
    ) -> Dict[str, Any]:
        """Creates a key; answers what `describe_key` does."""
        given = {
            "alias": alias,
            "spec": spec,
            "usage": usage,
            "description": description,
            "tags": _dict(tags),
        }
        return self._manage("create_key", {k: v for k, v in given.items() if v is not None})

    def describe_key(self, key: str) -> Dict[str, Any]:
        """One key, with the fields of the HTTP API."""
        return self._manage("describe_key", {"key": key})

    def rotate_key(self, key: str) -> Dict[str, Any]:
        """Makes a new version, which protects new data from now on."""
        return self._manage("rotate_key", {"key": key})

    def list_keys(
        self, *, limit: Optional[int] = None, marker: Optional[str] = None
    ) -> Dict[str, Any]:
        """One page of the keys; ``next_marker`` of the reply asks for the next."""
        given = {"limit": limit, "marker": marker}
        return self._manage("list_keys", {k: v for k, v in given.items() if v is not None})

    def status(self) -> Dict[str, Any]:
        """Version, identity, sealed or not. Needs no token."""
        return self._manage("status", {})

    def _manage(self, call: str, request: Dict[str, Any]) -> Dict[str, Any]:
        reply: Dict[str, Any] = json.loads(_lastkey.manage(self, call, json.dumps(request)))
        return reply

    def __repr__(self) -> str:
        return f"<lastkey.Client of {self.addr}>"


def inspect(envelope: Union[PathLike, Readable, Bytes]) -> Dict[str, Any]:
    """What the header of an envelope says: a path, a file object, or bytes.

    Needs no server and no key, and nothing of it is authenticated.
    """
    if isinstance(envelope, (str, os.PathLike)):
        with Path(envelope).open("rb") as file:
            return inspect(file)
    if isinstance(envelope, (bytes, bytearray, memoryview)):
        return inspect(io.BytesIO(envelope))
    header: Dict[str, Any] = json.loads(_lastkey.inspect(envelope))
    return header


def _dict(context: Optional[Mapping[str, str]]) -> Optional[Dict[str, str]]:
    return None if context is None else dict(context)


def _list(texts: Iterable[str]) -> "list[str]":
    # One text is a list of letters, which nobody means.
    if isinstance(texts, str):
        raise TypeError("a list of texts is needed, not one text")
    return list(texts)
