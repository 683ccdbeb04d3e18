//! The second tier: the real driver loop, simulated. Tokio's time is paused and jumps, all runs on one thread, and every
//! adapter misbehaves by a seed. What the pure simulator cannot see is seen here: tasks that are lost or leaked, a
//! shutdown that is missed, results brought to the wrong effect.
//!
//! A failing seed is shown again by `KALENDS_PAUSED_SEED=<seed> cargo test -p kalends --test paused_driver`.
#![allow(clippy::unwrap_used)] // a test ends at the first thing that goes wrong

mod fleet;

use std::collections::BTreeMap;
use std::time::Duration;

use fleet::{Process, USERS, World, user};

/// Seeds of a run of the tests.
const SEEDS: u64 = 200;
/// Each tenth of them runs twice, and must leave the same trace.
const TWICE_EVERY: u64 = 10;
/// How long the faults last, in seconds.
const FAULTS_S: u64 = 15 * 60;
/// Within this after the faults everybody is synced, in seconds: a lease that hung, the next tick, and the spread.
const HEALED_S: u64 = 12 * 60;

fn with_paused_time<F: Future>(run: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap()
        .block_on(run)
}

async fn sleep(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

/// Lets what was aborted end.
async fn settle() {
    tokio::time::sleep(Duration::from_millis(1)).await;
}

async fn one_seed(seed: u64) -> (u64, BTreeMap<&'static str, u64>) {
    let world = World::new(seed);
    let first = Process::start(&world, "first", seed);
    let mut second = Process::start(&world, "second", seed + 1_000_000);
    let mut left_s = FAULTS_S;
    for incarnation in 0..3 {
        let wait_s = world.draw(FAULTS_S / 3);
        sleep(wait_s).await;
        left_s -= wait_s;
        if world.draw(1) == 0 {
            world.shared.lock().unwrap().meet("SIGTERM");
            let deadline_ms = 1 + world.draw(30_000);
            second.shut_down(&world, deadline_ms).await;
            left_s = left_s.saturating_sub(30);
        } else {
            world.shared.lock().unwrap().meet("SIGKILL");
            second.kill().await;
        }
        let name = format!("second-{incarnation}");
        second = Process::start(&world, &name, seed + incarnation);
    }
    sleep(left_s).await;
    world.shared.lock().unwrap().faulty = false;
    let healed_at = world.now();
    sleep(HEALED_S).await;
    {
        let shared = world.shared.lock().unwrap();
        for index in 0..USERS {
            let synced_at = shared.synced_at.get(&user(index)).copied();
            assert!(
                synced_at.is_some_and(|at| at > healed_at),
                "{}: last synced at {synced_at:?}, healed at {healed_at}",
                user(index)
            );
        }
    }
    first.shut_down(&world, 10_000).await;
    second.shut_down(&world, 10_000).await;
    settle().await;
    assert_eq!(world.under_way(), 0, "effects outlived their drivers");
    let shared = world.shared.lock().unwrap();
    (shared.trace, shared.met.clone())
}

#[test]
fn whatever_goes_wrong_the_driver_loses_nothing_and_ends_in_time() {
    let only = std::env::var("KALENDS_PAUSED_SEED").ok();
    let only: Option<u64> = only.map(|seed| seed.parse().expect("a number"));
    let seeds = only.map_or(0..SEEDS, |seed| seed..seed + 1);
    let mut met = BTreeMap::new();
    for seed in seeds {
        let failed = |_| {
            panic!(
                "seed {seed}: KALENDS_PAUSED_SEED={seed} cargo test -p kalends --test paused_driver"
            )
        };
        let run = || with_paused_time(one_seed(seed));
        let (trace, met_here) = std::panic::catch_unwind(run).unwrap_or_else(failed);
        if seed % TWICE_EVERY == 0 {
            assert_eq!(
                with_paused_time(one_seed(seed)).0,
                trace,
                "seed {seed} differs"
            );
        }
        for (what, count) in met_here {
            *met.entry(what).or_insert(0) += count;
        }
    }
    let wanted = [
        "429",
        "410",
        "503",
        "SIGKILL",
        "SIGTERM",
        "graph transient",
        "panic",
        "reply lost",
        "reply never comes",
        "slow",
        "source hangs",
        "store away",
    ];
    for what in wanted {
        assert!(
            only.is_some() || met.contains_key(what),
            "{what} was never met: {met:?}"
        );
    }
}
