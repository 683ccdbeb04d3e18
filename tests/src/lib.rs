//! Tests that need real servers or real processes live in `tests/tests/`.
