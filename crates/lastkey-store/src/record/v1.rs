//! Version 1 of stored records, apart from the types of the domain.
//!
//! Room      `store`. What is here never changes; a change of fields is a version 2 beside it.
//! Source    `docs/formats/record.md`, "Version 1".
//! Holds     every record of the domain has an encoding, and what is decoded was validated:
//!           names parse, codes are known, numbers are in range.

use lastkey_core::ids::{AliasName, KeyId, VersionNo};
use lastkey_core::key::{DeletionWindow, Description, Destruction, Key, Tags};
use lastkey_core::principal::Principal;
use lastkey_core::record::{Due, ImportSession, Record, TokenRecord};
use lastkey_core::rotation::{Period, Rotation};
use lastkey_core::time::{ClockRecord, Elapsed, Hold, Reading, Timestamp};
use lastkey_core::version::{KeyVersion, Usage, WrappedKey};
use minicbor::{Decode, Encode};

use super::access_v1::{
    AccessV1, ClusterV1, PolicyV1, ProviderV1, RevocationV1, RoleV1, SessionEpochV1, UserV1,
};
use super::backup_v1::{AuditHeadV1, BackupV1, RollbackV1, TombstoneV1};
use super::database_v1::DatabaseV1;
use super::holding_v1::{HoldingV1, InventoryV1};
use super::lease_v1::{DatabaseRoleV1, LeaseV1};
use super::node_v1::{NodeAuthorityV1, NodeV1};
use super::rotation_v1::{RotationDueV1, SecretRotationV1};
use super::seals_v1::SealBookV1;
use super::secret_v1::{SecretDueV1, SecretV1, SecretValueV1, SecretVersionV1};
use super::{DecodeError, EncodeError, codes};

const KEY: u8 = 1;
const VERSION: u8 = 2;
const USAGE: u8 = 3;
const ALIAS: u8 = 4;
const DUE: u8 = 5;
const IMPORT: u8 = 6;
const TOKEN: u8 = 7;
const CLOCK: u8 = 8;
const CLUSTER: u8 = 9;
const PROVIDER: u8 = 10;
const ROLE: u8 = 11;
const POLICY: u8 = 12;
const USER: u8 = 13;
const NODE: u8 = 14;
const REVOCATION: u8 = 15;
const SESSION_EPOCH: u8 = 16;
const ACCESS: u8 = 17;
const NODE_AUTHORITY: u8 = 18;
const SEAL_BOOK: u8 = 19;
const SECRET: u8 = 20;
const SECRET_VERSION: u8 = 21;
const SECRET_VALUE: u8 = 22;
const SECRET_DUE: u8 = 23;
const HOLDING: u8 = 28;
const INVENTORY: u8 = 31;
const AUDIT_HEAD: u8 = 32;
const BACKUP: u8 = 33;
const TOMBSTONE: u8 = 34;
const ROLLBACK: u8 = 35;
const SECRET_ROTATION: u8 = 40;
const ROTATION_DUE: u8 = 41;
const DATABASE: u8 = 42;
const DATABASE_ROLE: u8 = 43;
const LEASE: u8 = 44;

