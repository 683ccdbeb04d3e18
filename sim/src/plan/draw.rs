//! The plan of a seed, by swarm: each family of faults is off or wide, so that seeds differ in kind and not only in
//! degree.
//!
//! Each family draws from a sub-stream of its own. A family that is new, or draws more than before, leaves what the
//! others do in old seeds as it was.

use kalends_core::policy::limit::Limit;
use kalends_core::rng::{KalendsRng, substream, uniform};
use kalends_core::time::{DAY_MS, HOUR_MS, MINUTE_MS, SECOND_MS, Timestamp};

use super::fault::{FAMILIES, Family, Fault, FaultKind, MISHAPS, OutageKind};
use super::later;
use super::{Plan, Span, schedule};

/// Faults of one family in one plan, at the most.
const FAULTS_A_FAMILY_MAX: u64 = 5;
/// The shortest fault, in milliseconds.
const LASTING_MS_MIN: u64 = 500;
/// The longest fault, in milliseconds.
const LASTING_MS_MAX: u64 = 2 * HOUR_MS;
/// The longest time that a replica is behind, in milliseconds.
const FAILOVER_MS_MAX: u64 = 10 * SECOND_MS;

/// Days on which some clock changes: 2026-03-29 and 2026-10-25 in Europe, 2026-03-08 and 2026-11-01 in America.
const CHANGE_DAYS: [(i64, &str); 4] = [
    (1_774_699_200_000, "Europe/Berlin"),
    (1_792_843_200_000, "Europe/Berlin"),
    (1_772_928_000_000, "America/New_York"),
    (1_793_491_200_000, "America/New_York"),
];

impl Plan {
    /// The standard plan of a seed: 3 processes, 100 users, a day, the policies of production, faults by swarm.
    #[must_use]
    pub fn draw(seed: u64) -> Self {
        let mut plan = Plan::quiet(seed);
        let mut climate = substream(seed, "plan/climate");
        plan.climate.changes_a_day = [0, 100, 400, 1_500][below(&mut climate, 4)];
        plan.size.events_per_calendar = [0, 3, 8, 30][below(&mut climate, 4)];
        // A page that is smaller than the calendar makes passes of many pages.
        plan.policy.page_size = [250, 250, 250, 5][below(&mut climate, 4)];
        if one_in(&mut climate, 8) {
            plan.climate.google_quota = Some((20, 60));
        }
        if one_in(&mut climate, 4) {
            // Jobs that take long are those which a pause, a stop or a lost lease finds at work.
            plan.climate.google = Span::new(500, 25_000);
            plan.climate.graph = Span::new(100, 5_000);
        }
        for family in FAMILIES {
            let mut rng = substream(seed, &format!("plan/{}", family.name()));
            if one_in(&mut rng, 2) {
                continue;
            }
            if family == Family::Clock && one_in(&mut rng, 2) {
                let (start_ms, zone) = CHANGE_DAYS[below(&mut rng, CHANGE_DAYS.len())];
                plan.size.start = Timestamp::from_ms(start_ms);
                plan.policy.schedule = schedule("*/15 * * * *", zone);
            }
            for _ in 0..=uniform(&mut rng, FAULTS_A_FAMILY_MAX - 1) {
                let fault = draw(family, &mut rng, plan.size.duration_ms);
                plan.faults.push(fault);
            }
        }
        later::draw(&mut plan);
        plan.faults.sort_by_key(|fault| fault.at_ms);
        plan
    }
}

pub(super) fn below(rng: &mut KalendsRng, bound: usize) -> usize {
    usize::try_from(uniform(rng, bound as u64 - 1)).expect("below the bound")
}

pub(super) fn one_in(rng: &mut KalendsRng, many: u64) -> bool {
    uniform(rng, many - 1) == 0
}

pub(super) fn small(rng: &mut KalendsRng, bound_inclusive: u32) -> u32 {
    u32::try_from(uniform(rng, u64::from(bound_inclusive))).expect("below the bound")
}

/// A number between two others whose logarithm is uniform: short as likely as long.
pub(super) fn wide(rng: &mut KalendsRng, min: u64, max: u64) -> u64 {
    let doublings = (max / min).max(1).ilog2();
    let base = min << uniform(rng, u64::from(doublings));
    (base + uniform(rng, base - 1)).min(max)
}

