"""Ten lines: what Python encrypts the command line decrypts, and the other way round."""
import sys
import lastkey

client = lastkey.Client()
source, sealed, from_cli, opened = sys.argv[1:]
client.encryptor("alias/app", context={"app": "web"}).encrypt_file(source, sealed)
with open(from_cli, "rb") as file, client.decryptor().open(file) as plaintext:
    with open(opened, "wb") as out:
        out.write(plaintext.read())
