//! `bench -- queue --redis URL [--jobs N] [--only NAME,...] [--json]`: how fast the queue in Redis is, through the real
//! adapter, node and driver, with jobs that do nothing.
//!
//! `--only` names the figures that are wanted, so that a run can be short; a wrong name is answered with all there are.
//! Scripts that took longer than 5 ms are counted in every run: the server's `SLOWLOG` is the witness. As many scripts that
//! only count, of the same average length, are its control. (The server's settings are changed for the run, so it should
//! be one for benches.)
//!
//! It uses a prefix of its own and deletes its keys at the end. The figures are those of one run on one machine: compare
//! them with another queue's in the same run, not with those of another day.

mod fan_out;
mod figures;
mod queue;
mod slow;

use std::process::ExitCode;

use figures::Wanted;
use queue::Bench;
use slow::SlowLog;

const USAGE: &str = "usage: bench queue --redis URL [--jobs N] [--only NAME,...] [--json]";

async fn run(url: &str, jobs: usize, wanted: &Wanted, json: bool) -> Result<(), String> {
    let bench = Bench::new(url, jobs).await?;
    let slow = SlowLog::begin(bench.side()).await;
    let slow = slow.map_err(|error| error.to_string())?;
    let measured = figures::measure(&bench, wanted).await;
    let forgotten = bench.forget().await;
    let slow = slow.end().await.map_err(|error| error.to_string())?;
    let mut figures = measured?;
    forgotten?;
    figures.insert("scripts_over_5_ms", slow.scripts);
    figures.insert("slowest_script_ms", slow.slowest_ms);
    figures.insert("average_script_ms", slow.average_ms);
    figures.insert("control_over_5_ms", slow.controls);
    figures.insert("slowest_control_ms", slow.slowest_control_ms);
    figures.insert("average_control_ms", slow.average_control_ms);
    if json {
        let text = serde_json::to_string(&figures).map_err(|error| error.to_string())?;
        println!("{text}");
    } else {
        for (name, figure) in figures {
            println!("{name:>24} {figure:>14.2}");
        }
    }
    Ok(())
}

fn main() -> ExitCode {
    let (mut url, mut jobs, mut json, mut what) = (None, 100_000, false, None);
    let (mut is_fan_out, mut prefix) = (false, None);
    let mut wanted = Wanted::default();
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--redis" => url = words.next(),
            "--jobs" => match words.next().and_then(|number| number.parse().ok()) {
                Some(number) if number > 0 => jobs = number,
                _ => what = Some("a number above 0 goes with --jobs".to_owned()),
            },
            "--only" => match Wanted::only(&words.next().unwrap_or_default()) {
                Ok(only) => wanted = only,
                Err(error) => what = Some(error),
            },
            "--json" => json = true,
            "queue" => {}
            // Only this program calls itself so.
            fan_out::FAN_OUT => is_fan_out = true,
            "--prefix" => prefix = words.next(),
            other => what = Some(format!("{other} is not known")),
        }
    }
    let (Some(url), None) = (url, &what) else {
        eprintln!(
            "{}; {USAGE}",
            what.unwrap_or("--redis is missing".to_owned())
        );
        return ExitCode::from(2);
    };
    // One thread: what is measured hops between tasks all the time, and a hop between threads costs more than a script.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime can be built");
    let ended = match prefix {
        Some(prefix) if is_fan_out => runtime.block_on(fan_out::node(&url, &prefix)),
        _ => runtime.block_on(run(&url, jobs, &wanted, json)),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}
