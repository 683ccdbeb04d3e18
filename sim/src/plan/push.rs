//! The plan of a seed for a fleet that watches: the standard plan with push channels, and what befalls notifications. From a
//! sub-stream of its own, and only when it is asked for, so the standard plans are what they were.

use kalends_core::push::PushSettings;
use kalends_core::rng::{KalendsRng, substream, uniform};
use kalends_core::time::{HOUR_MS, MINUTE_MS, SECOND_MS};

use super::Plan;
use super::draw::{below, one_in, ppm, small, wide};
use super::fault::{Fault, FaultKind};

/// Faults of push in one plan, at the most.
const FAULTS_MAX: u64 = 6;
/// The longest fault, in milliseconds.
const LASTING_MS_MAX: u64 = 4 * HOUR_MS;
/// The longest flood, in milliseconds.
const FLOOD_MS_MAX: u64 = 10 * MINUTE_MS;

impl Plan {
    /// The standard plan of a seed with push channels, and faults of push beside its own.
    #[must_use]
    pub fn draw_push(seed: u64) -> Self {
        let mut plan = Plan::draw(seed);
        let rng = &mut substream(seed, "plan/push");
        // Lives that a day sees the end of, and the one of production.
        let hours = [(6, 1), (9, 2), (24, 3), (168, 6)][below(rng, 4)];
        plan.policy.push = Some(PushSettings {
            life_ms: hours.0 * HOUR_MS,
            poll_ms: hours.1 * HOUR_MS,
        });
        for _ in 0..uniform(rng, FAULTS_MAX) {
            let fault = draw(rng, plan.size.duration_ms);
            plan.faults.push(fault);
        }
        if one_in(rng, 8) {
            nobody_there(&mut plan, rng);
        }
        plan.faults.sort_by_key(|fault| fault.at_ms);
        plan
    }
}

/// All processes are gone for a while, and nobody takes notifications.
fn nobody_there(plan: &mut Plan, rng: &mut KalendsRng) {
    let lasting_ms = wide(rng, SECOND_MS, FLOOD_MS_MAX);
    let at_ms = uniform(rng, plan.size.duration_ms - lasting_ms);
    for process in 0..plan.size.processes {
        plan.faults.push(Fault {
            at_ms,
            lasting_ms,
            kind: FaultKind::Crash { process },
        });
    }
}

fn draw(rng: &mut KalendsRng, duration_ms: u64) -> Fault {
    let mut lasting_ms = wide(rng, SECOND_MS, LASTING_MS_MAX).min(duration_ms / 2);
    let kind = match uniform(rng, 5) {
        0 => {
            let max_ms = u32::try_from(wide(rng, 100, HOUR_MS)).expect("small");
            let min_ms = if one_in(rng, 2) { max_ms / 2 } else { 0 };
            FaultKind::PushDelayed { min_ms, max_ms }
        }
        1 => FaultKind::PushDoubled { ppm: 3 * ppm(rng) },
        2 => FaultKind::PushDropped { ppm: 3 * ppm(rng) },
        3 => {
            lasting_ms = lasting_ms.min(FLOOD_MS_MAX);
            let every_ms = wide(rng, 50, MINUTE_MS);
            FaultKind::PushForged { every_ms }
        }
        4 => {
            lasting_ms = lasting_ms.min(FLOOD_MS_MAX);
            let every_ms = wide(rng, 50, MINUTE_MS);
            let user = small(rng, 99);
            FaultKind::PushFlood { user, every_ms }
        }
        _ => FaultKind::WatchLost { ppm: 3 * ppm(rng) },
    };
    let at_ms = uniform(rng, duration_ms - lasting_ms);
    Fault {
        at_ms,
        lasting_ms,
        kind,
    }
}
