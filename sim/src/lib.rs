//! The world as values.
