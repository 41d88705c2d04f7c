//! Things to put into a store.
//!
//! Room      `testkit`.

mod rotation;

use lastkey_core::access::{
    Cluster, Enrolment, Node, NodeAuthority, NodeCertificate, PasswordHash, Policy, Provider,
    Revocation, RevokedWhat, Role, RoleHolders, SessionEpoch, TokenKeys, TpmKey, User,
};
use lastkey_core::audit::archive::LogHead;
use lastkey_core::backup::{BackupPlace, BackupRecord, Tombstone, Written};
use lastkey_core::holding::{HeldThing, HeldWhat, Holding, Inventory};
use lastkey_core::ids::{AliasName, InstanceId, KeyId, Name, RequestId, VersionNo};
use lastkey_core::key::{DeletionWindow, Description, Destruction, Key, KeyUsage, Tags};
use lastkey_core::ports::RecordKeys;
use lastkey_core::principal::Principal;
use lastkey_core::record::{Due, DueWhat, ImportSession, Record, TokenRecord};
use lastkey_core::rotation::{Period, Rotation};
use lastkey_core::seal_device::DeviceKind;
use lastkey_core::seal_record::{
    AcceptedWeakness, Bootstrap, Instance, KeyringEntry, RootWrap, SealBook, SealKind, SealRecord,
    ShareHolder,
};
use lastkey_core::secret_item::{
    SecretDue, SecretDueWhat, SecretId, SecretItem, SecretName, SecretVersion, Stage, ValueKind,
};
use lastkey_core::state::State;
use lastkey_core::time::{ClockRecord, Elapsed, Hold, Reading, Timestamp};
use lastkey_core::version::{KeyVersion, Origin, Usage, WrappedKey};
use lastkey_crypto::import::ImportAlgorithm;
use lastkey_crypto::material::MaterialSpec;
use lastkey_secret::SecretArray;

const CREATED: Timestamp = Timestamp(1_735_689_600);

/// A key id that is the same for the same number.
#[must_use]
pub fn key_id(number: u64) -> KeyId {
    let mut bytes = [0; 16];
    bytes.iter_mut().skip(8).zip(number.to_be_bytes()).for_each(|(to, from)| *to = from);
    KeyId::from_random(bytes)
}

/// The version of this number.
///
/// # Panics
/// For version 0, which there is not.
#[must_use]
pub fn version_no(number: u32) -> VersionNo {
    VersionNo::new(number).expect("versions start at 1")
}

/// An active AES_256 key with one version and nothing that is optional.
#[must_use]
pub fn key(number: u64) -> Key {
    Key {
        id: key_id(number),
        spec: MaterialSpec::Aes256,
        usage: KeyUsage::EncryptDecrypt,
        origin: Origin::Generated,
        state: State::Active,
        destruction: None,
        primary: Some(VersionNo::FIRST),
        newest: Some(VersionNo::FIRST),
        activation: 1,
        rotation: None,
        deletion_protection: false,
        description: Description::default(),
        tags: Tags::default(),
        aliases: Vec::new(),
        created_at: CREATED,
        destroyed_at: None,
    }
}

/// A key with everything that a key can have.
///
/// # Panics
/// Never: what it is made of is well formed.
#[must_use]
pub fn full_key(number: u64) -> Key {
    let tags = [("team".to_owned(), "payments".to_owned()), ("zone".to_owned(), String::new())];
    let alias = |name| AliasName::parse(name).expect("an alias");
    Key {
        state: State::Suspended,
        destruction: Some(Destruction {
            due: Elapsed(2_592_000),
            scheduled_at: CREATED,
            window: DeletionWindow::from_days(30).expect("a window"),
        }),
        newest: Some(version_no(7)),
        rotation: Some(Rotation {
            period: Period::from_secs(86_400).expect("a period"),
            due: Elapsed(86_400),
            last: Some(CREATED),
        }),
        deletion_protection: true,
        description: Description::parse("of the payments service").expect("a description"),
        tags: Tags::default().with(tags).expect("tags"),
        aliases: vec![alias("alias/app"), alias("alias/arn:aws:kms:1")],
        destroyed_at: Some(Timestamp(1_735_689_700)),
        ..key(number)
    }
}

/// Wrapped material that says nothing and opens nowhere.
#[must_use]
pub fn wrapped_key(fill: u8) -> WrappedKey {
    WrappedKey { epoch: 1, sealed: vec![fill; 72] }
}

/// An active version of a key.
#[must_use]
pub fn key_version(key: u64, number: u32) -> KeyVersion {
    KeyVersion {
        key: key_id(key),
        number: version_no(number),
        state: State::Active,
        origin: Origin::Generated,
        activation: 1,
        created_at: CREATED,
        material: Some(wrapped_key(0xa5)),
        public_key: None,
        destroyed_at: None,
        erased_at: None,
    }
}

