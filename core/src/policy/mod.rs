//! t
pub mod limit {
    //! t
    use serde::{Deserialize, Serialize};
    /// t
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
    pub struct Limit {
        /// t
        pub count: u32,
        /// t
        pub window_ms: u64,
    }
}
pub mod schedule {
    //! t
    use serde::{Deserialize, Serialize};
    /// t
    #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
    pub struct ScheduleDefinition {}
}
