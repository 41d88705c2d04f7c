//! What is done with a token: log in once, find or make the key, wrap or unwrap.
//!
//! Room      `connect`. Runs in the host of the module only.
//! Source    OASIS PKCS #11 3.0; RFC 3394 (AES key wrap), RFC 8017 (OAEP).
//! Holds     the key is made in the token, sensitive and never extractable, or nothing is
//!           wrapped under it. A PIN is tried once, and not at all when one more wrong one would
//!           lock it.

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::{Error, RvError};
use cryptoki::mechanism::aead::GcmParams;
use cryptoki::mechanism::rsa::{PkcsMgfType, PkcsOaepParams, PkcsOaepSource};
use cryptoki::mechanism::{Mechanism as Native, MechanismType};
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle};
use cryptoki::session::{Session, UserType};
use cryptoki::slot::Slot;
use cryptoki::types::AuthPin;
use lastkey_secret::SecretVec;

use super::message::{Answer, Fault, Mechanism, Question, Task};

const LABEL: &[u8] = b"lastkey-seal";
const KEY_LEN: usize = 32;
const IV_LEN: usize = 12;
const TAG_BITS: u64 = 128;
const RSA_BITS: u64 = 3_072;

type Refusal = (Fault, String);

/// Answers a question.
pub(super) fn answer(question: &Question) -> Answer {
    let context = Pkcs11::new(&question.module).map_err(refusal)?;
    // What a module does not find when it starts (a daemon, a device, its folder) may come back.
    context
        .initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK))
        .map_err(|error| (Fault::Away, refusal(error).1))?;
    let slot = slot_of(&context, &question.label)?;
    let session = log_in(&context, slot, &question.pin)?;
    let token = Token { context: &context, slot, session, id: question.id };
    match &question.task {
        Task::Wrap(Some(mechanism), key) => token.wrap(*mechanism, key),
        Task::Wrap(None, key) => token.wrap_by_any(key),
        Task::Unwrap(mechanism, wrapped) => {
            token.unwrap(*mechanism, wrapped).map(|key| (*mechanism, key))
        }
    }
}

fn slot_of(context: &Pkcs11, label: &str) -> Result<Slot, Refusal> {
    for slot in context.get_slots_with_initialized_token().map_err(refusal)? {
        // A token may be taken away between the list and the look at it.
        if context.get_token_info(slot).is_ok_and(|token| token.label() == label) {
            return Ok(slot);
        }
    }
    Err((Fault::Away, "no token has this label".to_owned()))
}

fn log_in(context: &Pkcs11, slot: Slot, pin: &SecretVec) -> Result<Session, Refusal> {
    let token = context.get_token_info(slot).map_err(refusal)?;
    if token.user_pin_locked() {
        return Err((Fault::PinLocked, "the token says so".to_owned()));
    }
    if token.user_pin_final_try() {
        return Err((Fault::FinalTry, "the token says so".to_owned()));
    }
    let session = context.open_rw_session(slot).map_err(refusal)?;
    let pin = pin.expose(|pin| String::from_utf8(pin.to_vec()));
    let pin = pin.map_err(|_| (Fault::PinWrong, "the PIN is not UTF-8".to_owned()))?;
    match session.login(UserType::User, Some(&AuthPin::new(pin.into()))) {
        Ok(()) | Err(Error::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => Ok(session),
        Err(error) => Err(refusal(error)),
    }
}

/// A token that was logged in to.
struct Token<'a> {
    context: &'a Pkcs11,
    slot: Slot,
    session: Session,
    id: [u8; 16],
}