/// One record of every kind, with everything that it can have.
#[must_use]
pub fn every_record() -> Vec<Record> {
    let version = KeyVersion {
        public_key: Some(vec![0x30; 91]),
        destroyed_at: Some(Timestamp(1)),
        erased_at: Some(Timestamp(2)),
        ..key_version(1, 3)
    };
    let last_used_at = Some(CREATED);
    let usage = Usage { protected: 3, processed: u64::MAX, refused: 0, last_used_at };
    let last = Reading { wall: CREATED, since_boot: 12, boot: [9; 16] };
    let hold = Some(Hold { seen_at: CREATED, jump: -3_600, pending: 5 });
    vec![
        Record::Key(key(1)),
        Record::Key(full_key(2)),
        Record::Version(version),
        Record::Usage(usage),
        Record::Alias(key_id(1)),
        Record::Due(Due { at: Elapsed(5), what: DueWhat::Rotate, key: key_id(1) }),
        Record::Import(import_session()),
        Record::Token(TokenRecord {
            principal: Principal::named(Principal::ADMIN),
            created_at: CREATED,
        }),
        Record::Clock(ClockRecord::kept(Elapsed(77), last, hold)),
    ]
    .into_iter()
    .chain(identity_records())
    .chain(access_records())
    .chain([Record::Holding(holding(1, "prod")), Record::Inventory(inventory(1, "node-1"))])
    .chain(secret_records())
    .chain(rotation::rotation_records())
    .collect()
}

/// A secret with everything that it can have.
///
/// # Panics
/// When the name is none.
#[must_use]
pub fn secret_item(name: &str) -> SecretItem {
    let stage = |stage: &str| Stage::parse(stage).expect("a stage");
    SecretItem {
        id: SecretId([0x5e; 16]),
        name: SecretName::parse(name).expect("a name"),
        key: key_id(1),
        description: Description::parse("of the shop").expect("a description"),
        tags: Tags::default().with([("team".to_owned(), "shop".to_owned())]).expect("tags"),
        newest: version_no(4),
        kept: vec![version_no(2), version_no(4)],
        keep: 20,
        stages: [(stage("current"), version_no(4)), (stage("previous"), version_no(2))].into(),
        deletion: full_key(1).destruction,
        created_at: CREATED,
        written_at: Timestamp(1_735_689_700),
    }
}

fn secret_records() -> Vec<Record> {
    let item = secret_item("prod/shop/db");
    let due = SecretDue { at: Elapsed(9), what: SecretDueWhat::Destroy, name: item.name.clone() };
    vec![
        Record::SecretVersion(SecretVersion {
            secret: item.id,
            number: version_no(4),
            kind: ValueKind::Fields,
            length: 19,
            key: key_id(1),
            data_key_blob: Some(vec![0x4c; 136]),
            created_at: CREATED,
            created_by: "user:alice".to_owned(),
            destroyed_at: Some(Timestamp(1_735_689_800)),
        }),
        Record::Secret(item),
        Record::SecretValue(vec![0x5a; 59]),
        Record::SecretDue(due),
    ]
}

/// The records of those who are believed and of whom they let in, with everything that they can
/// have.
fn identity_records() -> Vec<Record> {
    vec![
        Record::Cluster(cluster()),
        Record::Cluster(Cluster {
            name: name("test"),
            kubelet_authorities: Some("-----BEGIN CERTIFICATE-----".to_owned()),
            ..cluster()
        }),
        Record::Provider(provider()),
        Record::Provider(Provider {
            name: name("spire"),
            issuer: String::new(),
            audiences: Vec::new(),
            keys: TokenKeys { url: None, authority: None, ..token_keys() },
            trust_domain: Some("prod.example".to_owned()),
            ..provider()
        }),
        Record::Role(role()),
        Record::Role(Role {
            name: name("deploy"),
            holders: RoleHolders::Claims {
                provider: name("ci"),
                claims: [("repository".to_owned(), "shop/*".to_owned())].into(),
            },
            ..role()
        }),
        Record::Role(Role {
            name: name("sync"),
            holders: RoleHolders::ServiceAccounts {
                cluster: name("prod"),
                namespaces: vec!["shop".to_owned()],
                service_accounts: vec!["*".to_owned()],
                allow_without_pod: true,
            },
            by_node_agent: false,
            ..role()
        }),
        Record::Role(Role {
            name: name("mesh"),
            holders: RoleHolders::Spiffe {
                provider: name("spire"),
                ids: vec!["spiffe://prod.example/ns/shop/*".to_owned()],
            },
            ..role()
        }),
    ]
}