/// Appends kind and CBOR.
pub(super) fn encode(record: &Record, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    match record {
        Record::Key(key) => append(out, KEY, &KeyV1::from(key)),
        Record::Version(version) => append(out, VERSION, &VersionV1::from(version)),
        Record::Usage(usage) => append(out, USAGE, &UsageV1::from(usage)),
        Record::Alias(key) => append(out, ALIAS, &AliasV1 { key: *key.as_bytes() }),
        Record::Due(due) => append(out, DUE, &DueV1::from(due)),
        Record::Import(session) => append(out, IMPORT, &ImportV1::from(session)),
        Record::Token(token) => append(out, TOKEN, &TokenV1::from(token)),
        Record::Clock(clock) => append(out, CLOCK, &ClockV1::from(clock)),
        Record::Cluster(cluster) => append(out, CLUSTER, &ClusterV1::from(cluster)),
        Record::Provider(provider) => append(out, PROVIDER, &ProviderV1::from(provider)),
        Record::Role(role) => append(out, ROLE, &RoleV1::from(role)),
        Record::Policy(policy) => append(out, POLICY, &PolicyV1::from(policy)),
        Record::User(user) => append(out, USER, &UserV1::from(user)),
        Record::Node(node) => append(out, NODE, &NodeV1::from(node)),
        Record::Revocation(revocation) => append(out, REVOCATION, &RevocationV1::from(revocation)),
        Record::SessionEpoch(epoch) => append(out, SESSION_EPOCH, &SessionEpochV1::from(epoch)),
        Record::Access(changes) => append(out, ACCESS, &AccessV1 { changes: *changes }),
        Record::SealBook(book) => append(out, SEAL_BOOK, &SealBookV1::from(book)),
        Record::NodeAuthority(authority) => {
            append(out, NODE_AUTHORITY, &NodeAuthorityV1::from(authority))
        }
        Record::Secret(item) => append(out, SECRET, &SecretV1::from(item)),
        Record::SecretVersion(version) => {
            append(out, SECRET_VERSION, &SecretVersionV1::from(version))
        }
        Record::SecretValue(sealed) => append(out, SECRET_VALUE, &SecretValueV1 { sealed }),
        Record::SecretDue(due) => append(out, SECRET_DUE, &SecretDueV1::from(due)),
        Record::Holding(holding) => append(out, HOLDING, &HoldingV1::from(holding)),
        Record::Inventory(inventory) => append(out, INVENTORY, &InventoryV1::from(inventory)),
        Record::AuditHead(head) => append(out, AUDIT_HEAD, &AuditHeadV1::from(head)),
        Record::Rollback(number) => append(out, ROLLBACK, &RollbackV1 { number: *number }),
        Record::Backup(backup) => append(out, BACKUP, &BackupV1::from(backup)),
        Record::Tombstone(tombstone) => append(out, TOMBSTONE, &TombstoneV1::from(tombstone)),
        Record::SecretRotation(rotation) => {
            append(out, SECRET_ROTATION, &SecretRotationV1::from(&**rotation))
        }
        Record::RotationDue(due) => append(out, ROTATION_DUE, &RotationDueV1::from(due)),
        Record::Database(database) => append(out, DATABASE, &DatabaseV1::from(database)),
        Record::DatabaseRole(role) => append(out, DATABASE_ROLE, &DatabaseRoleV1::from(role)),
        Record::Lease(lease) => append(out, LEASE, &LeaseV1::from(&**lease)),
    }
}

