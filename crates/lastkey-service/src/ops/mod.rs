//! The operations, one file each: request, reply, and the use case.
//!
//! Room      `service`.

mod aliases;
pub mod ask_policy;
pub mod backups;
mod change_state;
pub(crate) mod change_version;
mod confirm_clock;
pub mod create_key;
pub mod databases;
pub mod decrypt;
mod delete_key;
mod describe;
mod drill_seals;
pub mod encrypt;
pub mod enrol;
pub mod exchange_token;
pub mod fetch_keys;
pub mod generate_data_key;
pub mod generate_data_key_pair;
pub mod generate_mac;
mod generate_random;
pub mod holdings;
pub mod import;
pub mod leases;
pub mod log_in;
pub mod named;
pub mod node_authority;
pub mod nodes;
pub mod present_certificate;
pub mod public_key;
pub mod read_audit;
pub mod reencrypt;
pub mod replay_policy;
pub mod revoke;
mod rotate;
pub mod seals;
pub mod secrets;
pub mod set_access;
pub mod set_user;
pub mod sign;
mod update_key;
pub mod verify;
pub mod verify_mac;
pub mod witness;

pub use crate::access::{NodeTrust, Opening, PeerTrust};
pub use crate::change::{StateChange, VersionChange};
pub use lastkey_trust::node_authority::SUBJECT_DER as NODE_AUTHORITY_SUBJECT;
