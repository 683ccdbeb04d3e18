//! The bearer token: who may change things.

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{Digest, SHA256, digest};
use axum::http::{HeaderMap, header::AUTHORIZATION};
use kalends_adapters::secret::Secret;

/// What a caller showed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shown {
    /// No token at all.
    Nothing,
    /// Something that is not the token.
    Wrong,
    /// The token.
    Right,
}

/// The token, of which only a digest is kept. Digests have one length, and are compared in a time that does not depend on
/// where they differ: nobody finds the token byte by byte.
pub(super) struct Token(Digest);

impl Token {
    pub(super) fn new(token: &Secret) -> Self {
        Token(digest(&SHA256, token.expose().as_bytes()))
    }

    /// Whether the headers hold it, as RFC 6750 says.
    pub(super) fn shown_in(&self, headers: &HeaderMap) -> Shown {
        let mut values = headers.get_all(AUTHORIZATION).iter();
        let (Some(value), None) = (values.next(), values.next()) else {
            return match headers.contains_key(AUTHORIZATION) {
                true => Shown::Wrong,
                false => Shown::Nothing,
            };
        };
        let bearer = value.to_str().ok().and_then(|value| {
            let (scheme, token) = value.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
        });
        let Some(bearer) = bearer else {
            return Shown::Wrong;
        };
        let shown = digest(&SHA256, bearer.as_bytes());
        match verify_slices_are_equal(shown.as_ref(), self.0.as_ref()) {
            Ok(()) => Shown::Right,
            Err(_) => Shown::Wrong,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    #[test]
    fn only_the_whole_token_alone_is_right() {
        let token = Token::new(&Secret::new("0123456789abcdef"));
        let shown = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(AUTHORIZATION, HeaderValue::from_str(value).unwrap());
            }
            token.shown_in(&headers)
        };
        assert_eq!(shown(&[]), Shown::Nothing);
        assert_eq!(shown(&["Bearer 0123456789abcdef"]), Shown::Right);
        assert_eq!(shown(&["bearer  0123456789abcdef"]), Shown::Right);
        for wrong in [
            "Bearer 0123456789abcde",
            "Bearer 0123456789abcdef0",
            "Bearer ",
            "Bearer",
            "Basic 0123456789abcdef",
            "0123456789abcdef",
        ] {
            assert_eq!(shown(&[wrong]), Shown::Wrong, "{wrong}");
        }
        let twice = ["Bearer 0123456789abcdef", "Bearer guess"];
        assert_eq!(shown(&twice), Shown::Wrong);
    }
}
