//! Catch-up: which ticks to fire after a downtime, and how many were missed.
//!
//! A tick that is only a little late is on time and always fires; a pause for garbage or a slow start is no downtime.
//! Older ones are missed. They are counted whatever the policy says, so that nothing is lost without a trace, and
//! the policy decides which of them fire after all. The work is bounded however long the downtime was: ticks are
//! looked at from the newest backwards, and counting stops at [`MISSED_COUNT_MAX`].

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::mutant::{Mutant, planted};
use crate::time::Timestamp;

/// The most missed ticks that are counted; a count of this means "so many or more".
pub const MISSED_COUNT_MAX: u64 = 10_000;
/// The most ticks that may be caught up after one downtime.
pub const CATCH_UP_TICKS_MAX: u32 = 1_000;
/// The most ticks that count as on time at once; the ones before them are missed, however late `late_ms` allows.
pub const ON_TIME_TICKS_MAX: usize = 60;

/// What becomes of ticks that nobody was there to fire. As text: `skip`, `once`, `all(10)`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum CatchUp {
    /// Missed ticks are dropped.
    Skip,
    /// One tick fires: the one that is on time if there is one, else the newest that was missed.
    #[default]
    Once,
    /// The newest ticks fire.
    All {
        /// How many at most, the ones on time included: 1 to [`CATCH_UP_TICKS_MAX`].
        max: u32,
    },
}

/// A text that names no way to catch up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CatchUpError;

impl fmt::Display for CatchUpError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "not a way to catch up; write skip, once, or all(n) with n from 1 to {CATCH_UP_TICKS_MAX}"
        )
    }
}

impl std::error::Error for CatchUpError {}

impl fmt::Display for CatchUp {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CatchUp::Skip => formatter.write_str("skip"),
            CatchUp::Once => formatter.write_str("once"),
            CatchUp::All { max } => write!(formatter, "all({max})"),
        }
    }
}

impl FromStr for CatchUp {
    type Err = CatchUpError;
    fn from_str(text: &str) -> Result<Self, CatchUpError> {
        match text {
            "skip" => return Ok(CatchUp::Skip),
            "once" => return Ok(CatchUp::Once),
            _ => {}
        }
        let digits = text
            .strip_prefix("all(")
            .and_then(|rest| rest.strip_suffix(')'))
            .filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))
            .ok_or(CatchUpError)?;
        match digits.parse() {
            Ok(max) if (1..=CATCH_UP_TICKS_MAX).contains(&max) => Ok(CatchUp::All { max }),
            _ => Err(CatchUpError),
        }
    }
}

impl TryFrom<String> for CatchUp {
    type Error = CatchUpError;
    fn try_from(text: String) -> Result<Self, CatchUpError> {
        text.parse()
    }
}

impl From<CatchUp> for String {
    fn from(catch_up: CatchUp) -> String {
        catch_up.to_string()
    }
}

/// What to do about the ticks since the last one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CatchUpPlan {
    /// The ticks to fire, oldest first. At most [`ON_TIME_TICKS_MAX`], or the `max` of `all` if that is more.
    pub fire: Vec<Timestamp>,
    /// How many ticks were missed, whether they are in `fire` or dropped; [`MISSED_COUNT_MAX`] means "or more".
    pub missed: u64,
}

/// Sorts the ticks since the last one, given newest first, into those to fire and those to count.
pub(super) fn plan(
    catch_up: CatchUp,
    newest_first: impl Iterator<Item = Timestamp>,
    now: Timestamp,
    late_ms: u64,
) -> CatchUpPlan {
    let mut plan = CatchUpPlan::default();
    for tick in newest_first {
        let on_time = now.since_ms(tick) <= late_ms && plan.fire.len() < ON_TIME_TICKS_MAX;
        if on_time && plan.missed == 0 {
            plan.fire.push(tick);
            continue;
        }
        plan.missed += 1;
        let room = match catch_up {
            CatchUp::Skip => 0,
            CatchUp::Once if planted(Mutant::CatchUpAll) => usize::MAX,
            CatchUp::Once => 1,
            CatchUp::All { max } => max.min(CATCH_UP_TICKS_MAX) as usize,
        };
        if plan.fire.len() < room {
            plan.fire.push(tick);
        }
        if plan.missed == MISSED_COUNT_MAX {
            break;
        }
    }
    plan.fire.reverse();
    plan
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn goes_through_text_and_json() {
        for catch_up in [CatchUp::Skip, CatchUp::Once, CatchUp::All { max: 10 }] {
            assert_eq!(catch_up.to_string().parse(), Ok(catch_up));
            let json = serde_json::to_string(&catch_up).unwrap();
            assert_eq!(serde_json::from_str::<CatchUp>(&json).unwrap(), catch_up);
        }
        for bad in [
            "",
            "All",
            "all",
            "all()",
            "all(0)",
            "all(1001)",
            "all(+5)",
            "all(-1)",
            "all(5",
            "once ",
        ] {
            assert_eq!(bad.parse::<CatchUp>(), Err(CatchUpError), "{bad}");
        }
    }
}
