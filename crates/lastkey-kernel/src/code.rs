//! Pages of the program's file: no secret, and mostly of no use once it has started.
//!
//! Room      `kernel`.
//! Source    proc_pid_smaps(5), munlock(2), madvise(2).

use std::{fs, io};

use crate::sys;

/// A range of addresses that shows a part of the program's file, code or constants. Nothing writes
/// there and nothing has, and nothing ever unmaps it; there is no other way to make one than
/// [`own_pages`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OwnPages {
    start: usize,
    len: usize,
}

impl OwnPages {
    /// Its first address.
    pub(crate) const fn start(self) -> usize {
        self.start
    }

    /// Its length, in bytes.
    pub(crate) const fn len(self) -> usize {
        self.len
    }
}

/// Takes code and constants of the program out of locked memory, and their pages out of the
/// process: those that are used come back by themselves, those that only the start needed do not.
/// Answers the length of what was looked at, in bytes.
///
/// # Errors
/// What the kernel answers.
pub fn release() -> io::Result<usize> {
    let program = fs::read_link("/proc/self/exe")?;
    let smaps = fs::read_to_string("/proc/self/smaps")?;
    let mut released = 0;
    for pages in own_pages(&smaps, &program.to_string_lossy()) {
        sys::release_pages(pages)?;
        released += pages.len;
    }
    Ok(released)
}

/// What the maps of a process have of a program and nobody can have changed: private, not writable,
/// and without a page of its own. Addresses that were filled in at the start are pages of its own.
fn own_pages(smaps: &str, program: &str) -> Vec<OwnPages> {
    let lines: Vec<&str> = smaps.lines().collect();
    let mappings = lines.chunk_by(|_, next| next.split(' ').next().is_some_and(is_field));
    let clean = mappings.filter_map(|mapping| {
        let (first, fields) = mapping.split_first()?;
        let is_none = |field: &str| {
            let found = fields.iter().find_map(|line| line.strip_prefix(field));
            found.is_some_and(|text| text.trim() == "0 kB")
        };
        if is_none("Anonymous:") && is_none("Swap:") { range_of(first, program) } else { None }
    });
    clean.collect()
}

fn is_field(word: &str) -> bool {
    word.ends_with(':')
}

/// The range of a mapping of a program that nobody writes to.
fn range_of(line: &str, program: &str) -> Option<OwnPages> {
    let (range, rest) = line.split_once(' ')?;
    let rest = rest.strip_prefix("r-xp ").or_else(|| rest.strip_prefix("r--p "))?;
    // Offset, device and inode stand before the path.
    if rest.splitn(4, ' ').nth(3)?.trim_start() != program {
        return None;
    }
    let (start, end) = range.split_once('-')?;
    let [start, end] = [start, end].map(|at| usize::from_str_radix(at, 16));
    let (start, end) = (start.ok()?, end.ok()?);
    Some(OwnPages { start, len: end.checked_sub(start)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Constants, code, addresses that were filled in, data, and what belongs to others.
    const MAPS: [(&str, u32, u32); 9] = [
        ("55e0f8d31000-55e0f9654000 r--p 00000000 fe:00 5498175        /usr/bin/last key", 0, 0),
        ("55e0f9654000-55e0fba49000 r-xp 00922000 fe:00 5498175        /usr/bin/last key", 0, 0),
        ("55e0fba49000-55e0fbb30000 r--p 02d16000 fe:00 5498175        /usr/bin/last key", 924, 0),
        ("55e0fbb30000-55e0fbb38000 r--p 02dfd000 fe:00 5498175        /usr/bin/last key", 0, 32),
        ("55e0fbb38000-55e0fbb40000 rwxp 02d16000 fe:00 5498175        /usr/bin/last key", 0, 0),
        ("55e136f59000-55e137302000 rw-p 00000000 00:00 0              [heap]", 0, 0),
        ("7f1091d46000-7f1091e9c000 r-xp 00026000 fe:00 326269         /usr/lib/libc.so.6", 0, 0),
        ("7f1091f9c000-7f1091f9d000 r-xp 00000000 00:00 0", 0, 0),
        ("7ffd3d5f2000-7ffd3d5f4000 r-xp 00000000 00:00 0              [vdso]", 0, 0),
    ];

    fn smaps() -> String {
        let mapping = |(line, anonymous, swap): (&str, u32, u32)| {
            format!(
                "{line}\nSize: 1 kB\nAnonymous:       {anonymous} kB\nSwap:   {swap} kB\nVmFlags: rd\n"
            )
        };
        MAPS.map(mapping).concat()
    }

    #[test]
    fn only_what_nobody_wrote_to_of_the_program_itself_is_given_back() {
        let constants = OwnPages { start: 0x55e0_f8d3_1000, len: 0x92_3000 };
        let code = OwnPages { start: 0x55e0_f965_4000, len: 0x23f_5000 };
        assert_eq!(own_pages(&smaps(), "/usr/bin/last key"), [constants, code]);
        assert_eq!(own_pages(&smaps(), "/usr/bin/last"), []);
        // A kernel that does not say whether anybody wrote there.
        assert_eq!(own_pages(&smaps().replace("Swap", "Gone"), "/usr/bin/last key"), []);
        let nonsense = "nonsense\n- r-xp a b c /x\nAnonymous: 0 kB\nSwap: 0 kB\n2-1 r-xp a b c /x";
        assert_eq!(own_pages(nonsense, "/x"), []);
    }

    #[test]
    fn code_and_constants_that_were_given_back_are_as_before() {
        // Relocated at the start, and so among what must not be given back.
        static WORDS: [&str; 3] = ["one", "two", "three"];
        for _ in 0..2 {
            assert!(release().unwrap() > 4_096);
            assert_eq!(std::hint::black_box(&WORDS).concat(), "onetwothree");
        }
    }
}
