//! A volume key on its way into the kernel.
//!
//! Room      `kernel`.
//! Source    keyrings(7): keys of the kind `logon` are never read back by any process.
//! Holds     The key leaves the keyring when the value is dropped; the cipher of the device mapper
//!           has its own copy by then.

use std::ffi::CString;
use std::io;

use crate::sys;

/// A key in the keyring of this thread, for as long as a table is loaded.
pub(crate) struct LogonKey {
    number: i32,
    name: String,
}

impl LogonKey {
    /// Puts a key there under a name of its own.
    pub(crate) fn add(purpose: &str, key: &[u8]) -> io::Result<Self> {
        // The part before the colon says whose keys these are.
        let name = format!("lastkey:{purpose}");
        let c_name = CString::new(name.as_bytes()).map_err(io::Error::other)?;
        let number = sys::add_logon_key(&c_name, key)?;
        Ok(Self { number, name })
    }

    /// How a table names it: `:LENGTH:logon:NAME`.
    pub(crate) fn reference(&self, len: usize) -> String {
        format!(":{len}:logon:{}", self.name)
    }
}

impl Drop for LogonKey {
    fn drop(&mut self) {
        sys::forget_key(self.number);
    }
}
