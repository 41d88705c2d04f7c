"""The extension module. Use `lastkey`; this is its lower half."""

from __future__ import annotations

import os
from typing import Any, Dict, List, Optional, Tuple, Union, final

from typing_extensions import disjoint_base

__all__ = [
    "Client",
    "DataKeyCache",
    "Decryptor",
    "Encryptor",
    "RangeReader",
    "StreamReader",
    "StreamWriter",
    "data_key",
    "decrypt",
    "encrypt",
    "inspect",
    "mac",
    "manage",
    "random",
    "reencrypt",
    "rewrap",
    "sign",
    "verify",
    "verify_mac",
]

_Path = Union[str, os.PathLike[str]]
_Bytes = Union[bytes, bytearray, memoryview]
_Secret = Union[str, _Bytes]
_Context = Optional[Dict[str, str]]

@disjoint_base
class Client:
    def __new__(
        cls,
        addr: Optional[str] = None,
        *,
        token: Optional[_Secret] = None,
        ca_file: Optional[_Path] = None,
        ca_fingerprint: Optional[str] = None,
        config_file: Optional[_Path] = None,
        timeout: Optional[float] = None,
        connect_timeout: Optional[float] = None,
        attempts: Optional[int] = None,
    ) -> Any: ...
    @property
    def addr(self) -> str: ...

@disjoint_base
class DataKeyCache:
    def __new__(
        cls,
        *,
        max_age: float = 300.0,
        max_messages: int = 1000,
        max_bytes: int = 68719476736,
        max_entries: int = 1000,
    ) -> Any: ...
    def counts(self) -> Tuple[int, int, int, int, int, int]: ...
    def clear(self) -> None: ...

@disjoint_base
class Encryptor:
    def __new__(
        cls,
        keys: List[Tuple[Client, str]],
        recipients: List[str],
        *,
        passphrase: Optional[_Secret] = None,
        context: _Context = None,
        cache: Optional[DataKeyCache] = None,
        suite: Optional[str] = None,
        segment_log2: Optional[int] = None,
    ) -> Any: ...
    def encrypt(self, plaintext: _Bytes) -> bytes: ...
    def writer(self, file: object) -> StreamWriter: ...
    def encrypt_file(
        self, source: _Path, destination: _Path, *, overwrite: bool = False
    ) -> int: ...

@final
class StreamWriter:
    def write(self, plaintext: _Bytes) -> int: ...
    def flush(self) -> None: ...
    def finish(self) -> None: ...
    def abort(self) -> None: ...

@disjoint_base
class Decryptor:
    def __new__(
        cls,
        clients: List[Client],
        *,
        identities: Optional[_Secret] = None,
        passphrase: Optional[_Secret] = None,
        context: _Context = None,
        cache: Optional[DataKeyCache] = None,
    ) -> Any: ...
    def decrypt(self, envelope: _Bytes) -> bytes: ...
    def decrypt_range(self, envelope: _Bytes, start: int, end: int) -> bytes: ...
    def reader(self, file: object) -> StreamReader: ...
    def seekable(self, file: object) -> RangeReader: ...
    def decrypt_file(
        self, source: _Path, destination: _Path, *, overwrite: bool = False
    ) -> int: ...

@final
class StreamReader:
    def read(self, len: int) -> bytes: ...
    def read_all(self) -> bytes: ...
    def context(self) -> Dict[str, str]: ...

@final
class RangeReader:
    def read(self, len: int) -> bytes: ...
    def read_all(self) -> bytes: ...
    def seek(self, offset: int, whence: int) -> int: ...
    def len(self) -> int: ...
    def context(self) -> Dict[str, str]: ...

def inspect(file: object) -> str: ...
def rewrap(
    decryptor: Decryptor,
    path: _Path,
    *,
    add_keys: List[Tuple[Client, str]],
    remove_keys: List[str],
    add_recipients: List[str],
    remove_recipients: List[str],
    add_passphrase: Optional[_Secret] = None,
    remove_passphrases: bool = False,
    refresh: Optional[Client] = None,
    rewrite: bool = False,
) -> None: ...
def encrypt(client: Client, key: str, plaintext: _Bytes, context: _Context) -> bytes: ...
def decrypt(client: Client, ciphertext: _Bytes, context: _Context) -> bytes: ...
def reencrypt(
    client: Client, ciphertext: _Bytes, to_key: str, context: _Context, to_context: _Context
) -> bytes: ...
def data_key(
    client: Client, key: str, bytes: int, context: _Context
) -> Tuple[bytes, bytes, str, int]: ...
def random(client: Client, bytes: int) -> bytes: ...
def sign(
    client: Client,
    key: str,
    message: _Bytes,
    message_type: Optional[str],
    algorithm: Optional[str],
) -> bytes: ...
def verify(
    client: Client,
    key: str,
    message: _Bytes,
    signature: _Bytes,
    message_type: Optional[str],
    algorithm: Optional[str],
    version: Optional[int],
) -> bool: ...
def mac(client: Client, key: str, message: _Bytes) -> bytes: ...
def verify_mac(
    client: Client, key: str, message: _Bytes, mac: _Bytes, version: Optional[int]
) -> bool: ...
def manage(client: Client, call: str, request: str) -> str: ...
