//! Reading a refusal: HTTP status and body to a typed [`Failure`](crate::failure::Failure).
