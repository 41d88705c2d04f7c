"""Encrypts a file with Tink's streaming AEAD under a key in memory: NAME OUT."""

import shutil
import sys

from tink import new_keyset_handle, streaming_aead

streaming_aead.register()
handle = new_keyset_handle(streaming_aead.streaming_aead_key_templates.AES256_GCM_HKDF_1MB)
primitive = handle.primitive(streaming_aead.StreamingAead)
name, out = sys.argv[1:3]
with open(name, "rb") as source, open(out, "wb") as sealed:
    with primitive.new_encrypting_stream(sealed, b"") as encryptor:
        shutil.copyfileobj(source, encryptor, 1 << 20)
