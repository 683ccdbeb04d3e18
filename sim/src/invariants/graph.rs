//! G7: an older state of an event never replaces a newer one in the graph, and an older lease writes nothing.

use kalends_core::graph::{GraphReply, GraphWrite};

use super::{Invariant, Verdict, Violation};
use crate::graph::UserGraph;

/// What stood in the graph where a write goes.
#[derive(Clone, Debug)]
pub struct Before {
    fence: u64,
    fence_of_write: u64,
    /// Event, its version, and the version of its deletion if it is to be deleted.
    events: Vec<(String, i64, Option<i64>)>,
}

impl Before {
    /// Looks at the graph before `write`.
    #[must_use]
    pub fn of(graph: &UserGraph, write: &GraphWrite) -> Self {
        let mut events = Vec::new();
        if let GraphWrite::Apply {
            calendar,
            upserts,
            deletions,
            ..
        } = write
        {
            let version = |id: &str| graph.version(&calendar.id, id);
            let upserts = upserts.iter().map(|row| (&row.id, None));
            let deletions = deletions
                .iter()
                .map(|deletion| (&deletion.id, Some(deletion.version)));
            events = deletions
                .chain(upserts)
                .filter_map(|(id, deletion)| Some((id.clone(), version(id)?, deletion)))
                .collect();
        }
        Before {
            fence: graph.fence(),
            fence_of_write: write.fence().0,
            events,
        }
    }

    /// Looks again after `write` was answered with `reply`; `calendar` is the one it wrote to.
    ///
    /// # Errors
    /// If something newer was replaced, or an older lease wrote.
    pub fn check(
        &self,
        graph: &UserGraph,
        calendar: &kalends_core::id::CalendarId,
        reply: &GraphReply,
    ) -> Verdict {
        let broken = |detail: String| Err(Violation::new(Invariant::NewerStays, detail));
        if matches!(reply, GraphReply::Written(_)) && self.fence_of_write < self.fence {
            return broken(format!(
                "a write under token {} was made after one under {}",
                self.fence_of_write, self.fence
            ));
        }
        for (id, version, deletion) in &self.events {
            let after = graph.version(calendar, id);
            let stays = deletion.is_some_and(|deletion| deletion < *version);
            if after.is_some_and(|after| after < *version) || (after.is_none() && stays) {
                return broken(format!(
                    "event {id} was of version {version} and is {after:?} now"
                ));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kalends_core::graph::{CalendarRow, EventDeletion, GraphCounts};
    use kalends_core::id::{CalendarId, UserId};
    use kalends_core::queue::command::LeaseToken;

    #[test]
    fn a_write_of_an_old_lease_that_is_made_is_a_violation() {
        let calendar = CalendarId::new("primary").unwrap();
        let write = |fence| GraphWrite::Apply {
            user: UserId::new("ada").unwrap(),
            fence: LeaseToken(fence),
            calendar: CalendarRow {
                id: calendar.clone(),
                name: None,
                time_zone: None,
                access_role: None,
            },
            generation: 1,
            upserts: Vec::new(),
            deletions: vec![EventDeletion {
                id: "e".to_owned(),
                version: 5,
            }],
        };
        let mut graph = UserGraph::default();
        graph.write(write(7));
        let before = Before::of(&graph, &write(6));
        let written = GraphReply::Written(GraphCounts::default());
        assert!(before.check(&graph, &calendar, &written).is_err());
        assert!(before.check(&graph, &calendar, &GraphReply::Fenced).is_ok());
        let before = Before {
            fence: 7,
            fence_of_write: 7,
            events: vec![("e".to_owned(), 9, Some(5))],
        };
        assert!(
            before.check(&graph, &calendar, &written).is_err(),
            "a newer event was deleted"
        );
    }
}
