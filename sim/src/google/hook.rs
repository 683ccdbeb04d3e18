//! The webhook's key in a simulation, in place of the adapter's: tags are a hash with a seed that everybody knows. What a token
//! is and when it is believed is core's.

use kalends_core::id::UserId;
use kalends_core::push::token;
use kalends_core::rng::stable_hash;

const KEY: u64 = 0x7075_7368_206b_6579;

fn tag(message: &[u8]) -> [u8; 8] {
    stable_hash(KEY, message).to_le_bytes()
}

/// The token of `channel` of `user`.
///
/// # Panics
/// If the user's name is too long for one; the emulator's are short.
#[must_use]
pub fn channel_token(user: &UserId, channel: &str) -> String {
    let tag = tag(&token::message(user.as_str(), channel));
    token::compose(user, &tag).expect("the emulator's names are short")
}

/// Whose channel it is, if this is its token.
#[must_use]
pub fn user_of_channel(channel: &str, token: &str) -> Option<UserId> {
    token::user_of(channel, token, |message, found| tag(message) == found)
}
