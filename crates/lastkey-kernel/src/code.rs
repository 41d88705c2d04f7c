//! The machine code of this process: no secret, and mostly of no use once it has started.
//!
//! Room      `kernel`.
//! Source    proc_pid_maps(5), munlock(2), madvise(2).

use std::{fs, io};

use crate::sys;

/// A range of addresses that holds the code of the program itself. Nothing writes there, and
/// nothing ever unmaps it; there is no other way to make one than [`own_code`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OwnCode {
    start: usize,
    len: usize,
}

impl OwnCode {
    /// Its first address.
    pub(crate) const fn start(self) -> usize {
        self.start
    }

    /// Its length, in bytes.
    pub(crate) const fn len(self) -> usize {
        self.len
    }
}

/// Takes the code of the program out of locked memory, and its pages out of the process: those
/// that are used come back by themselves, those that only the start needed do not. Answers the
/// length of the code, in bytes.
///
/// # Errors
/// What the kernel answers.
pub fn release() -> io::Result<usize> {
    let program = fs::read_link("/proc/self/exe")?;
    let maps = fs::read_to_string("/proc/self/maps")?;
    let mut released = 0;
    for code in own_code(&maps, &program.to_string_lossy()) {
        sys::release_code(code)?;
        released += code.len;
    }
    Ok(released)
}

/// Where the maps of a process have the code of a program: private, executable, never writable.
fn own_code(maps: &str, program: &str) -> Vec<OwnCode> {
    let code = |line: &str| {
        let (range, rest) = line.split_once(' ')?;
        let rest = rest.strip_prefix("r-xp ")?;
        // Offset, device and inode stand before the path.
        if rest.splitn(4, ' ').nth(3)?.trim_start() != program {
            return None;
        }
        let (start, end) = range.split_once('-')?;
        let [start, end] = [start, end].map(|at| usize::from_str_radix(at, 16));
        let (start, end) = (start.ok()?, end.ok()?);
        Some(OwnCode { start, len: end.checked_sub(start)? })
    };
    maps.lines().filter_map(code).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAPS: &str = "\
55e0f8d31000-55e0f9654000 r--p 00000000 fe:00 5498175                    /usr/bin/last key
55e0f9654000-55e0fba49000 r-xp 00922000 fe:00 5498175                    /usr/bin/last key
55e0fba49000-55e0fbb30000 r--p 02d16000 fe:00 5498175                    /usr/bin/last key
55e0fbb30000-55e0fbb40000 rwxp 02d16000 fe:00 5498175                    /usr/bin/last key
55e136f59000-55e137302000 rw-p 00000000 00:00 0                          [heap]
7f1091d46000-7f1091e9c000 r-xp 00026000 fe:00 326269                     /usr/lib/libc.so.6
7f1091f9c000-7f1091f9d000 r-xp 00000000 00:00 0
7ffd3d5f2000-7ffd3d5f4000 r-xp 00000000 00:00 0                          [vdso]
";

    #[test]
    fn only_what_nobody_writes_of_the_program_itself_is_its_code() {
        let code = OwnCode { start: 0x55e0_f965_4000, len: 0x23f_5000 };
        assert_eq!(own_code(MAPS, "/usr/bin/last key"), [code]);
        assert_eq!(own_code(MAPS, "/usr/bin/last"), []);
        assert_eq!(own_code("nonsense\n- r-xp a b c /x\n2-1 r-xp a b c /x", "/x"), []);
    }

    #[test]
    fn code_that_was_released_runs_on() {
        assert!(release().unwrap() > 4_096);
        assert!(release().unwrap() > 4_096);
    }
}
