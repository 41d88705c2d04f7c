//! How deep a policy may go, found before Cedar reads it.
//!
//! Room      `policy`. Cedar's passes over a policy call themselves for every level of it, and a
//!           text that goes deep enough would end the process; whoever narrows a session may
//!           write one.
//! Holds     what passes [`check`] has at most [`MAX_BRACKETS`] open brackets anywhere and at most
//!           [`MAX_OPERATORS`] operators in one policy, so no tree is deeper than their sum.

/// The most brackets of any kind that may be open at once.
const MAX_BRACKETS: usize = 32;
/// The most operators, words such as `in` and `if` among them, in one policy.
const MAX_OPERATORS: usize = 256;

/// Looks at the text as a row of tokens.
///
/// # Errors
/// Place in bytes and words, where a limit is passed.
pub(crate) fn check(text: &str) -> Result<(), (usize, &'static str)> {
    let (mut open, mut operators) = (0_usize, 0_usize);
    let mut rest = text.char_indices().peekable();
    while let Some((place, symbol)) = rest.next() {
        match symbol {
            '"' => skip_text(&mut rest),
            '/' if rest.peek().is_some_and(|(_, next)| *next == '/') => {
                while rest.next_if(|(_, next)| *next != '\n').is_some() {}
            }
            '(' | '[' | '{' => open += 1,
            ')' | ']' | '}' => open = open.saturating_sub(1),
            ';' => (open, operators) = (0, 0),
            '&' | '|' | '!' | '=' | '<' | '>' | '+' | '-' | '*' | '.' => operators += 1,
            _ if is_word(symbol) => {
                let start = place;
                let mut end = place + symbol.len_utf8();
                while let Some((at, next)) = rest.next_if(|(_, next)| is_word(*next)) {
                    end = at + next.len_utf8();
                }
                operators += usize::from(WORDS.contains(&text.get(start..end).unwrap_or_default()));
            }
            _ => {}
        }
        if open > MAX_BRACKETS {
            return Err((place, "more than 32 brackets are open here"));
        }
        if operators > MAX_OPERATORS {
            return Err((place, "a policy has at most 256 operators: make two of it"));
        }
    }
    Ok(())
}

const WORDS: [&str; 7] = ["if", "then", "else", "in", "has", "is", "like"];

fn is_word(symbol: char) -> bool {
    symbol.is_alphanumeric() || symbol == '_'
}

fn skip_text(rest: &mut core::iter::Peekable<core::str::CharIndices<'_>>) {
    while let Some((_, symbol)) = rest.next() {
        match symbol {
            '"' => return,
            '\\' => drop(rest.next()),
            _ => {}
        }
    }
}