pub(super) fn ppm(rng: &mut KalendsRng) -> u32 {
    u32::try_from(wide(rng, 500, 300_000)).expect("below a million")
}

fn how(rng: &mut KalendsRng) -> OutageKind {
    [
        OutageKind::Refusing,
        OutageKind::Silent,
        OutageKind::Breaking,
    ][below(rng, 3)]
}

fn draw(family: Family, rng: &mut KalendsRng, duration_ms: u64) -> Fault {
    let mut lasting_ms = wide(rng, LASTING_MS_MIN, LASTING_MS_MAX).min(duration_ms / 2);
    let kind = match family {
        Family::Process => process(rng, &mut lasting_ms),
        Family::Network => network(rng),
        Family::Store => store(rng, &mut lasting_ms),
        Family::Google => google(rng, &mut lasting_ms),
        Family::Graph => graph(rng),
        Family::Clock => clock(rng),
        Family::Load => load(rng, &mut lasting_ms),
        Family::Operator => operator(rng),
        Family::Emptied | Family::Content | Family::Sharing | Family::Push => {
            unreachable!("drawn in a way of their own")
        }
    };
    let at_ms = uniform(rng, duration_ms - lasting_ms);
    Fault {
        at_ms,
        lasting_ms,
        kind,
    }
}

fn process(rng: &mut KalendsRng, lasting_ms: &mut u64) -> FaultKind {
    let process = small(rng, 2);
    match uniform(rng, 4) {
        0 => FaultKind::Crash { process },
        1 => {
            // Around the length of a lease, where it hurts.
            if one_in(rng, 2) {
                *lasting_ms = 25 * SECOND_MS + uniform(rng, 15 * SECOND_MS);
            }
            FaultKind::Pause { process }
        }
        2 => {
            let deadline_ms = [3_000, 10_000, 25_000][below(rng, 3)];
            *lasting_ms = (*lasting_ms).max(deadline_ms + SECOND_MS);
            FaultKind::Terminate {
                process,
                deadline_ms,
            }
        }
        3 => {
            let patterns = ["*/15 * * * *", "*/5 * * * *", "7,37 * * * *", "0 * * * *"];
            let gap_ms = wide(rng, SECOND_MS, 5 * MINUTE_MS);
            *lasting_ms = 3 * gap_ms + 20 * SECOND_MS;
            FaultKind::Deploy {
                schedule: one_in(rng, 2)
                    .then(|| schedule(patterns[below(rng, patterns.len())], "Europe/Berlin")),
                gap_ms,
                deadline_ms: 10_000,
            }
        }
        _ => FaultKind::PoisonUser {
            user: small(rng, 99),
        },
    }
}

fn network(rng: &mut KalendsRng) -> FaultKind {
    match uniform(rng, 4) {
        0 => FaultKind::Loss { ppm: ppm(rng) },
        1 => FaultKind::Delay {
            max_ms: u32::try_from(wide(rng, 10, 15_000)).expect("small"),
        },
        2 => FaultKind::Duplicate { ppm: ppm(rng) },
        3 => FaultKind::WakeLoss { ppm: ppm(rng) * 3 },
        _ => {
            let cut = 1 + uniform(rng, 6);
            FaultKind::Partition {
                process: small(rng, 2),
                store: cut & 1 != 0,
                google: cut & 2 != 0,
                graph: cut & 4 != 0,
            }
        }
    }
}

fn store(rng: &mut KalendsRng, lasting_ms: &mut u64) -> FaultKind {
    match uniform(rng, 4) {
        0 => FaultKind::StoreOutage { how: how(rng) },
        1 => FaultKind::StoreSlow {
            max_ms: u32::try_from(wide(rng, 10, 15_000)).expect("small"),
        },
        2 => FaultKind::ReplyLost { ppm: ppm(rng) },
        3 => {
            *lasting_ms = wide(rng, 20, FAILOVER_MS_MAX);
            FaultKind::Failover
        }
        _ => {
            let by_ms = wide(rng, 100, 2 * HOUR_MS).cast_signed();
            let back = one_in(rng, 2);
            FaultKind::StoreClockStep {
                by_ms: if back { -by_ms } else { by_ms },
            }
        }
    }
}

