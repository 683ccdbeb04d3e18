//! How a job ended, as the short text under which Redis keeps it: with the user and in the history.

use kalends_core::queue::command::CommitOutcome;

use super::wire::Unreadable;

pub(super) fn to_text(outcome: &CommitOutcome) -> String {
    match outcome {
        CommitOutcome::Synced {
            upserted,
            deleted,
            quarantined,
            requests,
            full,
        } => {
            let kind = if *full { "full" } else { "sync" };
            format!("{kind} {upserted} {deleted} {quarantined} {requests}")
        }
        CommitOutcome::Skipped { note } => format!("skip {note}"),
        CommitOutcome::FannedOut { users } => format!("fan {users}"),
    }
}

pub(super) fn from_text(text: &str) -> Result<CommitOutcome, Unreadable> {
    const BAD: Unreadable = Unreadable("an outcome is none");
    let (kind, rest) = text.split_once(' ').ok_or(BAD)?;
    let number = |text: &str| text.parse::<u64>().map_err(|_| BAD);
    match kind {
        "skip" => Ok(CommitOutcome::Skipped {
            note: rest.to_owned(),
        }),
        "fan" => Ok(CommitOutcome::FannedOut {
            users: number(rest)?,
        }),
        "full" | "sync" => {
            let counts: Vec<&str> = rest.split(' ').collect();
            let [upserted, deleted, quarantined, requests] =
                <[&str; 4]>::try_from(counts).map_err(|_| BAD)?;
            Ok(CommitOutcome::Synced {
                upserted: number(upserted)?,
                deleted: number(deleted)?,
                quarantined: number(quarantined)?,
                requests: number(requests)?,
                full: kind == "full",
            })
        }
        _ => Err(BAD),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_outcome_goes_there_and_back() {
        let synced = |full| CommitOutcome::Synced {
            upserted: 250,
            deleted: 1,
            quarantined: u64::MAX,
            requests: 3,
            full,
        };
        let note = "no graph: ask your operator".to_owned();
        for outcome in [
            synced(true),
            synced(false),
            CommitOutcome::Skipped { note },
            CommitOutcome::FannedOut { users: 7 },
        ] {
            assert_eq!(from_text(&to_text(&outcome)), Ok(outcome));
        }
        assert!(from_text("sync 1 2").is_err());
        assert!(from_text("").is_err());
    }
}
