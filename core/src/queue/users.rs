//! Users: who is synced, who is due, who is parked.

use std::ops::Bound;

use super::Queue;
use super::command::{Refusal, Reply};
use super::records::sync_key;
use super::rows::{UserKey, UserRow};
use super::state::{ParkReason, UserState};
use crate::id::{SourceName, UserId};
use crate::time::Timestamp;

impl Queue {
    pub(super) fn enroll(
        &mut self,
        now: Timestamp,
        source: &SourceName,
        users: Vec<UserId>,
        due_at: Timestamp,
    ) -> Result<Reply, Refusal> {
        self.check_source(source)?;
        let mut enrolled = Vec::new();
        for user in users {
            let key = (source.clone(), user);
            match self.users.get(&key) {
                None => {
                    let state = UserState {
                        enrolled_at: now,
                        due_at,
                        parked: None,
                        grant: None,
                        cursor: None,
                        last_started_at: None,
                        last_success_at: None,
                        last_outcome: None,
                        last_error: None,
                        gate_until: None,
                        limited_in_a_row: 0,
                    };
                    let row = UserRow {
                        state,
                        finished: None,
                    };
                    self.insert_user(&key, row);
                }
                Some(_) => continue,
            }
            enrolled.push(key.1);
        }
        Ok(Reply::Enrolled {
            source: source.clone(),
            users: enrolled,
        })
    }

    pub(super) fn connect(
        &mut self,
        source: &SourceName,
        grants: Vec<(UserId, u64)>,
        due_at: Timestamp,
        force: bool,
    ) -> Result<Reply, Refusal> {
        self.check_source(source)?;
        let mut unparked = Vec::new();
        for (user, grant) in grants {
            let key = (source.clone(), user);
            let Some(row) = self.users.get(&key) else {
                continue;
            };
            let state = &row.state;
            let another = state.grant != Some(grant);
            let unpark = match state.parked {
                Some(ParkReason::NeedsReauth) => force || another,
                Some(ParkReason::Operator) => force,
                None => false,
            };
            if another {
                self.end_old_grant(&key);
            }
            if another || unpark {
                self.edit_user(&key, |row| {
                    row.state.grant = Some(grant);
                    if unpark {
                        row.state.parked = None;
                        row.state.due_at = due_at;
                    }
                });
            }
            if unpark {
                unparked.push(key.1);
            }
        }
        Ok(Reply::Enrolled {
            source: source.clone(),
            users: unparked,
        })
    }

    /// What runs under the old grant goes back to the queue: that the old one is refused must not park the user, who has
    /// just given a new one.
    fn end_old_grant(&mut self, user: &UserKey) {
        let key = sync_key(user);
        let job = self.jobs.get(&key);
        if job.is_some_and(|job| job.active.is_some()) {
            self.hand_back(&key, None);
        }
    }

    pub(super) fn unenroll(
        &mut self,
        source: &SourceName,
        users: Vec<UserId>,
    ) -> Result<Reply, Refusal> {
        let mut count = 0;
        for user in users {
            count += u64::from(self.remove_user(&(source.clone(), user)));
        }
        Ok(Reply::Count { count })
    }

    pub(super) fn due_users(
        &self,
        source: &SourceName,
        due_by: Timestamp,
        after: Option<(Timestamp, UserId)>,
        limit: u32,
    ) -> Result<Reply, Refusal> {
        let Some(index) = self.index.sources.get(source) else {
            return Ok(Reply::DueUsers {
                users: Vec::new(),
                due_total: after.is_none().then_some(0),
            });
        };
        let is_due = |entry: &&(Timestamp, UserId)| entry.0 <= due_by;
        let count = || index.due.iter().take_while(is_due).count() as u64;
        let due_total = after.is_none().then(count);
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        let page = index.due.range((start, Bound::Unbounded));
        Ok(Reply::DueUsers {
            users: page
                .take_while(is_due)
                .take(limit as usize)
                .cloned()
                .collect(),
            due_total,
        })
    }

    pub(super) fn user(&self, source: SourceName, user: UserId) -> Reply {
        let row = self.users.get(&(source, user));
        Reply::User {
            state: row.map(|row| row.state.clone()),
        }
    }

    pub(super) fn list_users(
        &self,
        source: SourceName,
        after: Option<UserId>,
        limit: u32,
    ) -> Result<Reply, Refusal> {
        let start: Bound<UserKey> = match after {
            Some(user) => Bound::Excluded((source.clone(), user)),
            None => Bound::Included((source.clone(), first_name())),
        };
        let rows = self.users.range((start, Bound::Unbounded));
        let users = rows
            .take_while(|((of, _), _)| *of == source)
            .take(limit as usize)
            .map(|((_, user), row)| (user.clone(), row.state.clone()))
            .collect();
        Ok(Reply::Users { users })
    }
}

/// No name sorts before this one: a name is not empty, and no character below the blank may stand in it.
fn first_name() -> UserId {
    UserId::new(" ").expect("a blank is a name")
}
