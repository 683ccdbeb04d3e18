//! The policies: small pure values that say when, how many and how long.
//!
//! The machines hold state and ask; a policy answers from its arguments alone. Time comes in as a
//! [`Timestamp`](crate::time::Timestamp), chance as an [`Rng`](crate::rng::Rng), so the same question always has the
//! same answer, in production and in simulation.
//!
//! - [`cron`], [`schedule`]: which instants a schedule fires at, and what to do about the ones that were missed
//! - [`jitter`], [`spread`]: how the users of one tick are laid over the period
//! - [`backoff`]: how long to wait after a failure
//! - [`limit`]: how many starts fit into every sliding window, and how a closed source opens again
//! - [`mod@overload`]: whether all users fit into the period at all

pub mod backoff;
pub mod catch_up;
pub mod cron;
pub mod jitter;
pub mod limit;
pub mod overload;
pub mod schedule;
pub mod spread;
pub mod time_zone;

pub use backoff::{Backoff, BackoffJitter};
pub use catch_up::{CatchUp, CatchUpError, CatchUpPlan};
pub use cron::{CronError, CronExpression};
pub use jitter::Jitter;
pub use limit::{Limit, LimitError, SlidingWindow, ramp_allowance, ramp_opens_after_ms};
pub use overload::{Overload, overload};
pub use schedule::ScheduleDefinition;
pub use spread::Spread;
pub use time_zone::{TimeZone, TimeZoneError};
