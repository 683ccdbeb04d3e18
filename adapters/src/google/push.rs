//! The webhook's side of push channels: where Google is told to send notifications, and the keyed hash in their tokens
//! ([`kalends_core::push::token`] tells what a token is).

use aws_lc_rs::hmac;
use kalends_core::id::UserId;
use kalends_core::push::token;

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
        let tag = hmac::sign(&self.key, &token::message(user.as_str(), channel));
        token::compose(user, tag.as_ref())
    }

    /// Whose channel it is, if `token` is the one of `channel`. The hash is compared in a time that does not depend on where it
    /// differs, and a forgery costs one hash over a few hundred bytes.
    #[must_use]
    pub fn user_of(&self, channel: &str, token: &str) -> Option<UserId> {
        token::user_of(channel, token, |message, tag| {
            hmac::verify(&self.key, message, tag).is_ok()
        })
    }
}

impl std::fmt::Debug for Webhook {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Webhook({}, key hidden)", self.address)
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;

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
