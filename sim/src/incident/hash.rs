//! Hashes of a recording: a keyed one for names, and the same without a key for what must not have changed.
//!
//! SipHash-2-4 (Aumasson and Bernstein): whoever has the recording and not the key cannot try addresses against the
//! pseudonyms. The key is drawn for a recording and is never written into it.

use kalends_core::pseudonym::Pseudonym;
use kalends_core::rng::stable_hash;

/// Google's keyword for a user's main calendar: the machine says it by itself, so it is not hidden.
pub(super) const PRIMARY: &str = "primary";
/// What [`PRIMARY`] is called in a digest.
const PRIMARY_NAME: u64 = 1;

/// The key of a recording's pseudonyms.
#[derive(Clone, PartialEq, Eq)]
pub struct Key(u64, u64);

impl std::fmt::Debug for Key {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Key(***)")
    }
}

impl Key {
    /// A key of two numbers that nobody can foretell.
    #[must_use]
    pub fn new(first: u64, second: u64) -> Self {
        Key(first, second)
    }

    /// The key as text, for the file that its owner keeps: 32 hexadecimal digits.
    #[must_use]
    pub fn expose(&self) -> String {
        format!("{:016x}{:016x}", self.0, self.1)
    }

    /// Reads [`Key::expose`]; `None` if `text` is not one.
    #[must_use]
    pub fn read(text: &str) -> Option<Self> {
        let (first, second) = text.trim().split_at_checked(16)?;
        let number = |text: &str| {
            (text.len() == 16)
                .then(|| u64::from_str_radix(text, 16).ok())
                .flatten()
        };
        Some(Key(number(first)?, number(second)?))
    }

    /// The pseudonym of a text.
    #[must_use]
    pub fn pseudonym(&self, text: &str) -> Pseudonym {
        Pseudonym {
            name: siphash(self.0, self.1, &[text.as_bytes()]),
            carried: None,
        }
    }
}

/// How a digest calls what is hidden: the recorder from the text itself, a replay from its pseudonym. Both say the same.
pub(super) trait Names {
    fn text(&self, text: &str) -> u64;
    /// A number that was made of a hidden text.
    fn number(&self, number: u64) -> u64;
}

impl Names for Key {
    fn text(&self, text: &str) -> u64 {
        if text == PRIMARY {
            return PRIMARY_NAME;
        }
        self.pseudonym(text).name
    }

    fn number(&self, number: u64) -> u64 {
        match number {
            0 => 0,
            number => siphash(self.0, self.1, &[&number.to_le_bytes()]).max(1),
        }
    }
}

/// The names of a replay: they stand there.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hidden;

impl Names for Hidden {
    fn text(&self, text: &str) -> u64 {
        if text == PRIMARY {
            return PRIMARY_NAME;
        }
        match Pseudonym::read(text) {
            Some(pseudonym) => pseudonym.name,
            None => stable_hash(0, text.as_bytes()),
        }
    }

    fn number(&self, number: u64) -> u64 {
        number
    }
}

/// The next link of a chain over a journal's lines: against damage, not against forgers, so it may be quick.
pub(super) fn link(before: u64, line: &[u8]) -> u64 {
    let mut digest = Digest::new(before);
    let mut words = line.chunks_exact(8);
    for word in words.by_ref() {
        digest.add(u64::from_le_bytes(word.try_into().expect("8 bytes")));
    }
    let mut last = [0_u8; 8];
    last[..words.remainder().len()].copy_from_slice(words.remainder());
    digest.add(u64::from_le_bytes(last)).add(line.len() as u64);
    digest.end()
}