/// Decodes kind and CBOR.
pub(super) fn decode(bytes: &[u8]) -> Result<Record, DecodeError> {
    let (kind, cbor) = bytes.split_first().ok_or(DecodeError::Malformed)?;
    match *kind {
        KEY => read::<KeyV1<'_>>(cbor)?.try_into().map(Record::Key),
        VERSION => read::<VersionV1<'_>>(cbor)?.try_into().map(Record::Version),
        USAGE => read::<UsageV1>(cbor).map(|usage| Record::Usage(usage.into())),
        ALIAS => read::<AliasV1>(cbor).map(|a| Record::Alias(KeyId::from_bytes(a.key))),
        DUE => read::<DueV1>(cbor)?.try_into().map(Record::Due),
        IMPORT => read::<ImportV1<'_>>(cbor)?.try_into().map(Record::Import),
        TOKEN => read::<TokenV1<'_>>(cbor).map(|token| Record::Token(token.into())),
        CLOCK => read::<ClockV1>(cbor).map(|clock| Record::Clock(clock.into())),
        CLUSTER => read::<ClusterV1<'_>>(cbor)?.try_into().map(Record::Cluster),
        PROVIDER => read::<ProviderV1<'_>>(cbor)?.try_into().map(Record::Provider),
        ROLE => read::<RoleV1<'_>>(cbor)?.try_into().map(Record::Role),
        POLICY => read::<PolicyV1<'_>>(cbor)?.try_into().map(Record::Policy),
        USER => read::<UserV1<'_>>(cbor)?.try_into().map(Record::User),
        NODE => read::<NodeV1<'_>>(cbor)?.try_into().map(Record::Node),
        REVOCATION => read::<RevocationV1<'_>>(cbor)?.try_into().map(Record::Revocation),
        SESSION_EPOCH => read::<SessionEpochV1<'_>>(cbor).map(|e| Record::SessionEpoch(e.into())),
        ACCESS => read::<AccessV1>(cbor).map(|access| Record::Access(access.changes)),
        SEAL_BOOK => read::<SealBookV1<'_>>(cbor).map(|one| Record::SealBook(one.into())),
        NODE_AUTHORITY => {
            read::<NodeAuthorityV1<'_>>(cbor).map(|one| Record::NodeAuthority(one.into()))
        }
        SECRET => read::<SecretV1<'_>>(cbor)?.try_into().map(Record::Secret),
        SECRET_VERSION => read::<SecretVersionV1<'_>>(cbor)?.try_into().map(Record::SecretVersion),
        SECRET_VALUE => {
            read::<SecretValueV1<'_>>(cbor).map(|value| Record::SecretValue(value.sealed.to_vec()))
        }
        SECRET_DUE => read::<SecretDueV1<'_>>(cbor)?.try_into().map(Record::SecretDue),
        HOLDING => read::<HoldingV1<'_>>(cbor)?.try_into().map(Record::Holding),
        INVENTORY => read::<InventoryV1<'_>>(cbor)?.try_into().map(Record::Inventory),
        AUDIT_HEAD => read::<AuditHeadV1>(cbor).map(|head| Record::AuditHead(head.into())),
        ROLLBACK => read::<RollbackV1>(cbor).map(|one| Record::Rollback(one.number)),
        BACKUP => read::<BackupV1<'_>>(cbor).map(|backup| Record::Backup(backup.into())),
        TOMBSTONE => read::<TombstoneV1>(cbor)?.try_into().map(Record::Tombstone),
        SECRET_ROTATION => {
            let rotation = read::<SecretRotationV1<'_>>(cbor)?.try_into();
            rotation.map(|rotation| Record::SecretRotation(Box::new(rotation)))
        }
        ROTATION_DUE => read::<RotationDueV1>(cbor)?.try_into().map(Record::RotationDue),
        DATABASE => read::<DatabaseV1<'_>>(cbor)?.try_into().map(Record::Database),
        DATABASE_ROLE => read::<DatabaseRoleV1<'_>>(cbor)?.try_into().map(Record::DatabaseRole),
        LEASE => read::<LeaseV1<'_>>(cbor)?.try_into().map(|one| Record::Lease(Box::new(one))),
        0 => Err(DecodeError::Malformed),
        _ => Err(DecodeError::Newer),
    }
}

/// Appends a kind and the CBOR of one value.
pub(super) fn append<T: Encode<()>>(
    out: &mut Vec<u8>,
    kind: u8,
    value: &T,
) -> Result<(), EncodeError> {
    out.push(kind);
    minicbor::encode(value, out).map_err(|_| EncodeError::Failed)
}

/// Reads one value that fills `cbor` and is encoded the one way that [`append`] does it.
pub(super) fn read<'b, T: Decode<'b, ()> + Encode<()>>(cbor: &'b [u8]) -> Result<T, DecodeError> {
    let value: T = minicbor::decode(cbor).map_err(|_| DecodeError::Malformed)?;
    let mut again = Vec::with_capacity(cbor.len());
    minicbor::encode(&value, &mut again).map_err(|_| DecodeError::Malformed)?;
    if again == cbor { Ok(value) } else { Err(DecodeError::Malformed) }
}

#[derive(Encode, Decode)]
struct KeyV1<'a> {
    #[cbor(n(0), with = "minicbor::bytes")]
    id: [u8; 16],
    #[n(1)]
    spec: u8,
    #[n(2)]
    usage: u8,
    #[n(3)]
    origin: u8,
    #[n(4)]
    state: u8,
    #[n(5)]
    destruction: Option<DestructionV1>,
    #[n(6)]
    primary: Option<u32>,
    #[n(7)]
    newest: Option<u32>,
    #[n(8)]
    activation: u32,
    #[n(9)]
    rotation: Option<RotationV1>,
    #[n(10)]
    deletion_protection: bool,
    #[b(11)]
    description: &'a str,
    #[b(12)]
    tags: Vec<(&'a str, &'a str)>,
    #[b(13)]
    aliases: Vec<&'a str>,
    #[n(14)]
    created_at: u64,
    #[n(15)]
    destroyed_at: Option<u64>,
}

