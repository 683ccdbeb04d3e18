//! t
pub mod backoff;
pub mod jitter;
pub mod limit;
pub mod overload;
pub mod spread;
pub use backoff::{Backoff, BackoffJitter};
pub use jitter::Jitter;
pub use limit::{Limit, LimitError};
pub use overload::{Overload, overload};
pub use spread::Spread;
pub mod schedule {
    //! t
    use serde::{Deserialize, Serialize};
    /// t
    #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
    pub struct ScheduleDefinition {}
}
pub use schedule::ScheduleDefinition;