fn google(rng: &mut KalendsRng, lasting_ms: &mut u64) -> FaultKind {
    match uniform(rng, 7) {
        0 => FaultKind::GoogleOutage { how: how(rng) },
        1 => FaultKind::GoogleSlow {
            max_ms: u32::try_from(wide(rng, 500, 90_000)).expect("small"),
        },
        2 => {
            let reasons = [
                "rateLimitExceeded",
                "userRateLimitExceeded",
                "rateLimitExceeded",
                "dailyLimitExceeded",
            ];
            FaultKind::GoogleLimited {
                status: [403, 429][below(rng, 2)],
                reason: reasons[below(rng, reasons.len())].to_owned(),
                retry_after_s: one_in(rng, 2)
                    .then(|| u32::try_from(wide(rng, 1, 600)).expect("small")),
                as_date: one_in(rng, 2),
            }
        }
        3 => FaultKind::RevokeGrant {
            user: small(rng, 99),
        },
        4 => {
            *lasting_ms = 0;
            FaultKind::ExpireSyncTokens {
                user: one_in(rng, 2).then(|| small(rng, 99)),
            }
        }
        _ => FaultKind::GoogleMishap {
            mishap: MISHAPS[below(rng, MISHAPS.len())],
            ppm: ppm(rng),
        },
    }
}

fn graph(rng: &mut KalendsRng) -> FaultKind {
    match uniform(rng, 5) {
        0 => FaultKind::GraphOutage { how: how(rng) },
        1 => FaultKind::GraphSlow {
            max_ms: u32::try_from(wide(rng, 100, 90_000)).expect("small"),
        },
        2 => FaultKind::GraphTransient { ppm: ppm(rng) },
        3 => FaultKind::GraphReplyLost { ppm: ppm(rng) },
        4 => FaultKind::GraphRejects {
            user: small(rng, 99),
        },
        _ => FaultKind::GraphMisconfigured,
    }
}

fn clock(rng: &mut KalendsRng) -> FaultKind {
    let process = small(rng, 2);
    match uniform(rng, 3) {
        0 => {
            let by_ms = wide(rng, 100, DAY_MS).cast_signed();
            let back = one_in(rng, 2);
            FaultKind::ClockSkew {
                process,
                by_ms: if back { -by_ms } else { by_ms },
            }
        }
        1 => {
            let drift_ppm = i32::try_from(wide(rng, 10, 5_000)).expect("small");
            let slow = one_in(rng, 2);
            FaultKind::ClockDrift {
                process,
                drift_ppm: if slow { -drift_ppm } else { drift_ppm },
            }
        }
        2 => FaultKind::ClockStep {
            process,
            by_ms: wide(rng, 100, 3 * HOUR_MS),
        },
        _ => FaultKind::ClockFreeze { process },
    }
}

fn load(rng: &mut KalendsRng, lasting_ms: &mut u64) -> FaultKind {
    match uniform(rng, 3) {
        0 => {
            *lasting_ms = 0;
            FaultKind::EnrolWave {
                percent: 5 + small(rng, 90),
            }
        }
        1 => {
            *lasting_ms = (*lasting_ms).min(20 * MINUTE_MS);
            FaultKind::Flood {
                user: small(rng, 99),
                every_ms: wide(rng, 200, 60_000),
            }
        }
        2 => {
            *lasting_ms = 0;
            FaultKind::SyncAll
        }
        _ => {
            *lasting_ms = 0;
            FaultKind::HugeCalendar {
                user: small(rng, 99),
                events: 100 + small(rng, 500),
            }
        }
    }
}

fn operator(rng: &mut KalendsRng) -> FaultKind {
    match uniform(rng, 3) {
        0 => FaultKind::PauseSource,
        1 => {
            let window_ms = [MINUTE_MS, MINUTE_MS, 10 * SECOND_MS, 5 * MINUTE_MS][below(rng, 4)];
            let a_minute = 8 + uniform(rng, 40);
            let count = (a_minute * window_ms).div_ceil(MINUTE_MS);
            let count = u32::try_from(count).expect("small");
            FaultKind::SetLimit {
                limit: Some(Limit { count, window_ms }),
            }
        }
        2 => {
            let patterns = ["*/15 * * * *", "*/10 * * * *", "7,37 * * * *", "30 2 * * *"];
            FaultKind::ChangeSchedule {
                schedule: schedule(patterns[below(rng, 3)], "Europe/Berlin"),
            }
        }
        _ => FaultKind::RetryFailed,
    }
}
