//! The webhook's side of push channels: the token by which a notification is known to be Google's, and whose it is.
//!
//! A notification carries no signature; the channel's token is all there is. Ours is the user's name with a keyed hash over
//! channel and user, so any process that has the key knows a genuine one, without a table and after any restart. A channel's id
//! with another channel's token is no good, nor is another user's.

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use kalends_core::google::push::{CHANNEL_BYTES_MAX, TOKEN_BYTES_MAX};
use kalends_core::id::UserId;

use super::SettingsError;
use super::client::checked_url;
use crate::secret::Secret;

/// A shorter key could be guessed, in bytes.
pub const KEY_BYTES_MIN: usize = 32;
/// The longest address that is told to Google, in bytes.
const ADDRESS_BYTES_MAX: usize = 1_000;

/// Where Google sends notifications, and the key of their tokens.
pub struct Webhook {
    address: String,
    key: hmac::Key,
}

impl Webhook {
    /// `address` is what Google is told: `https` with a certificate that is generally trusted (`http` to this machine only, for an
    /// emulator). All processes of a fleet have the same key; with another key the channels there are stay silent until they
    /// are renewed.
    ///
    /// # Errors
    /// If the address is none, or the key is shorter than [`KEY_BYTES_MIN`].
    pub fn new(address: &str, key: &Secret) -> Result<Self, SettingsError> {
        checked_url("push.address", address)?;
        if address.len() > ADDRESS_BYTES_MAX {
            return Err(SettingsError::new(
                "push.address",
                format!("is longer than {ADDRESS_BYTES_MAX} bytes"),
            ));
        }
        if key.expose().len() < KEY_BYTES_MIN {
            return Err(SettingsError::new(
                "push.key",
                format!(
                    "is shorter than {KEY_BYTES_MIN} bytes; make one with: openssl rand -hex 32"
                ),
            ));
        }
        Ok(Webhook {
            address: address.to_owned(),
            key: hmac::Key::new(hmac::HMAC_SHA256, key.expose().as_bytes()),
        })
    }

    /// The address.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The token of `channel` of `user`; `None` if the user's name is too long for one.
    #[must_use]
    pub fn token(&self, user: &UserId, channel: &str) -> Option<String> {
        let tag = hmac::sign(&self.key, &message(user.as_str(), channel));
        let name = URL_SAFE_NO_PAD.encode(user.as_str());
        let token = format!("{name}.{}", URL_SAFE_NO_PAD.encode(tag));
        (token.len() <= TOKEN_BYTES_MAX).then_some(token)
    }

    /// Whose channel it is, if `token` is the one of `channel`. The hash is compared in a time that does not depend on where it
    /// differs, and a forgery costs one hash over a few hundred bytes.
    #[must_use]
    pub fn user_of(&self, channel: &str, token: &str) -> Option<UserId> {
        if channel.len() > CHANNEL_BYTES_MAX || token.len() > TOKEN_BYTES_MAX {
            return None;
        }
        let (name, tag) = token.split_once('.')?;
        let name = String::from_utf8(URL_SAFE_NO_PAD.decode(name).ok()?).ok()?;
        let tag = URL_SAFE_NO_PAD.decode(tag).ok()?;
        hmac::verify(&self.key, &message(&name, channel), &tag).ok()?;
        UserId::new(&name).ok()
    }
}

/// No name holds a line break, so no two pairs have the same text.
fn message(user: &str, channel: &str) -> Vec<u8> {
    format!("kalends push channel\n{channel}\n{user}").into_bytes()
}

impl std::fmt::Debug for Webhook {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Webhook({}, key hidden)", self.address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADDRESS: &str = "https://hooks.example.com/google";

    fn webhook(key: &str) -> Webhook {
        Webhook::new(ADDRESS, &Secret::new(key.repeat(32))).unwrap()
    }

    #[test]
    fn a_token_is_good_for_its_channel_its_user_and_its_key_alone() {
        let (webhook, ada) = (webhook("k"), UserId::new("ada@example.com").unwrap());
        let token = webhook.token(&ada, "kalends-1-00").unwrap();
        assert_eq!(webhook.user_of("kalends-1-00", &token), Some(ada.clone()));
        assert_eq!(webhook.user_of("kalends-2-00", &token), None);
        assert_eq!(
            super::tests::webhook("q").user_of("kalends-1-00", &token),
            None
        );
        let (_, tag) = token.split_once('.').unwrap();
        let eve = URL_SAFE_NO_PAD.encode("eve@example.com");
        assert_eq!(
            webhook.user_of("kalends-1-00", &format!("{eve}.{tag}")),
            None
        );
        for cut in 0..token.len() {
            assert_eq!(webhook.user_of("kalends-1-00", &token[..cut]), None);
        }
        for forged in ["", ".", "a.b", "\u{e6}.\u{e6}", &"x".repeat(300)] {
            assert_eq!(webhook.user_of("kalends-1-00", forged), None, "{forged}");
        }
        assert_eq!(webhook.user_of(&"k".repeat(65), &token), None);
    }

    #[test]
    fn a_name_that_is_too_long_has_no_token() {
        let webhook = webhook("k");
        let user = |length: usize| UserId::new(&"u".repeat(length)).unwrap();
        assert!(webhook.token(&user(150), "kalends-1-00").is_some());
        assert!(webhook.token(&user(170), "kalends-1-00").is_none());
    }

    #[test]
    fn an_address_in_the_clear_and_a_short_key_are_refused() {
        let key = Secret::new("k".repeat(32));
        for bad in [
            "http://hooks.example.com/",
            "hooks",
            "https://a:b@example.com/",
        ] {
            assert!(Webhook::new(bad, &key).is_err(), "{bad}");
        }
        assert!(Webhook::new("http://127.0.0.1:80/x", &key).is_ok());
        let error = Webhook::new(ADDRESS, &Secret::new("planted-short")).unwrap_err();
        assert!(!error.to_string().contains("planted"), "{error}");
    }
}
