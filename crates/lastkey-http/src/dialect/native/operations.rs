//! Cryptographic operations: decode, one use case, encode.
//!
//! Room      `http`.

use lastkey_core::limits::{MAX_BATCH_LEN, MAX_DATA_KEY_LEN, MAX_RANDOM_LEN};
use lastkey_service::ops;
use lastkey_wire::native::batch::{BatchRequest, BatchResult};
use lastkey_wire::native::operations::{
    DataKeyPairReply, DataKeyPairRequest, DataKeyReply, DataKeyRequest, DecryptReply,
    DecryptRequest, EncryptReply, EncryptRequest, MacReply, MacRequest, RandomReply, RandomRequest,
    ReencryptReply, ReencryptRequest, SignReply, SignRequest, VerifyMacReply, VerifyMacRequest,
    VerifyReply, VerifyRequest,
};
use lastkey_wire::words::DataKeySpec;
use lastkey_wire::{Base64Bytes, SecretBase64};

use super::decode::{Ask, RequestBody, context, key, length, optional_key, optional_version, spec};
use super::encode::{Outcome, settle};
use super::errors;
use super::words::{algorithm_in, algorithm_out, message_type_in, spec_out};
use crate::problem::{Problem, Syntax};
use crate::request_id::RequestIdText;

/// Bodies that ask for a dry run themselves.
macro_rules! may_be_dry {
    ($($body:ty),* $(,)?) => {
        $(impl RequestBody for $body {
            fn is_dry(&self) -> bool {
                self.dry_run
            }
        })*
    };
}

may_be_dry!(
    EncryptRequest,
    DecryptRequest,
    ReencryptRequest,
    DataKeyRequest,
    DataKeyPairRequest,
    RandomRequest,
    SignRequest,
    VerifyRequest,
    MacRequest,
    VerifyMacRequest,
);

impl<T: RequestBody> RequestBody for BatchRequest<T> {}

/// `POST /v1/encrypt`
pub(super) async fn encrypt(ask: &Ask, body: EncryptRequest) -> Result<EncryptReply, Problem> {
    let request = ops::encrypt::Request {
        key: key("key", &body.key)?,
        plaintext: body.plaintext.0,
        context: context("context", body.context.as_ref(), body.context_raw.as_ref())?,
    };
    let reply = ask.engine().encrypt(ask.call(), request).await?;
    Ok(encrypted(reply))
}

fn encrypted(reply: ops::encrypt::Reply) -> EncryptReply {
    EncryptReply {
        ciphertext: Base64Bytes(reply.ciphertext),
        key: reply.key.to_string(),
        version: reply.version.number(),
    }
}

/// `POST /v1/decrypt`
pub(super) async fn decrypt(ask: &Ask, body: DecryptRequest) -> Result<DecryptReply, Problem> {
    let request = ops::decrypt::Request {
        ciphertext: body.ciphertext.0,
        context: context("context", body.context.as_ref(), body.context_raw.as_ref())?,
        key: optional_key("key", body.key.as_deref())?,
        version: optional_version("version", body.version)?,
    };
    let reply = ask.engine().decrypt(ask.call(), request).await?;
    Ok(DecryptReply {
        plaintext: SecretBase64(reply.plaintext),
        key: reply.key.to_string(),
        version: reply.version.number(),
    })
}

/// `POST /v1/reencrypt`
pub(super) async fn reencrypt(
    ask: &Ask,
    body: ReencryptRequest,
) -> Result<ReencryptReply, Problem> {
    let request = ops::reencrypt::Request {
        ciphertext: body.ciphertext.0,
        context: context("context", body.context.as_ref(), body.context_raw.as_ref())?,
        from_key: optional_key("from_key", body.from_key.as_deref())?,
        from_version: optional_version("from_version", body.from_version)?,
        to_key: key("to_key", &body.to_key)?,
        to_context: context("to_context", body.to_context.as_ref(), body.to_context_raw.as_ref())?,
    };
    let reply = ask.engine().reencrypt(ask.call(), request).await?;
    Ok(ReencryptReply {
        ciphertext: Base64Bytes(reply.ciphertext),
        key: reply.key.to_string(),
        version: reply.version.number(),
        source_key: reply.source_key.to_string(),
        source_version: reply.source_version.number(),
    })
}

/// `POST /v1/data-key`
pub(super) async fn data_key(ask: &Ask, body: DataKeyRequest) -> Result<DataKeyReply, Problem> {
    let reply = ask.engine().generate_data_key(ask.call(), data_key_request(&body)?).await?;
    Ok(DataKeyReply {
        plaintext: SecretBase64(reply.plaintext),
        ciphertext: Base64Bytes(reply.ciphertext),
        key: reply.key.to_string(),
        version: reply.version.number(),
    })
}

/// `POST /v1/data-key-without-plaintext`
pub(super) async fn data_key_without_plaintext(
    ask: &Ask,
    body: DataKeyRequest,
) -> Result<EncryptReply, Problem> {
    let request = data_key_request(&body)?;
    let reply = ask.engine().generate_data_key_without_plaintext(ask.call(), request).await?;
    Ok(encrypted(reply))
}

