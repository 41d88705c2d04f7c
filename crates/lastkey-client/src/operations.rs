//! Cryptographic operations, one method for each route.
//!
//! Room      `client`. Requests and replies are the shapes of the wire.

use lastkey_wire::native::{
    batch::{BatchReply, BatchRequest},
    operations::{
        DataKeyPairReply, DataKeyPairRequest, DataKeyReply, DataKeyRequest, DecryptReply,
        DecryptRequest, EncryptReply, EncryptRequest, MacReply, MacRequest, RandomReply,
        RandomRequest, ReencryptReply, ReencryptRequest, SignReply, SignRequest, VerifyMacReply,
        VerifyMacRequest, VerifyReply, VerifyRequest,
    },
};

use crate::{call::Call, client::Client};

/// Declares a method for each route whose body is a request of the wire.
macro_rules! operations {
    ($($(#[$doc:meta])* $name:ident, $path:literal, $request:ty => $reply:ty;)*) => {
        impl Client {
            $(
                $(#[$doc])*
                pub fn $name<'a>(&'a self, request: &'a $request) -> Call<'a, &'a $request, $reply> {
                    Call::operation(self.transport(), $path, request)
                }
            )*
        }
    };
}

operations! {
    /// Protects at most 65,536 bytes.
    encrypt, "/v1/encrypt", EncryptRequest => EncryptReply;
    /// Recovers what [`Client::encrypt`] protected; the ciphertext names its key.
    decrypt, "/v1/decrypt", DecryptRequest => DecryptReply;
    /// Moves a ciphertext under another key or context; the plaintext stays in the server.
    reencrypt, "/v1/reencrypt", ReencryptRequest => ReencryptReply;
    /// Makes a data key: in the clear and protected.
    data_key, "/v1/data-key", DataKeyRequest => DataKeyReply;
    /// Makes a data key: protected only.
    data_key_without_plaintext, "/v1/data-key-without-plaintext", DataKeyRequest => EncryptReply;
    /// Makes a key pair whose private half is protected.
    data_key_pair, "/v1/data-key-pair", DataKeyPairRequest => DataKeyPairReply;
    /// Draws random bytes.
    random, "/v1/random", RandomRequest => RandomReply;
    /// Signs a message or its digest.
    sign, "/v1/sign", SignRequest => SignReply;
    /// Verifies a signature; a wrong one is `valid: false`, no error.
    verify, "/v1/verify", VerifyRequest => VerifyReply;
    /// Makes a MAC.
    mac, "/v1/mac", MacRequest => MacReply;
    /// Verifies a MAC; a wrong one is `valid: false`, no error.
    verify_mac, "/v1/verify-mac", VerifyMacRequest => VerifyMacReply;
}

/// Declares a method for each batch route; dry runs are asked for item by item.
macro_rules! batches {
    ($($(#[$doc:meta])* $name:ident, $path:literal, $request:ty => $reply:ty;)*) => {
        impl Client {
            $(
                $(#[$doc])*
                ///
                /// # Errors
                /// See [`crate::Error`]; an item that failed is no error of the call.
                pub async fn $name(
                    &self,
                    batch: &BatchRequest<$request>,
                ) -> Result<BatchReply<$reply>, crate::Error> {
                    Call::<_, BatchReply<$reply>>::operation(self.transport(), $path, batch)
                        .send()
                        .await
                }
            )*
        }
    };
}

batches! {
    /// Up to 256 times [`Client::encrypt`].
    encrypt_batch, "/v1/batch/encrypt", EncryptRequest => EncryptReply;
    /// Up to 256 times [`Client::decrypt`].
    decrypt_batch, "/v1/batch/decrypt", DecryptRequest => DecryptReply;
    /// Up to 256 times [`Client::reencrypt`].
    reencrypt_batch, "/v1/batch/reencrypt", ReencryptRequest => ReencryptReply;
    /// Up to 256 times [`Client::data_key`].
    data_key_batch, "/v1/batch/data-key", DataKeyRequest => DataKeyReply;
    /// Up to 256 times [`Client::data_key_without_plaintext`].
    data_key_without_plaintext_batch, "/v1/batch/data-key-without-plaintext",
        DataKeyRequest => EncryptReply;
}
