//! Block devices, as the kernel lists them.
//!
//! Room      `kernel`.
//! Source    sysfs(5), `/sys/block`.

use std::fs;
use std::io;

/// The names of those that begin so; none where there is no such list.
pub(crate) fn block_devices(prefix: &str) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir("/sys/block") {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut names = Vec::new();
    for entry in entries {
        let name = entry?.file_name();
        names.extend(name.to_str().filter(|name| name.starts_with(prefix)).map(str::to_owned));
    }
    Ok(names)
}

/// What the kernel tells of a device, without the end of the line; none when it is gone.
pub(crate) fn told(name: &str, about: &str) -> Option<String> {
    let text = fs::read_to_string(format!("/sys/block/{name}/{about}")).ok()?;
    Some(text.trim_end_matches('\n').to_owned())
}
