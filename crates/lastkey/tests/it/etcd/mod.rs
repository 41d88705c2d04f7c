//! `lastkey etcd`: against a real etcd, with objects that a real API server sealed.

mod doctor;
mod enable;
mod report;
mod rewrite;
mod store;
mod verify;
mod xor_plugin;
