//! `kalends-peer --redis URL [--jobs N]`: what `bench -- queue` measures, through the crate `bullmq-official`, as one JSON
//! object. `scripts/bench-queue` runs both in turn and prints the ratios.
//!
//! Like there: the data names a user and a tick, a job does nothing, a hundred completed jobs are kept.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bullmq::types::RemoveOnFinish;
use bullmq::worker::{CancellationToken, ProcessorFn};
use bullmq::{BulkJob, Job, Queue, QueueOptions, Worker, WorkerOptions};
use serde_json::{Value, json};

const BULK: usize = 1_000;
const SINGLE_JOBS: usize = 5_000;
const CALLERS: usize = 50;
const CALLERS_JOBS: usize = 20_000;
const PATIENCE: Duration = Duration::from_secs(600);
const KEEP_COMPLETED: usize = 100;

type Failure = Box<dyn std::error::Error>;

fn data(index: usize) -> Value {
    json!({ "userId": format!("user-{index:07}@example.com"), "nominalAt": 1_767_225_600_000_u64 })
}

struct Peer {
    url: String,
    name: String,
    queue: Queue,
    jobs: usize,
}

impl Peer {
    async fn enqueue_all(&self) -> Result<f64, Failure> {
        let begun = Instant::now();
        let mut next = 0;
        while next < self.jobs {
            let last = (next + BULK).min(self.jobs);
            let bulk = (next..last).map(|index| BulkJob::new("sync", data(index)));
            self.queue.add_bulk(bulk.collect()).await?;
            next = last;
        }
        Ok(self.jobs as f64 / begun.elapsed().as_secs_f64())
    }

    async fn enqueue_singly(&self) -> Result<f64, Failure> {
        let begun = Instant::now();
        for index in 0..SINGLE_JOBS {
            self.queue.add("sync", data(index)).await?;
        }
        Ok(SINGLE_JOBS as f64 / begun.elapsed().as_secs_f64())
    }

    /// Many callers at once, each one job after another. They share the queue and its connection.
    async fn enqueue_by_callers(&self) -> Result<f64, Failure> {
        let jobs = self.jobs.min(CALLERS_JOBS);
        let mut callers = tokio::task::JoinSet::new();
        let begun = Instant::now();
        for caller in 0..CALLERS {
            let queue = self.queue.clone();
            callers.spawn(async move {
                for index in (caller..jobs).step_by(CALLERS) {
                    queue.add("sync", data(index)).await?;
                }
                Ok::<(), bullmq::Error>(())
            });
        }
        while let Some(ended) = callers.join_next().await {
            ended??;
        }
        Ok(jobs as f64 / begun.elapsed().as_secs_f64())
    }

    async fn drain(&self, concurrency: usize, jobs: u64) -> Result<f64, Failure> {
        let done = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&done);
        let processor: ProcessorFn = Arc::new(move |_job: Job, _token: CancellationToken| {
            let count = Arc::clone(&count);
            Box::pin(async move {
                count.fetch_add(1, Ordering::Relaxed);
                Ok(Value::Null)
            })
        });
        let mut options = WorkerOptions::default();
        options.connection.url.clone_from(&self.url);
        options.concurrency = concurrency;
        options.remove_on_complete = Some(RemoveOnFinish::Count(KEEP_COMPLETED as _));
        let begun = Instant::now();
        let worker = Worker::with_options(&self.name, processor, options).await?;
        while done.load(Ordering::Relaxed) < jobs {
            if begun.elapsed() > PATIENCE {
                return Err(format!("{jobs} jobs did not end in {PATIENCE:?}").into());
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let per_s = jobs as f64 / begun.elapsed().as_secs_f64();
        worker.close(5_000).await?;
        Ok(per_s)
    }
}

async fn used_memory(url: &str) -> Result<u64, Failure> {
    let mut connection = redis::Client::open(url)?
        .get_multiplexed_async_connection()
        .await?;
    let text: String = redis::cmd("INFO")
        .arg("memory")
        .query_async(&mut connection)
        .await?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("used_memory:"));
    Ok(line.ok_or("INFO has no used_memory")?.trim().parse()?)
}

async fn measure(url: &str, jobs: usize) -> Result<Value, Failure> {
    let name = format!("kalends-peer-{}", std::process::id());
    let mut options = QueueOptions::default();
    options.connection.url = url.to_owned();
    let queue = Queue::with_options(&name, options).await?;
    let peer = Peer {
        url: url.to_owned(),
        name,
        queue,
        jobs,
    };
    let empty = used_memory(url).await?;
    let enqueue = peer.enqueue_all().await?;
    let bytes = used_memory(url).await?.saturating_sub(empty) as f64 / jobs as f64;
    let drain_50 = peer.drain(50, jobs as u64).await?;
    peer.enqueue_all().await?;
    let drain_3 = peer.drain(3, jobs as u64).await?;
    let single = peer.enqueue_singly().await?;
    let callers = peer.enqueue_by_callers().await?;
    peer.queue.obliterate(true, BULK).await?;
    Ok(json!({
        "enqueue_per_s": enqueue,
        "bytes_per_waiting_job": bytes,
        "drain_c50_per_s": drain_50,
        "drain_c3_per_s": drain_3,
        "enqueue_single_per_s": single,
        "enqueue_50_callers_per_s": callers,
    }))
}

fn main() -> Result<(), Failure> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let after = |flag: &str| {
        let place = words.iter().position(|word| word == flag)?;
        words.get(place + 1).cloned()
    };
    let url =
        after("--redis").ok_or("usage: kalends-peer --redis URL [--jobs N] [--one-thread]")?;
    let jobs = after("--jobs").map_or(Ok(100_000), |number| number.parse())?;
    // With two cores shared with the server, its own default (a thread a core) and one thread are both worth a try.
    let mut runtime = if words.iter().any(|word| word == "--one-thread") {
        tokio::runtime::Builder::new_current_thread()
    } else {
        tokio::runtime::Builder::new_multi_thread()
    };
    let measured = runtime
        .enable_all()
        .build()?
        .block_on(measure(&url, jobs))?;
    println!("{measured}");
    Ok(())
}