impl Token<'_> {
    fn wrap_by_any(&self, key: &SecretVec) -> Answer {
        let mut last = (Fault::NoMechanism, "the token offers none".to_owned());
        for mechanism in Mechanism::ALL.into_iter().filter(|one| self.offers(*one)) {
            // A token may list what it then refuses, so it is used only once it has worked.
            let tried = self.wrap(mechanism, key).and_then(|(mechanism, wrapped)| {
                let again = wrapped.expose(|wrapped| self.unwrap(mechanism, wrapped))?;
                let same = again.ct_eq(key);
                if same { Ok((mechanism, wrapped)) } else { Err(failed("another key came back")) }
            });
            match tried {
                Ok(done) => return Ok(done),
                Err((Fault::Away, said)) => return Err((Fault::Away, said)),
                Err(refused) => last = refused,
            }
        }
        Err(last)
    }

    fn offers(&self, mechanism: Mechanism) -> bool {
        let info = |kind| self.context.get_mechanism_info(self.slot, kind).ok();
        match mechanism {
            Mechanism::AesKeyWrap => {
                info(MechanismType::AES_KEY_WRAP).is_some_and(|info| info.wrap() && info.unwrap())
            }
            Mechanism::RsaOaepSha256 | Mechanism::RsaOaepSha1 => info(MechanismType::RSA_PKCS_OAEP)
                .is_some_and(|info| info.encrypt() && info.decrypt()),
            Mechanism::AesGcm => {
                info(MechanismType::AES_GCM).is_some_and(|info| info.encrypt() && info.decrypt())
            }
        }
    }

    fn wrap(&self, mechanism: Mechanism, key: &SecretVec) -> Answer {
        let (protect, process) = match self.find(mechanism)? {
            Some(pair) => pair,
            None => self.make(mechanism)?,
        };
        self.check_kept(process)?;
        let wrapped = match mechanism {
            Mechanism::AesKeyWrap => {
                let object = self.import(key)?;
                let wrapped = self.session.wrap_key(&Native::AesKeyWrap, protect, object);
                self.session.destroy_object(object).map_err(refusal)?;
                wrapped.map_err(refusal)?
            }
            Mechanism::RsaOaepSha256 | Mechanism::RsaOaepSha1 => key
                .expose(|key| self.session.encrypt(&oaep(mechanism), protect, key))
                .map_err(refusal)?,
            Mechanism::AesGcm => self.encrypt_gcm(protect, key)?,
        };
        Ok((mechanism, SecretVec::take(wrapped)))
    }

    fn encrypt_gcm(&self, key: ObjectHandle, secret: &SecretVec) -> Result<Vec<u8>, Refusal> {
        let mut iv = [0; IV_LEN];
        self.session.generate_random_slice(&mut iv).map_err(refusal)?;
        // A token that draws its own puts it into the parameters.
        let mut used = iv;
        let params = GcmParams::new(&mut used, &[], TAG_BITS.into()).map_err(refusal)?;
        let sealed =
            secret.expose(|secret| self.session.encrypt(&Native::AesGcm(params), key, secret));
        Ok([&used[..], &sealed.map_err(refusal)?].concat())
    }

    fn unwrap(&self, mechanism: Mechanism, wrapped: &[u8]) -> Result<SecretVec, Refusal> {
        let missing = || (Fault::NotHere, "the token has no key of this id".to_owned());
        let (_, process) = self.find(mechanism)?.ok_or_else(missing)?;
        let opened = match mechanism {
            Mechanism::AesKeyWrap => self.unwrap_object(process, wrapped),
            Mechanism::RsaOaepSha256 | Mechanism::RsaOaepSha1 => {
                self.session.decrypt(&oaep(mechanism), process, wrapped).map_err(refusal)
            }
            Mechanism::AesGcm => {
                let (iv, sealed) = wrapped.split_first_chunk::<IV_LEN>().ok_or_else(missing)?;
                let mut iv = *iv;
                let params = GcmParams::new(&mut iv, &[], TAG_BITS.into()).map_err(refusal)?;
                self.session.decrypt(&Native::AesGcm(params), process, sealed).map_err(refusal)
            }
        };
        opened.map(SecretVec::take)
    }

    fn unwrap_object(&self, key: ObjectHandle, wrapped: &[u8]) -> Result<Vec<u8>, Refusal> {
        let template = passing(&[Attribute::Class(ObjectClass::SECRET_KEY)]);
        let object = self
            .session
            .unwrap_key(&Native::AesKeyWrap, key, wrapped, &template)
            .map_err(refusal)?;
        let value = self.session.get_attributes(object, &[AttributeType::Value]);
        self.session.destroy_object(object).map_err(refusal)?;
        match value.map_err(refusal)?.pop() {
            Some(Attribute::Value(value)) => Ok(value),
            Some(_) | None => Err(failed("the token does not show what it unwrapped")),
        }
    }

    /// The key to be wrapped, as an object of this session.
    fn import(&self, key: &SecretVec) -> Result<ObjectHandle, Refusal> {
        let value = key.expose(<[u8]>::to_vec);
        let template =
            passing(&[Attribute::Class(ObjectClass::SECRET_KEY), Attribute::Value(value)]);
        self.session.create_object(&template).map_err(refusal)
    }

    /// The handles that protect and process; the same one for a symmetric key.
    fn find(&self, mechanism: Mechanism) -> Result<Option<(ObjectHandle, ObjectHandle)>, Refusal> {
        let one = |class, kind| {
            let template = [
                Attribute::Class(class),
                Attribute::KeyType(kind),
                Attribute::Id(self.id.to_vec()),
                Attribute::Token(true),
            ];
            let found = self.session.find_objects(&template).map_err(refusal)?;
            Ok::<_, Refusal>(found.first().copied())
        };
        match mechanism {
            Mechanism::AesKeyWrap | Mechanism::AesGcm => {
                Ok(one(ObjectClass::SECRET_KEY, KeyType::AES)?.map(|key| (key, key)))
            }
            Mechanism::RsaOaepSha256 | Mechanism::RsaOaepSha1 => {
                let public = one(ObjectClass::PUBLIC_KEY, KeyType::RSA)?;
                Ok(public.zip(one(ObjectClass::PRIVATE_KEY, KeyType::RSA)?))
            }
        }
    }

    fn make(&self, mechanism: Mechanism) -> Result<(ObjectHandle, ObjectHandle), Refusal> {
        let named = || {
            vec![
                Attribute::Token(true),
                Attribute::Label(LABEL.to_vec()),
                Attribute::Id(self.id.to_vec()),
            ]
        };
        let mut kept = named();
        kept.extend([
            Attribute::Private(true),
            Attribute::Sensitive(true),
            Attribute::Extractable(false),
        ]);
        match mechanism {
            Mechanism::AesKeyWrap | Mechanism::AesGcm => {
                kept.extend([
                    Attribute::ValueLen((KEY_LEN as u64).into()),
                    Attribute::Wrap(true),
                    Attribute::Unwrap(true),
                    Attribute::Encrypt(true),
                    Attribute::Decrypt(true),
                ]);
                let key = self.session.generate_key(&Native::AesKeyGen, &kept).map_err(refusal)?;
                Ok((key, key))
            }
            Mechanism::RsaOaepSha256 | Mechanism::RsaOaepSha1 => {
                kept.push(Attribute::Decrypt(true));
                let mut public = named();
                public.extend([
                    Attribute::Encrypt(true),
                    Attribute::ModulusBits(RSA_BITS.into()),
                    Attribute::PublicExponent(vec![1, 0, 1]),
                ]);
                let kind = Native::RsaPkcsKeyPairGen;
                self.session.generate_key_pair(&kind, &public, &kept).map_err(refusal)
            }
        }
    }

    /// Refuses a key that could leave the token, whoever made it.
    fn check_kept(&self, key: ObjectHandle) -> Result<(), Refusal> {
        let asked = [
            AttributeType::Sensitive,
            AttributeType::Extractable,
            AttributeType::NeverExtractable,
            AttributeType::AlwaysSensitive,
        ];
        let answers = self.session.get_attributes(key, &asked).map_err(refusal)?;
        let wanted = [
            Attribute::Sensitive(true),
            Attribute::Extractable(false),
            Attribute::NeverExtractable(true),
            Attribute::AlwaysSensitive(true),
        ];
        if wanted.iter().all(|attribute| answers.contains(attribute)) {
            Ok(())
        } else {
            Err(failed("the key of this id can leave the token, or could once"))
        }
    }
}

