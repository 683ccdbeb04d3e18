//! Push channels on the wire: what `events.watch` and `channels.stop` are sent, and what the first answers.
//!
//! Facts are from Calendar API v3, "Push notifications": no call lists channels or renews one, so a new one is made under a new
//! id before the old one ends, and the old one is stopped by its id with the resource's id.

use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::failure::Failure;
use crate::time::Timestamp;

/// The longest id of a channel that Google takes, in bytes.
pub const CHANNEL_BYTES_MAX: usize = 64;
/// The longest token of a channel that Google takes, in bytes.
pub const TOKEN_BYTES_MAX: usize = 256;
/// The longest id of a resource that is kept, in bytes; Google's have some thirty.
pub const RESOURCE_BYTES_MAX: usize = 256;

/// What Google says of a channel that it made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watched {
    /// Names what is watched; needed to stop the channel.
    pub resource: String,
    /// When the channel ends by itself: as asked for, or earlier.
    pub expires_at: Timestamp,
}

/// The body of `events.watch`.
#[must_use]
pub fn watch_body(channel: &str, address: &str, token: &str, expires_at: Timestamp) -> String {
    assert!(channel.len() <= CHANNEL_BYTES_MAX && token.len() <= TOKEN_BYTES_MAX);
    json!({
        "id": channel,
        "type": "web_hook",
        "address": address,
        "token": token,
        // A 64-bit number, which Google's JSON writes as text.
        "expiration": expires_at.as_ms().to_string(),
    })
    .to_string()
}

/// The body of `channels.stop`.
#[must_use]
pub fn stop_body(channel: &str, resource: &str) -> String {
    json!({ "id": channel, "resourceId": resource }).to_string()
}

/// Whether an answer with this status says that a channel is no more: no content; or no such channel, which is as good.
#[must_use]
pub fn is_stopped(status: u16) -> bool {
    matches!(status, 200 | 204 | 404)
}

/// Reads the answer of `events.watch`.
///
/// # Errors
/// Transient, if it is not one: then nothing is known of the channel, which ends by itself.
pub fn read_watched(body: &[u8]) -> Result<Watched, Failure> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Raw {
        resource_id: String,
        expiration: serde_json::Value,
    }
    let not_one = || Failure::transient("Google's answer is not a push channel");
    let raw: Raw = serde_json::from_slice(body).map_err(|_| not_one())?;
    let expires_ms = match &raw.expiration {
        serde_json::Value::String(text) => text.parse().ok(),
        other => other.as_i64(),
    };
    let is_good = !raw.resource_id.is_empty() && raw.resource_id.len() <= RESOURCE_BYTES_MAX;
    match expires_ms {
        Some(ms) if is_good => Ok(Watched {
            resource: raw.resource_id,
            expires_at: Timestamp::from_ms(ms),
        }),
        _ => Err(not_one()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_answer_is_read_whether_its_end_is_text_or_a_number() {
        for end in ["\"1793600000000\"", "1793600000000"] {
            let body =
                format!(r#"{{"kind":"api#channel","id":"k","resourceId":"r","expiration":{end}}}"#);
            let watched = read_watched(body.as_bytes()).unwrap();
            assert_eq!(watched.expires_at.as_ms(), 1_793_600_000_000);
            assert_eq!(watched.resource, "r");
        }
        let long = format!(r#"{{"resourceId":"{}","expiration":1}}"#, "r".repeat(257));
        for bad in [
            "",
            "{}",
            r#"{"resourceId":"r"}"#,
            r#"{"resourceId":"","expiration":1}"#,
            r#"{"resourceId":"r","expiration":"soon"}"#,
            &long,
        ] {
            assert!(read_watched(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic_and_no_long_name_is_kept(
            body in proptest::collection::vec(any::<u8>(), 0..400),
            resource in ".{0,300}",
            expiration in "-?[0-9]{0,22}",
        ) {
            let text = serde_json::json!({ "resourceId": resource, "expiration": expiration });
            for body in [body.as_slice(), text.to_string().as_bytes()] {
                match read_watched(body) {
                    Ok(watched) => prop_assert!((1..=RESOURCE_BYTES_MAX).contains(&watched.resource.len())),
                    Err(failure) => prop_assert!(failure.detail.len() > 10),
                }
            }
        }
    }

    #[test]
    fn bodies_are_as_google_describes_them() {
        let body = watch_body(
            "k1",
            "https://hooks.example.com/",
            "t",
            Timestamp::from_ms(5),
        );
        let body: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!(body["type"], "web_hook");
        assert_eq!(body["expiration"], "5");
        let body: serde_json::Value = serde_json::from_str(&stop_body("k1", "r1")).unwrap();
        assert_eq!(body["resourceId"], "r1");
    }
}
