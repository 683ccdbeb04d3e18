//! Secrets at rest: sealed by a key that is kept elsewhere, and opened for one purpose and one user only.
//!
//! The problem: who reads a backup, a dump or a stolen disk must not get everybody's calendars; and who can write to the
//! store must not be able to give one user another one's grant. The idea: AES-256-GCM (NIST SP 800-38D) with a random
//! nonce; what belongs to a sealed text (its purpose, the key's id and the user) is authenticated along with it, so a
//! text that was moved to another user, or to another use, does not open.
//!
//! A key's id follows from the key, so no two can be mixed up. The first key seals, all of them open: to change the key,
//! put the new one in front, seal everything again, then take the old one away.
//!
//! Bound: under one key at most 2^32 texts may be sealed with random nonces (SP 800-38D, 8.3); a million users who
//! connect again each day take eleven years for that.

use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use kalends_core::id::UserId;
use serde::{Deserialize, Serialize};

use crate::secret::Secret;

/// The length of a key, in bytes; it is written as twice as many hexadecimal digits.
pub const KEY_BYTES: usize = 32;
/// The length of what is derived of a key to name users in traces, in bytes.
pub const TRACE_NAMES_KEY_BYTES: usize = 16;
/// The most keys: the one that seals, and older ones.
pub const KEYS_MAX: usize = 16;
/// The longest sealed text that is looked at, in bytes. Google's refresh tokens have at most 512.
pub const SEALED_BYTES_MAX: usize = 16 * 1024;
/// What all sealed texts of this form begin with.
const FORM: &str = "k1";

/// What a secret is for. One that was sealed for one thing does not open for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A refresh token for Google Calendar.
    GoogleRefreshToken,
}

impl Purpose {
    fn name(self) -> &'static str {
        match self {
            Purpose::GoogleRefreshToken => "google refresh token",
        }
    }
}

/// A sealed secret, as it is stored: `k1.KEY-ID.BASE64URL(nonce, ciphertext, tag)`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Sealed(String);

impl Sealed {
    /// The id of the key that sealed it; `None` if the text is no sealed one.
    #[must_use]
    pub fn key_id(&self) -> Option<&str> {
        let (id, _) = self
            .0
            .strip_prefix(FORM)?
            .strip_prefix('.')?
            .split_once('.')?;
        Some(id)
    }
}

impl fmt::Debug for Sealed {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Sealed({})", self.key_id().unwrap_or("?"))
    }
}

/// Why a sealed secret does not open. Neither holds anything secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotOpened {
    /// It was sealed by a key that is not here.
    UnknownKey(String),
    /// It was changed, or belongs to another user or purpose.
    Forged,
}

impl fmt::Display for NotOpened {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NotOpened::UnknownKey(id) => write!(
                formatter,
                "the credential was sealed by the key {id}, which is not among credentials.keys; add that key again, or \
                 connect the user again"
            ),
            NotOpened::Forged => formatter.write_str(
                "the stored credential was changed, or was another user's; connect the user again, and look who can \
                 write to the store",
            ),
        }
    }
}

impl std::error::Error for NotOpened {}

/// The keys, the one that seals first.
pub struct Keys(Vec<Key>);

struct Key {
    id: String,
    cipher: RandomizedNonceKey,
    trace_names: [u8; TRACE_NAMES_KEY_BYTES],
}

impl fmt::Debug for Keys {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("Keys").field(&self.ids()).finish()
    }
}

impl Keys {
    /// Reads keys of 64 hexadecimal digits each, as `openssl rand -hex 32` prints them, separated by white space or
    /// commas; the first one is to seal.
    ///
    /// # Errors
    /// What is wrong and what to write, without a digit of a key.
    pub fn parse(text: &Secret) -> Result<Keys, String> {
        const MAKE: &str = "`openssl rand -hex 32` prints one";
        let separates = |letter: char| letter.is_whitespace() || letter == ',';
        let words = text
            .expose()
            .split(separates)
            .filter(|word| !word.is_empty());
        let mut keys: Vec<Key> = Vec::new();
        for (place, word) in words.enumerate() {
            if place >= KEYS_MAX {
                return Err(format!(
                    "holds more than {KEYS_MAX} keys; take the oldest away"
                ));
            }
            let bytes = from_hex(word).ok_or_else(|| {
                format!(
                    "key {} is not {} hexadecimal digits; {MAKE}",
                    place + 1,
                    2 * KEY_BYTES
                )
            })?;
            if bytes.iter().all(|byte| *byte == bytes[0]) {
                return Err(format!("key {} can be guessed; {MAKE}", place + 1));
            }
            let key = Key::new(&bytes);
            if keys.iter().any(|known| known.id == key.id) {
                return Err(format!("key {} is there twice; write it once", place + 1));
            }
            keys.push(key);
        }
        if keys.is_empty() {
            return Err(format!("holds no key; {MAKE}"));
        }
        Ok(Keys(keys))
    }