/// A key that passes through the token for one wrap or unwrap.
fn passing(more: &[Attribute]) -> Vec<Attribute> {
    let mut template = vec![
        Attribute::KeyType(KeyType::GENERIC_SECRET),
        Attribute::Token(false),
        Attribute::Private(true),
        Attribute::Sensitive(false),
        Attribute::Extractable(true),
    ];
    template.extend_from_slice(more);
    template
}

fn oaep(mechanism: Mechanism) -> Native<'static> {
    let (hash, mask) = match mechanism {
        Mechanism::RsaOaepSha1 => (MechanismType::SHA1, PkcsMgfType::MGF1_SHA1),
        Mechanism::RsaOaepSha256 | Mechanism::AesKeyWrap | Mechanism::AesGcm => {
            (MechanismType::SHA256, PkcsMgfType::MGF1_SHA256)
        }
    };
    Native::RsaPkcsOaep(PkcsOaepParams::new(hash, mask, PkcsOaepSource::empty()))
}

fn failed(why: &str) -> Refusal {
    (Fault::Failed, why.to_owned())
}

/// What the token said, sorted by what a person can do next.
fn refusal(error: Error) -> Refusal {
    let fault = match &error {
        Error::Pkcs11(value, _) => fault_of(value),
        Error::LibraryLoading(_) | Error::MissingSymbol(_) | Error::NullFunctionPointer => {
            Fault::Module
        }
        Error::NotSupported
        | Error::TryFromInt(_)
        | Error::TryFromSlice(_)
        | Error::ParseInt(_)
        | Error::Utf8(_)
        | Error::NulError(_)
        | Error::InvalidValue
        | Error::PinNotSet => Fault::Failed,
    };
    // The library explains a code in a paragraph; its first sentence is enough.
    let said = error.to_string();
    let first = said.split_once(". ").map_or(said.as_str(), |(first, _)| first);
    (fault, first.to_owned())
}