fn data_key_request(body: &DataKeyRequest) -> Result<ops::generate_data_key::Request, Syntax> {
    let len = match (body.spec, body.bytes) {
        (None | Some(DataKeySpec::Aes256), None) => 32,
        (Some(DataKeySpec::Aes128), None) => 16,
        (None, Some(bytes)) => length("bytes", bytes, MAX_DATA_KEY_LEN)?,
        (Some(_), Some(_)) => {
            return Err(Syntax::field("bytes", "expected spec or bytes, not both"));
        }
    };
    Ok(ops::generate_data_key::Request {
        key: key("key", &body.key)?,
        length: len,
        context: context("context", body.context.as_ref(), body.context_raw.as_ref())?,
    })
}

/// `POST /v1/data-key-pair`
pub(super) async fn data_key_pair(
    ask: &Ask,
    body: DataKeyPairRequest,
) -> Result<DataKeyPairReply, Problem> {
    let request = ops::generate_data_key_pair::Request {
        key: key("key", &body.key)?,
        pair_spec: spec("pair_spec", body.pair_spec)?,
        context: context("context", body.context.as_ref(), body.context_raw.as_ref())?,
        without_private: body.without_private,
    };
    let pair_spec = spec_out(request.pair_spec);
    let reply = ask.engine().generate_data_key_pair(ask.call(), request).await?;
    Ok(DataKeyPairReply {
        private_key: reply.private.map(SecretBase64),
        private_key_ciphertext: Base64Bytes(reply.private_ciphertext),
        public_key: Base64Bytes(reply.public),
        pair_spec,
        key: reply.key.to_string(),
        version: reply.version.number(),
    })
}

/// `POST /v1/random`
pub(super) async fn random(ask: &Ask, body: RandomRequest) -> Result<RandomReply, Problem> {
    let len = length("bytes", body.bytes, MAX_RANDOM_LEN)?;
    let bytes = ask.engine().generate_random(ask.call(), len).await?;
    Ok(RandomReply { bytes: SecretBase64(bytes) })
}

/// `POST /v1/sign`
pub(super) async fn sign(ask: &Ask, body: SignRequest) -> Result<SignReply, Problem> {
    let request = ops::sign::Request {
        key: key("key", &body.key)?,
        version: optional_version("version", body.version)?,
        message: body.message.0,
        message_type: message_type_in(body.message_type),
        algorithm: body.algorithm.map(algorithm_in),
    };
    let reply = ask.engine().sign(ask.call(), request).await?;
    Ok(SignReply {
        signature: Base64Bytes(reply.signature),
        algorithm: algorithm_out(reply.algorithm),
        key: reply.key.to_string(),
        version: reply.version.number(),
    })
}

/// `POST /v1/verify`
pub(super) async fn verify(ask: &Ask, body: VerifyRequest) -> Result<VerifyReply, Problem> {
    let request = ops::verify::Request {
        key: key("key", &body.key)?,
        version: optional_version("version", body.version)?,
        message: body.message.0,
        message_type: message_type_in(body.message_type),
        algorithm: body.algorithm.map(algorithm_in),
        signature: body.signature.0,
    };
    let reply = ask.engine().verify(ask.call(), request).await?;
    Ok(VerifyReply {
        valid: reply.valid,
        algorithm: algorithm_out(reply.algorithm),
        key: reply.key.to_string(),
        version: reply.version.number(),
    })
}

/// `POST /v1/mac`
pub(super) async fn mac(ask: &Ask, body: MacRequest) -> Result<MacReply, Problem> {
    let request = ops::generate_mac::Request {
        key: key("key", &body.key)?,
        version: optional_version("version", body.version)?,
        message: body.message.0,
    };
    let reply = ask.engine().generate_mac(ask.call(), request).await?;
    Ok(MacReply {
        mac: Base64Bytes(reply.mac),
        key: reply.key.to_string(),
        version: reply.version.number(),
    })
}

/// `POST /v1/verify-mac`
pub(super) async fn verify_mac(
    ask: &Ask,
    body: VerifyMacRequest,
) -> Result<VerifyMacReply, Problem> {
    let request = ops::verify_mac::Request {
        key: key("key", &body.key)?,
        version: optional_version("version", body.version)?,
        message: body.message.0,
        mac: body.mac.0,
    };
    let reply = ask.engine().verify_mac(ask.call(), request).await?;
    Ok(VerifyMacReply {
        valid: reply.valid,
        key: reply.key.to_string(),
        version: reply.version.number(),
    })
}

/// The items of a batch.
///
/// # Errors
/// [`Syntax`] for none, or more than 256.
pub(super) fn items<T>(batch: BatchRequest<T>) -> Result<Vec<T>, Syntax> {
    if (1..=MAX_BATCH_LEN).contains(&batch.items.len()) {
        Ok(batch.items)
    } else {
        Err(Syntax::field("items", format!("expected 1 to {MAX_BATCH_LEN} items")))
    }
}

/// The result of one item.
pub(super) fn item_result<T>(ask: &Ask, reply: Result<T, Problem>) -> BatchResult<T> {
    match settle(ask, reply) {
        Ok(Outcome::Done(reply)) => BatchResult::Ok(reply),
        Ok(Outcome::DryRun(dry_run)) => BatchResult::DryRun(dry_run),
        Err(problem) => {
            let id = RequestIdText::of(ask.call().caller.request);
            errors::log(&problem, "batch item", &id);
            BatchResult::Error(errors::detail(&problem, id.as_str()))
        }
    }
}
