//! Journeys of people: the real binary against a real server of its own.
//!
//! Room      the binary, tests. One binary; each test has its own server and folder.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "helpers of tests stop at the first surprise, as tests do"
)]

mod api_server;
mod audit_loss;
mod backup;
mod bad_input;
mod bucket_server;
mod buckets;
mod check;
mod check_admission;
mod check_live;
mod cli;
mod config;
mod crash;
mod csi;
mod deploy;
mod device_seals;
mod directory;
mod envelope;
mod etcd;
mod exec;
mod fake_cluster;
mod forms;
mod helm;
mod http;
mod identity;
mod issuer;
mod kms_apiserver;
mod kms_client;
mod kms_migration;
mod kms_node;
mod kms_plugin;
mod leases;
mod liveness;
mod liveness_real;
mod mariadb;
mod memory;
mod mysqld;
mod nodes;
mod oidc;
mod operations;
mod people;
mod postgres;
mod process;
mod recipients;
mod recovery;
mod report_schemas;
mod rollback;
mod rotation;
mod scan;
mod scan_pack;
mod sealing;
mod secret_sync;
mod secrets;
mod shutdown;
mod spiffe;
mod time;
mod transport;
mod tree;
mod volumes;
mod world;