#[expect(clippy::wildcard_enum_match_arm, reason = "a hundred codes, of which these matter")]
fn fault_of(value: &RvError) -> Fault {
    match value {
        RvError::PinIncorrect | RvError::PinInvalid | RvError::PinLenRange => Fault::PinWrong,
        RvError::PinLocked | RvError::PinExpired | RvError::UserPinNotInitialized => {
            Fault::PinLocked
        }
        RvError::TokenNotPresent
        | RvError::TokenNotRecognized
        | RvError::DeviceRemoved
        | RvError::DeviceError
        | RvError::DeviceMemory
        | RvError::SessionHandleInvalid
        | RvError::SessionClosed
        | RvError::SlotIdInvalid => Fault::Away,
        RvError::EncryptedDataInvalid
        | RvError::EncryptedDataLenRange
        | RvError::WrappedKeyInvalid
        | RvError::WrappedKeyLenRange => Fault::NotHere,
        _ => Fault::Failed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cryptoki::context::Function;

    #[test]
    fn what_a_token_says_is_sorted_by_what_to_do() {
        let of = |value| refusal(Error::Pkcs11(value, Function::Login)).0;
        assert_eq!(of(RvError::PinIncorrect), Fault::PinWrong);
        assert_eq!(of(RvError::PinLocked), Fault::PinLocked);
        assert_eq!(of(RvError::TokenNotPresent), Fault::Away);
        assert_eq!(of(RvError::DeviceRemoved), Fault::Away);
        assert_eq!(of(RvError::EncryptedDataInvalid), Fault::NotHere);
        assert_eq!(of(RvError::GeneralError), Fault::Failed);
    }
}