    /// The ids of the keys, the one that seals first. An id does not give its key away.
    #[must_use]
    pub fn ids(&self) -> Vec<&str> {
        self.0.iter().map(|key| key.id.as_str()).collect()
    }

    /// What names users in traces, derived of the first key: whoever has it cannot open anything.
    #[must_use]
    pub fn trace_names(&self) -> [u8; TRACE_NAMES_KEY_BYTES] {
        self.0[0].trace_names
    }

    /// Whether it was sealed by the key that seals now.
    #[must_use]
    pub fn is_current(&self, sealed: &Sealed) -> bool {
        sealed.key_id() == Some(self.0[0].id.as_str())
    }

    /// Seals a secret of `user`, by the first key.
    #[must_use]
    pub fn seal(&self, purpose: Purpose, user: &UserId, secret: &Secret) -> Sealed {
        let key = &self.0[0];
        let mut text = secret.expose().as_bytes().to_vec();
        let bound = Aad::from(bound_to(purpose, &key.id, user));
        let nonce = key
            .cipher
            .seal_in_place_append_tag(bound, &mut text)
            .expect("a text of a few kilobytes can be sealed");
        let mut bytes = nonce.as_ref().to_vec();
        bytes.extend_from_slice(&text);
        let sealed = format!("{FORM}.{}.{}", key.id, URL_SAFE_NO_PAD.encode(bytes));
        assert!(
            sealed.len() <= SEALED_BYTES_MAX,
            "callers bound what they seal"
        );
        Sealed(sealed)
    }

    /// Opens what was sealed for this purpose and this user.
    ///
    /// # Errors
    /// If its key is not here, or it is not what was sealed.
    pub fn open(
        &self,
        purpose: Purpose,
        user: &UserId,
        sealed: &Sealed,
    ) -> Result<Secret, NotOpened> {
        let id = sealed.key_id().ok_or(NotOpened::Forged)?;
        if sealed.0.len() > SEALED_BYTES_MAX {
            return Err(NotOpened::Forged);
        }
        let mut keys = self.0.iter();
        let Some(key) = keys.find(|key| key.id == id) else {
            // Whoever can write to the store chooses this text.
            let shown = id.chars().filter(char::is_ascii_alphanumeric).take(16);
            return Err(NotOpened::UnknownKey(shown.collect()));
        };
        let (_, encoded) = sealed.0.rsplit_once('.').ok_or(NotOpened::Forged)?;
        let bytes = URL_SAFE_NO_PAD.decode(encoded);
        let bytes = bytes.map_err(|_| NotOpened::Forged)?;
        let (nonce, text) = bytes.split_at_checked(NONCE_LEN).ok_or(NotOpened::Forged)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| NotOpened::Forged)?;
        let mut text = text.to_vec();
        let bound = Aad::from(bound_to(purpose, &key.id, user));
        let opened = key.cipher.open_in_place(nonce, bound, &mut text);
        let opened = opened.map_err(|_| NotOpened::Forged)?;
        let opened = std::str::from_utf8(opened).map_err(|_| NotOpened::Forged)?;
        Ok(Secret::new(opened))
    }
}

impl Key {
    fn new(bytes: &[u8; KEY_BYTES]) -> Key {
        let named = [b"kalends key id\0".as_slice(), bytes].concat();
        let id = digest(&SHA256, &named).as_ref()[..4]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let cipher = RandomizedNonceKey::new(&AES_256_GCM, bytes).expect("it has its length");
        // HMAC-SHA256 of a label, in the manner of NIST SP 800-108r1: names tell nothing of the key that seals.
        let deriving = hmac::Key::new(hmac::HMAC_SHA256, bytes);
        let derived = hmac::sign(&deriving, b"kalends user names in traces");
        let trace_names = derived.as_ref()[..TRACE_NAMES_KEY_BYTES]
            .try_into()
            .expect("it was cut to this length");
        Key {
            id,
            cipher,
            trace_names,
        }
    }
}

/// What is authenticated along with a sealed text. None of the parts holds a zero byte, so no two are the same.
fn bound_to(purpose: Purpose, key_id: &str, user: &UserId) -> Vec<u8> {
    let parts = ["kalends", FORM, purpose.name(), key_id, user.as_str()];
    parts.join("\0").into_bytes()
}