impl<'a> From<&'a Key> for KeyV1<'a> {
    fn from(key: &'a Key) -> Self {
        Self {
            id: *key.id.as_bytes(),
            spec: codes::spec_code(key.spec),
            usage: codes::usage_code(key.usage),
            origin: codes::origin_code(key.origin),
            state: codes::state_code(key.state),
            destruction: key.destruction.as_ref().map(DestructionV1::from),
            primary: key.primary.map(VersionNo::number),
            newest: key.newest.map(VersionNo::number),
            activation: key.activation,
            rotation: key.rotation.as_ref().map(RotationV1::from),
            deletion_protection: key.deletion_protection,
            description: key.description.as_str(),
            tags: key.tags.iter().collect(),
            aliases: key.aliases.iter().map(AliasName::as_str).collect(),
            created_at: key.created_at.0,
            destroyed_at: key.destroyed_at.map(|at| at.0),
        }
    }
}

impl TryFrom<KeyV1<'_>> for Key {
    type Error = DecodeError;

    fn try_from(key: KeyV1<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            id: KeyId::from_bytes(key.id),
            spec: codes::spec(key.spec)?,
            usage: codes::usage(key.usage)?,
            origin: codes::origin(key.origin)?,
            state: codes::state(key.state)?,
            destruction: key.destruction.map(Destruction::try_from).transpose()?,
            primary: key.primary.map(version_no).transpose()?,
            newest: key.newest.map(version_no).transpose()?,
            activation: key.activation,
            rotation: key.rotation.map(Rotation::try_from).transpose()?,
            deletion_protection: key.deletion_protection,
            description: Description::parse(key.description).or(Err(DecodeError::Malformed))?,
            tags: tags(&key.tags)?,
            aliases: key.aliases.iter().map(|a| alias(a)).collect::<Result<_, _>>()?,
            created_at: Timestamp(key.created_at),
            destroyed_at: key.destroyed_at.map(Timestamp),
        })
    }
}

pub(super) fn version_no(number: u32) -> Result<VersionNo, DecodeError> {
    VersionNo::new(number).ok_or(DecodeError::Malformed)
}

fn alias(text: &str) -> Result<AliasName, DecodeError> {
    AliasName::parse(text).or(Err(DecodeError::Malformed))
}

pub(super) fn tags(pairs: &[(&str, &str)]) -> Result<Tags, DecodeError> {
    let rising = pairs.is_sorted_by(|(a, _), (b, _)| a < b);
    let owned = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Tags::default().with(owned).ok().filter(|_| rising).ok_or(DecodeError::Malformed)
}

#[derive(Encode, Decode)]
pub(super) struct DestructionV1 {
    #[n(0)]
    due: u64,
    #[n(1)]
    scheduled_at: u64,
    #[n(2)]
    window_days: u32,
}

impl From<&Destruction> for DestructionV1 {
    fn from(d: &Destruction) -> Self {
        Self { due: d.due.0, scheduled_at: d.scheduled_at.0, window_days: d.window.days() }
    }
}

impl TryFrom<DestructionV1> for Destruction {
    type Error = DecodeError;

    fn try_from(d: DestructionV1) -> Result<Self, DecodeError> {
        let window = DeletionWindow::from_days(d.window_days).or(Err(DecodeError::Malformed))?;
        Ok(Self { due: Elapsed(d.due), scheduled_at: Timestamp(d.scheduled_at), window })
    }
}

#[derive(Encode, Decode)]
struct RotationV1 {
    #[n(0)]
    period_seconds: u64,
    #[n(1)]
    due: u64,
    #[n(2)]
    last: Option<u64>,
}

