//! The token of a channel, by which a notification is known to be Google's, and whose it is.
//!
//! A notification carries no signature; the channel's token is all there is. Ours is the user's name with a tag: a keyed hash of
//! channel and user. So any process that has the key knows a genuine one, without a table and after any restart. A channel's id
//! with another channel's token is no good, nor is another user's. The keyed hash itself is the adapter's.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::google::push::{CHANNEL_BYTES_MAX, TOKEN_BYTES_MAX};
use crate::id::UserId;
use crate::mutant::{Mutant, planted};

/// What the tag of `channel` of `user` is a hash of.
#[must_use]
pub fn message(user: &str, channel: &str) -> Vec<u8> {
    // No name holds a line break, so no two pairs have the same text.
    format!("kalends push channel\n{channel}\n{user}").into_bytes()
}

/// The token of a channel of `user` with this tag; `None` if the user's name is too long for one.
#[must_use]
pub fn compose(user: &UserId, tag: &[u8]) -> Option<String> {
    let name = URL_SAFE_NO_PAD.encode(user.as_str());
    let token = format!("{name}.{}", URL_SAFE_NO_PAD.encode(tag));
    (token.len() <= TOKEN_BYTES_MAX).then_some(token)
}

/// Whose channel it is, if `token` is the one of `channel`: `is_tag` tells whether the second is the tag of the first, in a time
/// that does not depend on where they differ. A forgery costs one hash over a few hundred bytes.
#[must_use]
pub fn user_of(
    channel: &str,
    token: &str,
    is_tag: impl FnOnce(&[u8], &[u8]) -> bool,
) -> Option<UserId> {
    if channel.len() > CHANNEL_BYTES_MAX || token.len() > TOKEN_BYTES_MAX {
        return None;
    }
    let (name, tag) = token.split_once('.')?;
    let name = String::from_utf8(URL_SAFE_NO_PAD.decode(name).ok()?).ok()?;
    let tag = URL_SAFE_NO_PAD.decode(tag).ok()?;
    let is_genuine = is_tag(&message(&name, channel), &tag);
    if !is_genuine && !planted(Mutant::PushTokenUnchecked) {
        return None;
    }
    UserId::new(&name).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_names_its_user_to_whoever_knows_its_tag() {
        let ada = UserId::new("ada@example.com").unwrap();
        let tag = |message: &[u8]| crate::rng::stable_hash(7, message).to_le_bytes();
        let is_tag = |message: &[u8], found: &[u8]| tag(message) == found;
        let token = compose(&ada, &tag(&message(ada.as_str(), "c"))).unwrap();
        assert_eq!(user_of("c", &token, is_tag), Some(ada.clone()));
        assert_eq!(user_of("d", &token, is_tag), None, "another channel's");
        let (_, tag_text) = token.split_once('.').unwrap();
        let eve = compose(&UserId::new("eve@example.com").unwrap(), &[]).unwrap();
        assert_eq!(user_of("c", &format!("{eve}{tag_text}"), is_tag), None);
        for cut in 0..token.len() {
            assert_eq!(user_of("c", &token[..cut], is_tag), None, "{cut}");
        }
        // Nothing is hashed for what cannot be one.
        let never = |_: &[u8], _: &[u8]| -> bool { panic!("hashed") };
        for bad in ["", "ada", "!.!", &"x".repeat(TOKEN_BYTES_MAX + 1)] {
            assert_eq!(user_of("c", bad, never), None, "{bad}");
        }
        let long = "c".repeat(CHANNEL_BYTES_MAX + 1);
        assert_eq!(user_of(&long, &token, never), None);
        let long = UserId::new(&"u".repeat(200)).unwrap();
        assert_eq!(compose(&long, &[0; 32]), None);
    }
}
