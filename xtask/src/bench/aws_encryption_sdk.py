"""Encrypts a file with the AWS Encryption SDK under a key in memory: NAME OUT."""

import sys

import aws_encryption_sdk
from aws_cryptographic_material_providers.mpl import AwsCryptographicMaterialProviders
from aws_cryptographic_material_providers.mpl.config import MaterialProvidersConfig
from aws_cryptographic_material_providers.mpl.models import AesWrappingAlg, CreateRawAesKeyringInput

providers = AwsCryptographicMaterialProviders(config=MaterialProvidersConfig())
keyring = providers.create_raw_aes_keyring(
    input=CreateRawAesKeyringInput(
        key_namespace="bench",
        key_name="bench",
        wrapping_key=bytes(range(32)),
        wrapping_alg=AesWrappingAlg.ALG_AES256_GCM_IV12_TAG16,
    )
)
client = aws_encryption_sdk.EncryptionSDKClient()
name, out = sys.argv[1:3]
with open(name, "rb") as source, open(out, "wb") as sealed:
    with client.stream(mode="e", source=source, keyring=keyring) as encryptor:
        for chunk in encryptor:
            sealed.write(chunk)
