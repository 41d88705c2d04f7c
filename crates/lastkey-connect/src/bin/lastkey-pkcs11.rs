//! `lastkey-pkcs11`: loads the module of a security module for the server beside it.
//!
//! Room      `connect`. A program of its own because a module is a shared library: a static
//!           program cannot load one, and its code should not run in the server.

fn main() -> std::io::Result<()> {
    lastkey_connect::seal::pkcs11::host::run()
}
