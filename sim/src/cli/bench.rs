//! How fast the simulator is, in processor time: the same on a machine that others use, too.
//!
//! Two figures: a standard seed (3 processes, 100 users, 24 hours, faults as drawn), and a sync in a fleet so large that
//! the cache no longer holds it. Both play on one thread; `run` plays as many seeds at a time as there are cores.

use std::process::ExitCode;
use std::time::Instant;

use kalends_core::time::HOUR_MS;
use kalends_sim::plan::Plan;
use kalends_sim::report::Report;
use kalends_sim::world::run as play;
use serde_json::json;

use super::{Bench, scale};

/// Events in each calendar of the large fleet.
const EVENTS_PER_CALENDAR: u32 = 1;
/// What the jobs' limit of the large fleet lets through, in starts a minute for each user: a round of 15 minutes needs a
/// fifteenth.
const STARTS_PER_USER: f64 = 0.2;

/// Processor time of this thread in seconds; where the system does not tell it, the time that passed.
struct Stopwatch {
    begun: Instant,
    cpu_ns: Option<u64>,
}

impl Stopwatch {
    fn start() -> Self {
        Stopwatch {
            begun: Instant::now(),
            cpu_ns: thread_cpu_ns(),
        }
    }

    fn seconds(&self) -> f64 {
        match (self.cpu_ns, thread_cpu_ns()) {
            (Some(begun), Some(now)) => (now - begun) as f64 / 1e9,
            _ => self.begun.elapsed().as_secs_f64(),
        }
    }
}

/// Nanoseconds that this thread has run, as Linux counts them.
fn thread_cpu_ns() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    text.split(' ').next()?.parse().ok()
}

/// The most memory that this process has had, in megabytes, as Linux counts it.
fn peak_mb() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find(|line| line.starts_with("VmHWM:"))?;
    let kilobytes: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kilobytes / 1_000)
}

/// The large fleet: nothing goes wrong, and the limit lets everybody through.
fn large(users: u32, hours: u64) -> Plan {
    let mut plan = Plan::quiet(1);
    plan.size.duration_ms = hours * HOUR_MS;
    plan.size.events_per_calendar = EVENTS_PER_CALENDAR;
    scale(&mut plan, users);
    if let Some(limit) = &mut plan.policy.source.jobs {
        limit.count = ((f64::from(users) * STARTS_PER_USER) as u32).max(limit.count);
    }
    plan
}

fn failed(report: &Report) -> bool {
    if let Some(failed) = &report.failed {
        eprintln!("seed {}: {}", report.seed, super::batch::describe(failed));
    }
    report.failed.is_some()
}

pub(super) fn bench(bench: &Bench) -> ExitCode {
    let watch = Stopwatch::start();
    let (mut seeds, mut syncs, mut events) = (0_u64, 0, 0);
    for seed in bench.seeds.clone() {
        let report = play(&Plan::draw(seed));
        if failed(&report) {
            return ExitCode::FAILURE;
        }
        seeds += 1;
        syncs += report.tally.syncs;
        events += report.tally.events;
    }
    let seed_s = watch.seconds() / seeds.max(1) as f64;
    println!(
        "standard seed: {seed_s:.3} s of processor time ({} syncs, {} events)",
        syncs / seeds.max(1),
        events / seeds.max(1)
    );
    let (begun, watch) = (Instant::now(), Stopwatch::start());
    let report = play(&large(bench.users, bench.hours));
    if failed(&report) {
        return ExitCode::FAILURE;
    }
    let cpu_s = watch.seconds();
    let sync_us = cpu_s * 1e6 / report.tally.syncs.max(1) as f64;
    println!(
        "{} users, {} hours: {sync_us:.1} us of processor time a sync, {} syncs, {cpu_s:.1} s of processor time, {:.1} s, at most {} MB",
        bench.users,
        bench.hours,
        report.tally.syncs,
        begun.elapsed().as_secs_f64(),
        peak_mb().unwrap_or(0)
    );
    if bench.json {
        let line = json!({
            "seed_cpu_s": (seed_s * 1e4).round() / 1e4,
            "sync_cpu_us": (sync_us * 100.0).round() / 100.0,
            "users": bench.users,
            "hours": bench.hours,
            "syncs": report.tally.syncs,
            "peak_mb": peak_mb(),
        });
        println!("{line}");
    }
    ExitCode::SUCCESS
}