fn token_keys() -> TokenKeys {
    TokenKeys {
        jwks: r#"{"keys":[]}"#.to_owned(),
        url: Some("https://keys.example/jwks".to_owned()),
        authority: Some("-----BEGIN CERTIFICATE-----".to_owned()),
    }
}

fn cluster() -> Cluster {
    Cluster {
        name: name("prod"),
        issuers: vec!["https://kubernetes.default.svc".to_owned()],
        audiences: vec!["lastkey".to_owned()],
        keys: token_keys(),
        max_token_secs: 86_400,
        created_at: CREATED,
        kubelet_authorities: None,
    }
}

fn provider() -> Provider {
    Provider {
        name: name("ci"),
        issuer: "https://ci.example".to_owned(),
        audiences: vec!["lastkey".to_owned()],
        keys: token_keys(),
        subject_claim: "sub".to_owned(),
        groups_claim: "groups".to_owned(),
        created_at: CREATED,
        trust_domain: None,
    }
}

/// The records of what may be done and by which people and machines, with everything that they can
/// have.
fn access_records() -> Vec<Record> {
    vec![
        Record::Policy(Policy {
            name: name("base"),
            text: "permit (principal, action, resource);".to_owned(),
            version: 2,
            changed_at: CREATED,
            changed_by: "user:alice".to_owned(),
        }),
        Record::User(user()),
        Record::Node(node()),
        Record::Node(Node { previous: node().certificate, ..node() }),
        Record::Node(Node {
            tpm: Some(TpmKey { name: [0x7b; 32], since: Timestamp(1_700_000_000) }),
            ..node()
        }),
        Record::Revocation(Revocation {
            what: RevokedWhat::ServiceAccount("prod/shop/api".to_owned()),
            issued_until: CREATED,
            needed_until: Timestamp(1_735_732_800),
        }),
        Record::SessionEpoch(SessionEpoch {
            number: 3,
            secret: wrapped_key(0x33),
            created_at: CREATED,
        }),
        Record::Access(12),
        Record::NodeAuthority(node_authority()),
        Record::SealBook(seal_book()),
        Record::AuditHead(LogHead { size: 70_000, root: [0x77; 32] }),
        Record::Rollback(1_700_000_000),
        Record::Backup(backup()),
        Record::Tombstone(tombstone()),
    ]
}

fn tombstone() -> Tombstone {
    Tombstone { key: key_id(1), version: Some(version_no(2)), destroyed_at: CREATED }
}

fn backup() -> BackupRecord {
    let written = Written {
        len: 9_000_000,
        sha256: [0x61; 32],
        records: 70_000,
        records_sha256: [0x62; 32],
        audit: Some(LogHead { size: 300, root: [0x63; 32] }),
    };
    BackupRecord {
        id: RequestId([0xb0; 16]),
        place: BackupPlace { directory: Some("/mnt".to_owned()), name: "a.backup".to_owned() },
        begun_at: CREATED,
        begun: Elapsed(77),
        written: Some(written),
        proven_at: Some(CREATED),
        problem: Some("none".to_owned()),
    }
}

fn node_authority() -> NodeAuthority {
    NodeAuthority {
        private_key: wrapped_key(0x18),
        certificate: vec![0x30, 0x82, 0x01, 0x02],
        created_at: CREATED,
        previous: Some(vec![0x30, 0x81, 0x07]),
    }
}

/// What a place was reported to hold under two versions of a key.
///
/// # Panics
/// For a place that is no name.
#[must_use]
pub fn holding(key: u64, place: &str) -> Holding {
    Holding {
        key: key_id(key),
        place: Name::parse(place).expect("a name"),
        what: HeldWhat::EtcdObjects,
        versions: vec![(version_no(1), 4_812), (version_no(3), 1)],
        reported_at: CREATED,
        reported_by: "node:cp-1".to_owned(),
        overridden: false,
    }
}

/// What a node was reported to hold under a key, by name.
///
/// # Panics
/// For a place that is no name.
#[must_use]
pub fn inventory(key: u64, place: &str) -> Inventory {
    let thing = |name: &str, version| HeldThing {
        name: name.to_owned(),
        version: version_no(version),
        about: vec![("claim".to_owned(), "shop/data".to_owned())],
    };
    let things = vec![thing("lks-1", 1), thing("lkv-1", 3)];
    Inventory { key: key_id(key), place: Name::parse(place).expect("a name"), things }
}

