//! What goes wrong: a request that fails, a token that is refused, a batch that the graph will not take, pages that do
//! not end.

use super::{FullPass, State, SyncMachine};
use crate::failure::{Failure, FailureKind};
use crate::google::page::PageEnd;
use crate::graph::GraphReply;
use crate::mutant::{Mutant, planted};
use crate::sync::cursor::Pass;
use crate::sync::{End, PAGES_A_PASS_MAX, Step, TOKEN_BYTES_MAX, page};
use crate::time::Timestamp;

impl SyncMachine {
    pub(super) fn fetch_failed(&mut self, now: Timestamp, failure: Failure) -> Step {
        match failure.kind {
            FailureKind::Gone { .. } if planted(Mutant::ExpiredTokenLoops) => {
                self.end(End::Failed(Failure::transient(failure.detail)))
            }
            FailureKind::Gone { malformed } => self.token_refused(now, malformed, &failure),
            FailureKind::CalendarUnavailable => {
                self.tally.unavailable += 1;
                let cursor = self.current_mut();
                cursor.pass = None;
                cursor.unavailable_since.get_or_insert(now);
                self.plan.pop_front();
                self.begin_calendar(now)
            }
            FailureKind::Permanent => self.calendar_failed(now, failure),
            _ => self.end(End::Failed(failure)),
        }
    }

    fn token_refused(&mut self, now: Timestamp, malformed: bool, failure: &Failure) -> Step {
        let calendar = self.plan.front().expect("a calendar is under way").clone();
        let pass = self.current().1.pass.as_ref().expect("a pass is under way");
        if pass.page_token.is_some() && !self.begun_anew.contains(&calendar) {
            // Page tokens grow old sooner than sync tokens: the pass begins anew before anything is given up.
            let incremental = pass.full_generation.is_none();
            self.begun_anew.insert(calendar);
            if incremental {
                self.current_mut().pass = Some(Pass::incremental());
                self.state = State::Fetching;
                return self.request();
            }
            return self.begin_full_pass(now, FullPass::Planned);
        }
        self.tally.malformed_tokens += u64::from(malformed);
        if self.resynced.insert(calendar) {
            return self.begin_full_pass(now, FullPass::Lost);
        }
        self.calendar_failed(
            now,
            Failure::permanent(format!(
                "Google refused the token again, after a full resync in the same job: {failure}"
            )),
        )
    }

    /// The planted bug [`Mutant::CursorBeforeWrite`]: saves the cursor as it will be when the page is written.
    pub(super) fn save_ahead(&mut self) -> Step {
        let State::Writing { end } = &self.state else {
            panic!("a page is at hand");
        };
        let end = end.clone();
        let kept = self.cursor.clone();
        let cursor = self.current_mut();
        match end {
            PageEnd::Next(token) => {
                if let Some(pass) = &mut cursor.pass {
                    pass.page_token = Some(token);
                }
            }
            PageEnd::Done { sync_token } => {
                cursor.pass = None;
                cursor.sync_token = sync_token;
            }
        }
        let progress = self.progress();
        self.cursor = kept;
        Step::Checkpoint {
            progress,
            requests: 0,
        }
    }

    pub(super) fn written(&mut self, now: Timestamp, result: Result<GraphReply, Failure>) -> Step {
        let failure = match result {
            Ok(GraphReply::Fenced) => return self.end(End::LeaseLost),
            Ok(GraphReply::Written(counts)) => {
                self.tally.upserted += counts.upserted;
                self.tally.deleted += counts.deleted;
                return match std::mem::replace(&mut self.state, State::Ended) {
                    State::Removing { calendar } => {
                        self.calendar_removed(&calendar);
                        self.next_removal(now)
                    }
                    State::Writing { end } => {
                        self.writes.pop_front();
                        self.state = State::Writing { end };
                        self.next_write(now)
                    }
                    State::Sweeping { sync_token } => self.calendar_done(now, sync_token),
                    state => panic!("a write was answered in state {state:?}"),
                };
            }
            Err(failure) => failure,
        };
        let refused = matches!(failure.kind, FailureKind::TooLarge | FailureKind::Rejected);
        if !refused || !matches!(self.state, State::Writing { .. }) {
            return self.end(End::Failed(failure));
        }
        let write = self
            .writes
            .pop_front()
            .expect("the refused write is still at hand");
        match page::split(write) {
            page::Split::Halves(halves) => {
                let [first, second] = *halves;
                self.writes.push_front(second);
                self.writes.push_front(first);
                self.next_write(now)
            }
            page::Split::One {
                id,
                is_upsert,
                empty,
            } => {
                self.tally.quarantined += 1;
                let room = self.cursor.quarantine_room();
                let reason = format!("the graph refused it: {failure}");
                self.current_mut().quarantine(&id, &reason, room);
                if !std::mem::replace(&mut self.graph_is_willing, true) {
                    // Is it this event, or would the graph refuse anything? A batch without events tells.
                    self.writes.push_front(*empty);
                }
                if is_upsert {
                    self.spare([id]);
                }
                self.next_write(now)
            }
            page::Split::None => self.end(End::Failed(failure)),
        }
    }
}

/// Whether what comes after a page can be: a traversal ends with a token, and does not go in circles.
pub(super) fn check_end(end: &PageEnd, pass: Option<&Pass>) -> Result<(), Failure> {
    let pass = pass.expect("a pass is under way while fetching");
    let token = match end {
        PageEnd::Done { sync_token: None } => {
            return Err(Failure::transient(
                "Google ended the pages without a sync token; the old one is kept",
            ));
        }
        PageEnd::Next(token) if pass.page_token.as_ref() == Some(token) => {
            return Err(Failure::transient(
                "Google names the same page as the next one again",
            ));
        }
        PageEnd::Next(_) if pass.pages >= PAGES_A_PASS_MAX => {
            return Err(Failure::permanent(format!(
                "the pages did not end after {PAGES_A_PASS_MAX}; a larger google.page_size may help"
            )));
        }
        PageEnd::Next(token)
        | PageEnd::Done {
            sync_token: Some(token),
        } => token,
    };
    if token.len() > TOKEN_BYTES_MAX {
        let bytes = token.len();
        return Err(Failure::transient(format!(
            "Google gave a token of {bytes} bytes; at most {TOKEN_BYTES_MAX} are kept"
        )));
    }
    Ok(())
}
