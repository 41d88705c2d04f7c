//! Domain of Lastkey: keys, versions, states, permits, plans. Pure.
//!
//! Room      `core` - decides; never reads the clock, the disk, the network or the environment.
//! Holds     every time and every random byte comes in as an argument; the world is reached
//!           through the traits of [`ports`] only, and their callers live in `service`.

pub mod access;
pub mod audit;
pub mod backup;
pub mod backup_folder;
pub mod cron;
pub mod database;
pub mod holding;
pub mod ids;
pub mod key;
pub mod leak;
pub mod lease;
pub mod limits;
pub mod outside;
pub mod permit;
pub mod ports;
pub mod principal;
pub mod record;
pub mod rotation;
pub mod seal_device;
pub mod seal_record;
pub mod secret_item;
pub mod secret_rotation;
pub mod secret_value;
pub mod state;
pub mod time;
pub mod version;