impl From<&Rotation> for RotationV1 {
    fn from(rotation: &Rotation) -> Self {
        Self {
            period_seconds: rotation.period.as_secs(),
            due: rotation.due.0,
            last: rotation.last.map(|at| at.0),
        }
    }
}

impl TryFrom<RotationV1> for Rotation {
    type Error = DecodeError;

    fn try_from(rotation: RotationV1) -> Result<Self, DecodeError> {
        let period = Period::from_secs(rotation.period_seconds).or(Err(DecodeError::Malformed))?;
        Ok(Self { period, due: Elapsed(rotation.due), last: rotation.last.map(Timestamp) })
    }
}

#[derive(Encode, Decode)]
struct VersionV1<'a> {
    #[cbor(n(0), with = "minicbor::bytes")]
    key: [u8; 16],
    #[n(1)]
    number: u32,
    #[n(2)]
    state: u8,
    #[n(3)]
    origin: u8,
    #[n(4)]
    activation: u32,
    #[n(5)]
    created_at: u64,
    #[b(6)]
    material: Option<WrappedV1<'a>>,
    #[cbor(b(7), with = "minicbor::bytes")]
    public_key: Option<&'a [u8]>,
    #[n(8)]
    destroyed_at: Option<u64>,
    #[n(9)]
    erased_at: Option<u64>,
}

impl<'a> From<&'a KeyVersion> for VersionV1<'a> {
    fn from(version: &'a KeyVersion) -> Self {
        Self {
            key: *version.key.as_bytes(),
            number: version.number.number(),
            state: codes::state_code(version.state),
            origin: codes::origin_code(version.origin),
            activation: version.activation,
            created_at: version.created_at.0,
            material: version.material.as_ref().map(WrappedV1::from),
            public_key: version.public_key.as_deref(),
            destroyed_at: version.destroyed_at.map(|at| at.0),
            erased_at: version.erased_at.map(|at| at.0),
        }
    }
}

impl TryFrom<VersionV1<'_>> for KeyVersion {
    type Error = DecodeError;

    fn try_from(version: VersionV1<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            key: KeyId::from_bytes(version.key),
            number: version_no(version.number)?,
            state: codes::state(version.state)?,
            origin: codes::origin(version.origin)?,
            activation: version.activation,
            created_at: Timestamp(version.created_at),
            material: version.material.map(WrappedKey::from),
            public_key: version.public_key.map(<[u8]>::to_vec),
            destroyed_at: version.destroyed_at.map(Timestamp),
            erased_at: version.erased_at.map(Timestamp),
        })
    }
}

#[derive(Encode, Decode)]
pub(super) struct WrappedV1<'a> {
    #[n(0)]
    epoch: u32,
    #[cbor(b(1), with = "minicbor::bytes")]
    sealed: &'a [u8],
}

impl<'a> From<&'a WrappedKey> for WrappedV1<'a> {
    fn from(wrapped: &'a WrappedKey) -> Self {
        Self { epoch: wrapped.epoch, sealed: &wrapped.sealed }
    }
}

impl From<WrappedV1<'_>> for WrappedKey {
    fn from(wrapped: WrappedV1<'_>) -> Self {
        Self { epoch: wrapped.epoch, sealed: wrapped.sealed.to_vec() }
    }
}

#[derive(Encode, Decode)]
struct UsageV1 {
    #[n(0)]
    protected: u64,
    #[n(1)]
    processed: u64,
    #[n(2)]
    refused: u64,
    #[n(3)]
    last_used_at: Option<u64>,
}

impl From<&Usage> for UsageV1 {
    fn from(usage: &Usage) -> Self {
        Self {
            protected: usage.protected,
            processed: usage.processed,
            refused: usage.refused,
            last_used_at: usage.last_used_at.map(|at| at.0),
        }
    }
}

impl From<UsageV1> for Usage {
    fn from(usage: UsageV1) -> Self {
        Self {
            protected: usage.protected,
            processed: usage.processed,
            refused: usage.refused,
            last_used_at: usage.last_used_at.map(Timestamp),
        }
    }
}