fn user() -> User {
    User {
        name: name("alice"),
        groups: vec![name("security-administrators")],
        password: Some(PasswordHash { costs: (65_536, 3, 4), salt: [5; 16], hash: [6; 32] }),
        second_factor: Some(wrapped_key(0x77)),
        last_step: 57_850_000,
        enrolment: Some(Enrolment { code_hash: [4; 32], expires: Elapsed(900) }),
        disabled: true,
        created_at: CREATED,
    }
}

fn node() -> Node {
    Node {
        name: name("worker-1"),
        cluster: Some(name("prod")),
        join: Some(Enrolment { code_hash: [8; 32], expires: Elapsed(3_600) }),
        certificate: Some(NodeCertificate {
            fingerprint: [9; 32],
            issued_at: CREATED,
            expires_at: Timestamp(1_735_776_000),
        }),
        created_at: CREATED,
        previous: None,
        tpm: None,
    }
}

fn role() -> Role {
    Role {
        name: name("shop"),
        holders: RoleHolders::ServiceAccounts {
            cluster: name("prod"),
            namespaces: vec!["shop".to_owned()],
            service_accounts: vec!["*".to_owned()],
            allow_without_pod: false,
        },
        policy: "permit (principal in Role::\"shop\", action, resource);".to_owned(),
        policy_version: 1,
        max_session_secs: 3_600,
        by_node_agent: true,
        created_at: CREATED,
    }
}

fn name(text: &str) -> Name {
    Name::parse(text).expect("a name")
}

fn seal_book() -> SealBook {
    let mut book = SealBook { epoch: 2, writes: 1_000, ..SealBook::default() };
    book.opened([1; 16], CREATED);
    book.share_shown([3; 16], 2, CREATED);
    book.accepted = Some(AcceptedWeakness {
        by: "user/alice".to_owned(),
        at: CREATED,
        weaknesses: vec!["single-seal".to_owned()],
    });
    book
}

fn import_session() -> ImportSession {
    ImportSession {
        token_hash: [7; 32],
        wrapping_key: wrapped_key(0x5a),
        algorithm: ImportAlgorithm::RsaAesKeyWrapSha256,
        expires: Elapsed(86_400),
    }
}

/// The installation that [`record_keys`] belong to.
pub const INSTANCE: InstanceId = InstanceId([0x11; 16]);

/// Record keys of [`INSTANCE`] for these epochs, the same each time.
#[must_use]
pub fn record_keys(epochs: &[u32]) -> RecordKeys {
    let key = |epoch: &u32| {
        let [.., low] = epoch.to_be_bytes();
        (*epoch, SecretArray::copy_of(&[low; 32]))
    };
    RecordKeys { instance: INSTANCE, by_epoch: epochs.iter().map(key).collect() }
}

/// What lies outside the root key: two epochs, and a seal of each kind.
#[must_use]
pub fn bootstrap() -> Bootstrap {
    let holder =
        |fill: u8| ShareHolder { recipient: format!("age1holder{fill}"), check_value: [fill; 32] };
    let settings = [("token", "lastkey"), ("module", "/usr/lib/softhsm/libsofthsm2.so")];
    let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let device = SealKind::Device { kind: DeviceKind::Pkcs11, settings: settings.into() };
    let shamir = SealKind::Shamir { threshold: 2, holders: vec![holder(1), holder(2), holder(3)] };
    let kinds = [passphrase(), SealKind::Keyfile, shamir, device];
    let seal = |(fill, kind)| SealRecord {
        id: [fill; 16],
        kind,
        root: RootWrap::Keyed {
            public: [fill; 32],
            wrapped_seed: vec![fill; 72],
            wrapped_shared: vec![fill; 72],
            sealed_root: vec![fill; 80],
        },
        created_at: CREATED,
    };
    Bootstrap {
        authentication: Some([0xaa; 32]),
        records_from: 2,
        seals: (1..).zip(kinds).map(seal).collect(),
        ..bootstrap_v1()
    }
}

/// The same of version 1: a seal of each kind that there was.
#[must_use]
pub fn bootstrap_v1() -> Bootstrap {
    let entry = |epoch| KeyringEntry { epoch, wrapped: vec![0xee; 72], created_at: CREATED };
    let seal = |fill, kind| SealRecord {
        id: [fill; 16],
        kind,
        root: RootWrap::Direct(vec![fill; 72]),
        created_at: CREATED,
    };
    Bootstrap {
        instance: Instance { id: INSTANCE, created_at: CREATED },
        keyring: vec![entry(1), entry(2)],
        records_from: 1,
        seals: vec![seal(1, passphrase()), seal(2, SealKind::Keyfile)],
        authentication: None,
    }
}

const fn passphrase() -> SealKind {
    SealKind::Passphrase { memory_kib: 65_536, passes: 3, lanes: 4, salt: [3; 16] }
}
