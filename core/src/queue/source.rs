//! Sources: made known, set, and set otherwise by an operator.

use super::command::{Refusal, Reply};
use super::rows::SourceRow;
use super::state::{JobKey, SourceSettings};
use super::{Queue, SOURCES_MAX};
use crate::id::SourceName;
use crate::mutant::{Mutant, planted};
use crate::policy::limit::Limit;

impl Queue {
    pub(super) fn define_source(
        &mut self,
        source: &SourceName,
        settings: SourceSettings,
    ) -> Result<Reply, Refusal> {
        let Some(row) = self.sources.get(source) else {
            if self.sources.len() >= SOURCES_MAX {
                return Err(Refusal::TooLarge {
                    what: format!("there are {SOURCES_MAX} sources already"),
                });
            }
            let row = SourceRow {
                defined: settings.clone(),
                settings,
                paused: None,
                gate_until: None,
                gate_reason: None,
                limited_in_a_row: 0,
            };
            self.sources.insert(source, row);
            self.index.sources.entry(source.clone()).or_default();
            return Ok(Reply::Done);
        };
        if row.defined == settings {
            return Ok(Reply::Done);
        }
        if row.settings.requests_user != settings.requests_user {
            self.look_again(source);
        }
        self.sources.edit(source, |row| {
            row.defined = settings.clone();
            row.settings = settings;
        });
        self.trim_history(&Some(source.clone()));
        Ok(Reply::Done)
    }

    /// Jobs that wait for their user's requests are looked at again: the limit they met has changed.
    fn look_again(&mut self, source: &SourceName) {
        let held: Vec<JobKey> = self
            .jobs
            .iter()
            .filter(|(key, row)| {
                row.held_until.is_some()
                    && matches!(key, JobKey::Sync { source: of, .. } if of == source)
            })
            .map(|(key, _)| key.clone())
            .collect();
        for key in held {
            self.edit_job(&key, |row| row.held_until = None);
        }
    }

    pub(super) fn set_limit(
        &mut self,
        source: &SourceName,
        jobs: Option<Limit>,
    ) -> Result<Reply, Refusal> {
        self.check_source(source)?;
        let is_mid_window = || {
            self.flows
                .get(source)
                .is_some_and(|flow| flow.starts.buckets().len() > 0)
        };
        if planted(Mutant::LimitChangeIgnored) && is_mid_window() {
            return Ok(Reply::Done);
        }
        if self.settings(source).jobs != jobs {
            self.sources.edit(source, |row| row.settings.jobs = jobs);
        }
        Ok(Reply::Done)
    }
}