/// SipHash-2-4 over `parts`, one behind the other.
fn siphash(key0: u64, key1: u64, parts: &[&[u8]]) -> u64 {
    let mut state = [
        key0 ^ 0x736f_6d65_7073_6575,
        key1 ^ 0x646f_7261_6e64_6f6d,
        key0 ^ 0x6c79_6765_6e65_7261,
        key1 ^ 0x7465_6462_7974_6573,
    ];
    let mut block = [0_u8; 8];
    let mut filled = 0;
    let mut length = 0_usize;
    for part in parts {
        length += part.len();
        let mut rest = *part;
        if filled > 0 {
            let taken = rest.len().min(8 - filled);
            block[filled..filled + taken].copy_from_slice(&rest[..taken]);
            filled += taken;
            rest = &rest[taken..];
            if filled < 8 {
                continue;
            }
            absorb(&mut state, u64::from_le_bytes(block));
        }
        let mut words = rest.chunks_exact(8);
        for word in words.by_ref() {
            absorb(
                &mut state,
                u64::from_le_bytes(word.try_into().expect("8 bytes")),
            );
        }
        let left = words.remainder();
        block[..left.len()].copy_from_slice(left);
        filled = left.len();
    }
    block[filled..].fill(0);
    block[7] = (length & 0xff) as u8;
    absorb(&mut state, u64::from_le_bytes(block));
    state[2] ^= 0xff;
    for _ in 0..4 {
        round(&mut state);
    }
    state[0] ^ state[1] ^ state[2] ^ state[3]
}

fn absorb(state: &mut [u64; 4], word: u64) {
    state[3] ^= word;
    round(state);
    round(state);
    state[0] ^= word;
}

fn round(state: &mut [u64; 4]) {
    let [a, b, c, d] = state;
    *a = a.wrapping_add(*b);
    *b = b.rotate_left(13) ^ *a;
    *a = a.rotate_left(32);
    *c = c.wrapping_add(*d);
    *d = d.rotate_left(16) ^ *c;
    *a = a.wrapping_add(*d);
    *d = d.rotate_left(21) ^ *a;
    *c = c.wrapping_add(*b);
    *b = b.rotate_left(17) ^ *c;
    *c = c.rotate_left(32);
}

/// A digest of one decision.
#[derive(Debug)]
pub(super) struct Digest(u64);

impl Digest {
    pub(super) fn new(kind: u64) -> Self {
        Digest(0x6b61_6c65_6e64_7321 ^ kind)
    }

    pub(super) fn add(&mut self, number: u64) -> &mut Self {
        let mut mixed = (self.0 ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        mixed ^= mixed >> 29;
        mixed = mixed.wrapping_mul(0xbf58_476d_1ce4_e5b9);
        self.0 = mixed ^ (mixed >> 32);
        self
    }

    pub(super) fn signed(&mut self, number: i64) -> &mut Self {
        self.add(number as u64)
    }

    /// A text that is not hidden.
    pub(super) fn open(&mut self, text: &str) -> &mut Self {
        self.add(stable_hash(0, text.as_bytes()))
    }

    pub(super) fn end(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_siphash_2_4() {
        // The first, the ninth and the sixteenth vector of the reference implementation.
        let key = |from: u8| u64::from_le_bytes(std::array::from_fn(|index| from + index as u8));
        let input: Vec<u8> = (0..15).collect();
        let hash = |length: usize| siphash(key(0), key(8), &[&input[..length]]);
        assert_eq!(hash(0), 0x726f_db47_dd0e_0e31);
        assert_eq!(hash(8), 0x93f5_f579_9a93_2462);
        assert_eq!(hash(15), 0xa129_ca61_49be_45e5);
        for cut in 0..15 {
            let parts: [&[u8]; 3] = [&input[..cut], &[], &input[cut..]];
            assert_eq!(siphash(key(0), key(8), &parts), hash(15), "{cut}");
        }
    }

    #[test]
    fn a_key_goes_there_and_back_and_does_not_show_itself() {
        let key = Key::new(1, u64::MAX);
        assert_eq!(Key::read(&key.expose()), Some(key.clone()));
        assert_eq!(Key::read("00"), None);
        assert_eq!(Key::read(&"ä".repeat(16)), None);
        assert!(!format!("{key:?}").contains("ffff"));
    }
}
