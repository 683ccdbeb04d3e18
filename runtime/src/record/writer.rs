//! The writer thread: takes turns, makes lines of them, writes them.
//!
//! A sender that has to wake its receiver pays for a system call, with each turn. So the thread does not wait to be woken
//! while there is work: it takes all there is and naps. Only when nothing has come for a while does it wait.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::Duration;

use kalends_sim::incident::{End, Recording, Said, Turn};

use super::files::Files;

/// How long the thread naps when it has taken all there was.
const NAP: Duration = Duration::from_millis(10);
/// After so many naps for nothing it waits to be woken.
const NAPS_MAX: u32 = 20;

pub(super) struct Writer {
    pub(super) recording: Recording,
    pub(super) files: Files,
    pub(super) turns: Receiver<(usize, Turn)>,
    pub(super) waiting_bytes: Arc<AtomicUsize>,
    pub(super) gap: Arc<AtomicBool>,
}

/// Whether it goes on.
enum Next {
    GoesOn,
    Over,
}

impl Writer {
    pub(super) fn run(mut self) {
        let ended = catch_unwind(AssertUnwindSafe(|| self.write_all()));
        match ended {
            Ok(Ok(())) => {}
            Ok(Err(detail)) => {
                tracing::error!("recording ends, the node goes on unrecorded: {detail}");
            }
            Err(_) => {
                tracing::error!(
                    "recording ends by a panic, please report it; the node goes on unrecorded"
                );
            }
        }
    }

    fn write_all(&mut self) -> Result<(), String> {
        let mut finished = false;
        let mut naps = 0;
        loop {
            let received = if naps < NAPS_MAX {
                self.turns.try_recv()
            } else {
                self.turns.recv().map_err(|_| TryRecvError::Disconnected)
            };
            match received {
                Ok((weight_bytes, turn)) => {
                    naps = 0;
                    finished = turn.said.last().is_some_and(Said::is_the_end);
                    let next = self.write(turn)?;
                    self.waiting_bytes
                        .fetch_sub(weight_bytes, Ordering::Relaxed);
                    if let Next::Over = next {
                        return Ok(());
                    }
                }
                Err(TryRecvError::Empty) => {
                    self.files.flush()?;
                    naps += 1;
                    std::thread::sleep(NAP);
                }
                Err(TryRecvError::Disconnected) => break,
            }
        }
        let end = if self.gap.load(Ordering::Acquire) {
            End::Gap
        } else if finished {
            End::Finished
        } else {
            End::Abandoned
        };
        self.end(end)
    }

    fn write(&mut self, turn: Turn) -> Result<Next, String> {
        let (line, agrees) = self.recording.turn(turn);
        self.files.write(line)?;
        if let Err(error) = agrees {
            tracing::error!("recording ends, please report it: {error}");
            self.end(End::Differs)?;
            return Ok(Next::Over);
        }
        if self.files.is_full()
            && let Some((last, head)) = self.recording.rotate()
        {
            self.files.rotate(&last, &head)?;
        }
        Ok(Next::GoesOn)
    }

    fn end(&mut self, end: End) -> Result<(), String> {
        let line = self.recording.end(end);
        self.files.write(line)?;
        self.files.flush()
    }
}
