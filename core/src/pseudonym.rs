//! Pseudonyms: what stands in a recording where a person's text stood.
//!
//! The problem: a recording of a node is to be replayed by the same machine, and must hold nobody's address or title. The
//! machine treats nearly all texts as opaque, so a hash in their place changes no decision. In two places it makes a number
//! of a text: a user's phase within the period ([`Spread::Phase`](crate::policy::spread::Spread::Phase)), and the hash that
//! tells whether a calendar's own properties changed. There a pseudonym carries that number, and whoever would compute
//! it reads it back.
//!
//! ```text
//! anon-<16 hex: the name>                       a text; equal texts have equal names
//! anon-<16 hex: the name>-<16 hex: carried>     and the number that decides
//! anon-<...>~~~~~  or  anon-<...>#rest          the same: filled up to a length, or with a suffix that means something
//! ```
//!
//! A text of a person that happens to look like this chooses its own number, which does nobody harm.

use std::fmt;

/// What every pseudonym begins with.
pub const PREFIX: &str = "anon-";
/// A number is written with so many digits.
const HEX_DIGITS: usize = 16;

/// What stands in place of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pseudonym {
    /// Equal for equal texts of one recording.
    pub name: u64,
    /// What the machine would have computed from the text.
    pub carried: Option<u64>,
}

impl Pseudonym {
    /// Reads one; `None` if `text` is not one.
    #[must_use]
    pub fn read(text: &str) -> Option<Self> {
        let (name, rest) = number(text.strip_prefix(PREFIX)?)?;
        match rest.as_bytes().first() {
            None | Some(b'~' | b'#') => Some(Pseudonym {
                name,
                carried: None,
            }),
            Some(b'-') => {
                let (carried, rest) = number(&rest[1..])?;
                let ends = matches!(rest.as_bytes().first(), None | Some(b'~' | b'#'));
                ends.then_some(Pseudonym {
                    name,
                    carried: Some(carried),
                })
            }
            Some(_) => None,
        }
    }

    /// The number that `text` carries, if it is a pseudonym that carries one.
    #[must_use]
    pub fn carried_by(text: &str) -> Option<u64> {
        Pseudonym::read(text)?.carried
    }
}

fn number(text: &str) -> Option<(u64, &str)> {
    let digits = text.get(..HEX_DIGITS)?;
    let lower = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    if !digits.bytes().all(lower) {
        return None;
    }
    Some((u64::from_str_radix(digits, 16).ok()?, &text[HEX_DIGITS..]))
}

impl Pseudonym {
    /// As text, the quick way: a recording makes some thousands a second.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::with_capacity(PREFIX.len() + 2 * HEX_DIGITS + 1);
        text.push_str(PREFIX);
        push_number(&mut text, self.name);
        if let Some(carried) = self.carried {
            text.push('-');
            push_number(&mut text, carried);
        }
        text
    }
}

fn push_number(text: &mut String, number: u64) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for place in (0..HEX_DIGITS).rev() {
        let digit = (number >> (4 * place)) & 0xf;
        text.push(char::from(DIGITS[digit as usize]));
    }
}

impl fmt::Display for Pseudonym {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pseudonym_is_read_back_and_nothing_else_is() {
        let plain = Pseudonym {
            name: 0x0f,
            carried: None,
        };
        let carrying = Pseudonym {
            name: u64::MAX,
            carried: Some(1),
        };
        for pseudonym in [plain, carrying] {
            let text = pseudonym.to_string();
            assert_eq!(Pseudonym::read(&text), Some(pseudonym));
            assert_eq!(Pseudonym::read(&format!("{text}~~~")), Some(pseudonym));
            assert_eq!(Pseudonym::read(&format!("{text}#x@y")), Some(pseudonym));
        }
        for other in [
            "",
            "anon-",
            "ada@example.com",
            "anon-000000000000000",
            "anon-000000000000000G",
            "anon-000000000000000A",
            "anon-00000000000000001",
            "anon-0000000000000000-1",
            "anon-000000000000000ä",
        ] {
            assert_eq!(Pseudonym::read(other), None, "{other}");
        }
    }
}
