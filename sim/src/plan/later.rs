//! What was added to the draw after the first families: seldom, so that most seeds stay what they were, and each from a
//! sub-stream of its own, so that the rest of a plan stays what it was.

use kalends_core::rng::{KalendsRng, substream, uniform};
use kalends_core::time::{MINUTE_MS, SECOND_MS};

use super::Plan;
use super::draw::{one_in, small, wide};
use super::fault::{Fault, FaultKind, OutageKind};

/// Each of these comes in one seed of so many.
const ONE_SEED_IN: u64 = 8;
/// Calendars of a user who has several, at the most.
const CALENDARS_MAX: u32 = 4;
/// Faults of one kind in one plan, at the most.
const FAULTS_MAX: u64 = 3;
/// Events that the graph refuses, at the most.
const POISON_EVENTS_MAX: u32 = 20;
/// The longest fault, in milliseconds.
const LASTING_MS_MAX: u64 = 120 * MINUTE_MS;

/// Adds to a plan what its seed draws beyond the first families.
pub(super) fn draw(plan: &mut Plan) {
    if let Some(rng) = &mut chosen(plan, "plan/emptied") {
        emptied(plan, rng);
    }
    if let Some(rng) = &mut chosen(plan, "plan/odd-events") {
        content(plan, rng);
    }
    if let Some(rng) = &mut chosen(plan, "plan/sharing") {
        sharing(plan, rng);
    }
    if let Some(rng) = &mut chosen(plan, "plan/together") {
        together(plan, rng);
    }
}

/// The sub-stream, if this seed has what it is for.
fn chosen(plan: &Plan, stream: &str) -> Option<KalendsRng> {
    let mut rng = substream(plan.seed, stream);
    one_in(&mut rng, ONE_SEED_IN).then_some(rng)
}

fn add(plan: &mut Plan, rng: &mut KalendsRng, lasting_ms: u64, kind: FaultKind) {
    let at_ms = uniform(rng, plan.size.duration_ms - lasting_ms);
    plan.faults.push(Fault {
        at_ms,
        lasting_ms,
        kind,
    });
}

/// A store that is emptied hands out larger tokens than before by its clock alone, so that clock must not be wrong.
fn emptied(plan: &mut Plan, rng: &mut KalendsRng) {
    let steps = |fault: &Fault| matches!(fault.kind, FaultKind::StoreClockStep { .. });
    if !plan.faults.iter().any(steps) {
        add(plan, rng, 0, FaultKind::EmptyStore);
    }
}

fn content(plan: &mut Plan, rng: &mut KalendsRng) {
    for _ in 0..=uniform(rng, FAULTS_MAX - 1) {
        let lasting_ms = wide(rng, MINUTE_MS, LASTING_MS_MAX);
        let user = small(rng, 99);
        let kind = if one_in(rng, 2) {
            let events = 1 + small(rng, POISON_EVENTS_MAX - 1);
            FaultKind::PoisonEvents { user, events }
        } else {
            FaultKind::UnreadableEvents { user }
        };
        add(plan, rng, lasting_ms, kind);
    }
}

fn sharing(plan: &mut Plan, rng: &mut KalendsRng) {
    plan.size.calendars_per_user = 2 + small(rng, CALENDARS_MAX - 2);
    for _ in 0..uniform(rng, FAULTS_MAX) {
        let lasting_ms = wide(rng, MINUTE_MS, LASTING_MS_MAX);
        let (user, calendar) = (small(rng, 99), small(rng, CALENDARS_MAX - 2));
        add(
            plan,
            rng,
            lasting_ms,
            FaultKind::UnshareCalendar { user, calendar },
        );
    }
}

/// Two faults that hurt most when they meet, and hardly ever meet by chance.
fn together(plan: &mut Plan, rng: &mut KalendsRng) {
    let process = small(rng, 2);
    let lasting_ms = 3 * MINUTE_MS + uniform(rng, 5 * MINUTE_MS);
    let begin_ms = uniform(rng, plan.size.duration_ms - 2 * lasting_ms);
    let within_ms = 20 * SECOND_MS + uniform(rng, MINUTE_MS);
    let mut both = |first: FaultKind, second: FaultKind| {
        for (at_ms, kind) in [(begin_ms, first), (begin_ms + within_ms, second)] {
            plan.faults.push(Fault {
                at_ms,
                lasting_ms,
                kind,
            });
        }
    };
    if one_in(rng, 2) {
        // A process is told to stop while it cannot reach the store.
        let how = OutageKind::Refusing;
        let deadline_ms = 10 * SECOND_MS;
        both(
            FaultKind::StoreOutage { how },
            FaultKind::Terminate {
                process,
                deadline_ms,
            },
        );
    } else {
        // A process whose leases ran out unheard has writes on their way to a graph that is slow; full passes write
        // whatever they find.
        both(
            FaultKind::ExpireSyncTokens { user: None },
            FaultKind::SyncAll,
        );
        both(
            FaultKind::GraphSlow { max_ms: 90_000 },
            FaultKind::Partition {
                process,
                store: true,
                google: false,
                graph: false,
            },
        );
    }
}
