//! The vocabulary: the schema, its entity types, and how things of the core are called in it.
//!
//! Room      `policy`.
//! Source    `schema.cedarschema` beside this file, which `docs/policies.md` explains.

use std::sync::{Arc, LazyLock};

use cedar_policy_core::ast::{Eid, EntityType, EntityUID};
use cedar_policy_core::extensions::Extensions;
use cedar_policy_core::validator::{Validator, ValidatorSchema};
use lastkey_core::permit::{Resource, ResourceKind};

/// The schema that every policy is checked against, in Cedar's own notation.
pub const SCHEMA: &str = include_str!("schema.cedarschema");

/// The checker for policies; `None` never happens, since the schema is part of this program and
/// a test reads it, and would refuse every document.
pub(crate) static VALIDATOR: LazyLock<Option<Validator>> = LazyLock::new(|| {
    let parsed = ValidatorSchema::from_cedarschema_str(SCHEMA, Extensions::all_available());
    parsed.ok().map(|(schema, _)| Validator::new(schema))
});

macro_rules! types {
    ($($name:ident,)*) => {
        /// Entity types of the schema.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub(crate) enum Type { $($name,)* }

        impl Type {
            /// All of them, in the order of their numbers.
            pub(crate) const ALL: &[Self] = &[$(Self::$name,)*];

            /// The name in the schema.
            pub(crate) const fn name(self) -> &'static str {
                match self { $(Self::$name => stringify!($name),)* }
            }
        }
    };
}

types! {
    ServiceAccount, User, Subject, Node, Service,
    Namespace, Cluster, Group, Role, Provider,
    Key, Alias, KeyGroup, Instance, Policy, EncryptionContext, Secret, SecretPath,
    Database, DatabaseRole,
}

static CEDAR_TYPES: LazyLock<Vec<Arc<EntityType>>> = LazyLock::new(|| {
    let parse =
        |kind: &Type| kind.name().parse().ok().map(|name| Arc::new(EntityType::EntityType(name)));
    Type::ALL.iter().filter_map(parse).collect()
});

impl Type {
    /// The type of this name.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|kind| kind.name() == name)
    }

    /// One bit for each type.
    pub(crate) const fn bit(self) -> u32 {
        1 << self as u32
    }

    /// The type in Cedar's form.
    pub(crate) fn cedar(self) -> Option<&'static Arc<EntityType>> {
        CEDAR_TYPES.get(self as usize)
    }
}

/// A thing that policies can name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Thing {
    /// What it is.
    pub(crate) kind: Type,
    /// Its name among things of that type.
    pub(crate) name: Box<str>,
}

impl Thing {
    /// The thing of this type and name.
    pub(crate) fn new(kind: Type, name: impl Into<Box<str>>) -> Self {
        Self { kind, name: name.into() }
    }

    /// The thing that Cedar names so; `None` for a type that is not in the schema.
    pub(crate) fn of(uid: &EntityUID) -> Option<Self> {
        let kind = Type::parse(&uid.entity_type().to_string())?;
        let eid: &str = uid.eid().as_ref();
        Some(Self::new(kind, eid))
    }

    /// The thing that an action is done to.
    pub(crate) fn of_resource(resource: &Resource) -> Self {
        match resource {
            Resource::Key(id) => Self::new(Type::Key, id.to_string()),
            Resource::Instance => Self::new(Type::Instance, INSTANCE),
            Resource::Named(kind, name) => Self::new(type_of(*kind), name.as_str()),
            Resource::Secret(name) => Self::new(Type::Secret, name.as_str()),
            Resource::SecretPath(path) => Self::new(Type::SecretPath, path.as_str()),
        }
    }

    /// Cedar's name of it.
    pub(crate) fn uid(&self) -> Option<EntityUID> {
        let kind = self.kind.cedar()?;
        Some(EntityUID::from_components((**kind).clone(), Eid::new(&*self.name), None))
    }
}

/// What the installation as a whole is called.
const INSTANCE: &str = "this";

const fn type_of(kind: ResourceKind) -> Type {
    match kind {
        ResourceKind::Cluster => Type::Cluster,
        ResourceKind::Provider => Type::Provider,
        ResourceKind::Role => Type::Role,
        ResourceKind::Policy => Type::Policy,
        ResourceKind::User => Type::User,
        ResourceKind::Node => Type::Node,
        ResourceKind::Database => Type::Database,
        ResourceKind::DatabaseRole => Type::DatabaseRole,
    }
}
