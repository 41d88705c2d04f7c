//! Every command of the client side against a real server, one house for each test.

mod errors;
mod files;
mod house;
mod keys;
mod operations;
