//! Patterns with `*`, for claims that a role asks for.
//!
//! Room      `trust`.
//! Holds     Bytes are compared as they stand: no case, no trimming, no normal form. The time is
//!           at most the product of both lengths.

/// Whether `pattern` covers the whole of `text`. `*` stands for any run of bytes, also none;
/// everything else stands for itself.
#[must_use]
pub fn matches(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|first| text.strip_prefix(first)) else {
        return false;
    };
    let Some(last) = parts.next_back() else {
        return rest.is_empty();
    };
    for part in parts {
        // The leftmost place leaves the most for the parts that follow.
        let Some((_, after)) = rest.split_once(part) else {
            return false;
        };
        rest = after;
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn pattern_covers_the_whole_text() {
        for (pattern, text) in [
            ("", ""),
            ("*", ""),
            ("*", "any/thing"),
            ("main", "main"),
            ("repo:org/*:ref:refs/heads/main", "repo:org/app:ref:refs/heads/main"),
            ("a*b*c", "aXbYbZc"),
            ("a**c", "ac"),
            ("*b", "ab"),
            ("a*", "a"),
        ] {
            assert!(matches(pattern, text), "{pattern} {text}");
        }
    }

    #[test]
    fn pattern_refuses_what_it_does_not_cover() {
        for (pattern, text) in [
            ("", "a"),
            ("main", "main2"),
            ("main", "Main"),
            ("main", " main"),
            ("a*a", "a"),
            ("a*b", "abc"),
            ("repo:org/*", "repo:organ/app"),
            ("?", "a"),
            ("[a]", "a"),
        ] {
            assert!(!matches(pattern, text), "{pattern} {text}");
        }
    }
}