fn from_hex(text: &str) -> Option<[u8; KEY_BYTES]> {
    if text.len() != 2 * KEY_BYTES || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut bytes = [0; KEY_BYTES];
    for (place, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * place..2 * place + 2], 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
    const TWO: &str = "F00102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
    const FOR: Purpose = Purpose::GoogleRefreshToken;

    fn keys(text: &str) -> Keys {
        Keys::parse(&Secret::new(text)).unwrap()
    }

    fn user(name: &str) -> UserId {
        UserId::new(name).unwrap()
    }

    #[test]
    fn what_is_sealed_opens_for_its_user_only_and_shows_nothing() {
        let keys = keys(ONE);
        let secret = Secret::new("planted-refresh-token");
        let sealed = keys.seal(FOR, &user("ada"), &secret);
        assert_eq!(keys.open(FOR, &user("ada"), &sealed), Ok(secret.clone()));
        assert_eq!(
            keys.open(FOR, &user("bob"), &sealed),
            Err(NotOpened::Forged)
        );
        let again = keys.seal(FOR, &user("ada"), &secret);
        assert_ne!(sealed, again, "a nonce is never used twice");
        assert!(!sealed.0.contains("planted"));
        let shown = format!("{sealed:?} {keys:?}");
        assert!(
            !shown.contains(&sealed.0) && !shown.contains("0405"),
            "{shown}"
        );
    }

    #[test]
    fn every_changed_letter_is_noticed() {
        let keys = keys(ONE);
        let ada = user("ada");
        let sealed = keys.seal(FOR, &ada, &Secret::new("token"));
        for place in 0..sealed.0.len() {
            let mut bytes = sealed.0.clone().into_bytes();
            bytes[place] = if bytes[place] == b'A' { b'B' } else { b'A' };
            let changed = Sealed(String::from_utf8(bytes).unwrap());
            assert!(keys.open(FOR, &ada, &changed).is_err(), "{place}");
        }
        for odd in ["", "k1", "k1..", "k1.x.", "k1.630dcd29.AAAA"] {
            assert!(keys.open(FOR, &ada, &Sealed(odd.to_owned())).is_err());
        }
    }

    #[test]
    fn keys_change_with_the_new_one_in_front() {
        let ada = user("ada");
        let old = keys(ONE).seal(FOR, &ada, &Secret::new("token"));
        let both = keys(&format!("{TWO}\n{ONE}\n"));
        assert_eq!(both.ids().len(), 2);
        assert!(!both.is_current(&old));
        let opened = both.open(FOR, &ada, &old).unwrap();
        let new = both.seal(FOR, &ada, &opened);
        assert!(both.is_current(&new));
        let alone = keys(TWO);
        assert_eq!(alone.open(FOR, &ada, &new), Ok(opened));
        let error = alone.open(FOR, &ada, &old).unwrap_err();
        assert!(matches!(error, NotOpened::UnknownKey(_)), "{error}");
    }

    #[test]
    fn what_names_users_in_traces_follows_from_the_first_key_and_is_not_the_key() {
        let one = keys(ONE).trace_names();
        assert_eq!(one, keys(&format!("{ONE} {TWO}")).trace_names());
        assert_ne!(one, keys(TWO).trace_names());
        assert_ne!(one.as_slice(), &from_hex(ONE).unwrap()[..one.len()]);
        // By another implementation: openssl dgst -sha256 -mac HMAC -macopt hexkey:ONE.
        let hex: String = one.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "6c80c4e6ca958fc95baa567bd238f796");
    }

    #[test]
    fn a_bad_key_is_refused_without_a_word_of_it() {
        let twice = format!("{ONE} {ONE}");
        let short = &ONE[2..];
        let zeros = "00".repeat(KEY_BYTES);
        let many: Vec<String> = (0..=KEYS_MAX).map(|n| format!("{n:064x}")).collect();
        for (text, words) in [
            ("", "holds no key"),
            (" ,\n", "holds no key"),
            (short, "key 1 is not 64 hexadecimal digits"),
            ("xyz", "openssl rand -hex 32"),
            (zeros.as_str(), "can be guessed"),
            (twice.as_str(), "key 2 is there twice"),
            (&many[1..].join(","), "more than 16"),
        ] {
            let text = if words == "more than 16" {
                format!("{text},{ONE}")
            } else {
                text.to_owned()
            };
            let error = Keys::parse(&Secret::new(text)).unwrap_err();
            assert!(error.contains(words), "{error}");
            assert!(!error.contains("0405"), "{error}");
        }
    }
}
