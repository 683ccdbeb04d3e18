//! Tokens as text that explains itself: what they stand for is inside, with a check sum, so nothing is kept for them.
//!
//! A sync token holds the calendar's last change and what it belongs to (calendar, user, token generation, query);
//! on an unchanged calendar it is the same text every time. A page token holds the last key delivered and the state at the
//! first page, which the sync token of the last page will stand for: a change between two pages is delivered again
//! by the next increment, never lost. To clients both are opaque.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE;
use kalends_core::rng::stable_hash;

/// The longest token that is looked at, in bytes of text.
const TOKEN_TEXT_BYTES_MAX: usize = 4_096;
const SYNC_SALT: u64 = 0x7379_6e63_746f_6b65;
const PAGE_SALT: u64 = 0x7061_6765_746f_6b65;
const CHECK_BYTES: usize = 8;

/// Why a token's text means nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TokenError {
    /// It is not even base64.
    NotText,
    /// It decodes, but we did not make it.
    NotOurs,
}

/// Where an increment begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SyncToken {
    /// The last change (µs) that the client has seen.
    pub(crate) stamp_us: i64,
    /// Hash of user, calendar and token generation.
    pub(crate) scope: u64,
    /// Hash of the parameters that must not change.
    pub(crate) query: u64,
}

/// Where the next page begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PageToken {
    /// The last change (µs) when the first page was given.
    pub(crate) as_of_us: i64,
    /// For an increment: changes after this stamp (µs) are delivered.
    pub(crate) since_us: Option<i64>,
    /// Hash of user and calendar.
    pub(crate) scope: u64,
    /// How often this calendar's sync tokens had been invalidated.
    pub(crate) generation: u32,
    /// Hash of all parameters but the page token.
    pub(crate) query: u64,
    /// The number of the page to come, from 1.
    pub(crate) number: u32,
    /// The key of the last item delivered; empty if none was.
    pub(crate) key: String,
}

impl SyncToken {
    pub(crate) fn encode(&self, seed: u64) -> String {
        let mut bytes = Vec::with_capacity(32);
        bytes.extend_from_slice(&self.stamp_us.to_be_bytes());
        bytes.extend_from_slice(&self.scope.to_be_bytes());
        bytes.extend_from_slice(&self.query.to_be_bytes());
        seal(bytes, seed ^ SYNC_SALT)
    }

    pub(crate) fn decode(text: &str, seed: u64) -> Result<Self, TokenError> {
        let bytes = unseal(text, seed ^ SYNC_SALT)?;
        let mut reader = Reader(&bytes);
        let token = SyncToken {
            stamp_us: i64::from_be_bytes(reader.take()?),
            scope: u64::from_be_bytes(reader.take()?),
            query: u64::from_be_bytes(reader.take()?),
        };
        Ok(token)
    }
}

impl PageToken {
    pub(crate) fn encode(&self, seed: u64) -> String {
        let mut bytes = Vec::with_capacity(64 + self.key.len());
        bytes.extend_from_slice(&self.as_of_us.to_be_bytes());
        bytes.extend_from_slice(&self.since_us.unwrap_or(i64::MIN).to_be_bytes());
        bytes.extend_from_slice(&self.scope.to_be_bytes());
        bytes.extend_from_slice(&self.generation.to_be_bytes());
        bytes.extend_from_slice(&self.query.to_be_bytes());
        bytes.extend_from_slice(&self.number.to_be_bytes());
        bytes.extend_from_slice(self.key.as_bytes());
        seal(bytes, seed ^ PAGE_SALT)
    }

    pub(crate) fn decode(text: &str, seed: u64) -> Result<Self, TokenError> {
        let bytes = unseal(text, seed ^ PAGE_SALT)?;
        let mut reader = Reader(&bytes);
        Ok(PageToken {
            as_of_us: i64::from_be_bytes(reader.take()?),
            since_us: Some(i64::from_be_bytes(reader.take()?)).filter(|since| *since != i64::MIN),
            scope: u64::from_be_bytes(reader.take()?),
            generation: u32::from_be_bytes(reader.take()?),
            query: u64::from_be_bytes(reader.take()?),
            number: u32::from_be_bytes(reader.take()?),
            key: String::from_utf8(reader.0.to_vec()).map_err(|_| TokenError::NotOurs)?,
        })
    }
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], TokenError> {
        let (head, rest) = self.0.split_first_chunk().ok_or(TokenError::NotOurs)?;
        self.0 = rest;
        Ok(*head)
    }
}

fn seal(mut bytes: Vec<u8>, key: u64) -> String {
    let check = stable_hash(key, &bytes);
    bytes.extend_from_slice(&check.to_be_bytes());
    URL_SAFE.encode(bytes)
}

fn unseal(text: &str, key: u64) -> Result<Vec<u8>, TokenError> {
    if text.len() > TOKEN_TEXT_BYTES_MAX {
        return Err(TokenError::NotText);
    }
    let mut bytes = URL_SAFE.decode(text).map_err(|_| TokenError::NotText)?;
    let body_length = bytes.len().checked_sub(CHECK_BYTES);
    let body_length = body_length.ok_or(TokenError::NotOurs)?;
    let check = stable_hash(key, &bytes[..body_length]);
    if bytes[body_length..] != check.to_be_bytes() {
        return Err(TokenError::NotOurs);
    }
    bytes.truncate(body_length);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_read_back_and_forgeries_do_not() {
        let sync = SyncToken {
            stamp_us: 5,
            scope: 6,
            query: 7,
        };
        let text = sync.encode(1);
        assert_eq!(SyncToken::decode(&text, 1), Ok(sync));
        assert_eq!(SyncToken::decode(&text, 2), Err(TokenError::NotOurs));
        assert_eq!(
            SyncToken::decode("not base64!", 1),
            Err(TokenError::NotText)
        );
        assert_eq!(SyncToken::decode("", 1), Err(TokenError::NotOurs));
        let page = PageToken {
            as_of_us: 1,
            since_us: None,
            scope: 2,
            generation: 3,
            query: 4,
            number: 5,
            key: "abc".to_owned(),
        };
        let text = page.encode(1);
        assert_eq!(PageToken::decode(&text, 1), Ok(page));
        assert_eq!(SyncToken::decode(&text, 1), Err(TokenError::NotOurs));
    }
}