#[derive(Encode, Decode)]
struct AliasV1 {
    #[cbor(n(0), with = "minicbor::bytes")]
    key: [u8; 16],
}

#[derive(Encode, Decode)]
struct DueV1 {
    #[n(0)]
    at: u64,
    #[n(1)]
    what: u8,
    #[cbor(n(2), with = "minicbor::bytes")]
    key: [u8; 16],
}

impl From<&Due> for DueV1 {
    fn from(due: &Due) -> Self {
        Self { at: due.at.0, what: codes::due_code(due.what), key: *due.key.as_bytes() }
    }
}

impl TryFrom<DueV1> for Due {
    type Error = DecodeError;

    fn try_from(due: DueV1) -> Result<Self, DecodeError> {
        let what = codes::due(due.what)?;
        Ok(Self { at: Elapsed(due.at), what, key: KeyId::from_bytes(due.key) })
    }
}

#[derive(Encode, Decode)]
struct ImportV1<'a> {
    #[cbor(n(0), with = "minicbor::bytes")]
    token_hash: [u8; 32],
    #[b(1)]
    wrapping_key: WrappedV1<'a>,
    #[n(2)]
    algorithm: u8,
    #[n(3)]
    expires: u64,
}

impl<'a> From<&'a ImportSession> for ImportV1<'a> {
    fn from(session: &'a ImportSession) -> Self {
        Self {
            token_hash: session.token_hash,
            wrapping_key: WrappedV1::from(&session.wrapping_key),
            algorithm: codes::import_code(session.algorithm),
            expires: session.expires.0,
        }
    }
}

impl TryFrom<ImportV1<'_>> for ImportSession {
    type Error = DecodeError;

    fn try_from(session: ImportV1<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            token_hash: session.token_hash,
            wrapping_key: session.wrapping_key.into(),
            algorithm: codes::import(session.algorithm)?,
            expires: Elapsed(session.expires),
        })
    }
}

#[derive(Encode, Decode)]
struct TokenV1<'a> {
    #[b(0)]
    principal: &'a str,
    #[n(1)]
    created_at: u64,
}

impl<'a> From<&'a TokenRecord> for TokenV1<'a> {
    fn from(token: &'a TokenRecord) -> Self {
        Self { principal: token.principal.name(), created_at: token.created_at.0 }
    }
}

impl From<TokenV1<'_>> for TokenRecord {
    fn from(token: TokenV1<'_>) -> Self {
        let created_at = Timestamp(token.created_at);
        Self { principal: Principal::named(token.principal), created_at }
    }
}

#[derive(Encode, Decode)]
struct ClockV1 {
    #[n(0)]
    elapsed: u64,
    #[n(1)]
    wall: u64,
    #[n(2)]
    since_boot: u64,
    #[cbor(n(3), with = "minicbor::bytes")]
    boot: [u8; 16],
    #[n(4)]
    hold: Option<HoldV1>,
}

#[derive(Encode, Decode)]
struct HoldV1 {
    #[n(0)]
    seen_at: u64,
    #[n(1)]
    jump: i64,
    #[n(2)]
    pending: u64,
}

impl From<&ClockRecord> for ClockV1 {
    fn from(clock: &ClockRecord) -> Self {
        let hold = |h: Hold| HoldV1 { seen_at: h.seen_at.0, jump: h.jump, pending: h.pending };
        Self {
            elapsed: clock.elapsed.0,
            wall: clock.last.wall.0,
            since_boot: clock.last.since_boot,
            boot: clock.last.boot,
            hold: clock.hold.map(hold),
        }
    }
}

impl From<ClockV1> for ClockRecord {
    fn from(clock: ClockV1) -> Self {
        let (wall, since_boot, boot) = (Timestamp(clock.wall), clock.since_boot, clock.boot);
        let last = Reading { wall, since_boot, boot };
        let hold = |h: HoldV1| {
            let seen_at = Timestamp(h.seen_at);
            Hold { seen_at, jump: h.jump, pending: h.pending }
        };
        Self::kept(Elapsed(clock.elapsed), last, clock.hold.map(hold))
    }
}
