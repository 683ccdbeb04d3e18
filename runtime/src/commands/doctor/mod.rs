//! `kalends doctor`: looks at everything that a start needs, and says of each what is wrong and what to do.
//!
//! One fault hides no other: every room is looked at, whatever the others said. Nothing is started, and nothing of the
//! queue is changed.

mod google;
mod graph;
mod store;

use std::collections::BTreeMap;

use kalends_core::queue::command::ParkReason;
use serde_json::json;

use crate::accounts::Register;
use crate::cli::doctor::DoctorArgs;
use crate::config::{Config, load};
use crate::exit::Exit;
use crate::logging;
use crate::say::say;
use crate::wiring::Refused;

/// Users that one finding names.
const NAMED_MAX: usize = 5;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Verdict {
    Good,
    /// Nothing stands still for it, but somebody should know.
    Unwise,
    Wrong,
}

impl Verdict {
    fn word(self) -> &'static str {
        match self {
            Verdict::Good => "ok",
            Verdict::Unwise => "warning",
            Verdict::Wrong => "wrong",
        }
    }
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Finding {
    room: &'static str,
    verdict: Verdict,
    what: String,
    /// What to do about it, unless the text says so itself.
    remedy: Option<String>,
}

/// All that was looked at.
#[derive(Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn good(&mut self, room: &'static str, what: impl Into<String>) {
        self.add(room, Verdict::Good, what.into(), None);
    }

    fn unwise(&mut self, room: &'static str, what: impl Into<String>, remedy: &str) {
        let remedy = (!remedy.is_empty()).then(|| remedy.to_owned());
        self.add(room, Verdict::Unwise, what.into(), remedy);
    }

    fn wrong(&mut self, room: &'static str, what: impl Into<String>, remedy: &str) {
        let remedy = (!remedy.is_empty()).then(|| remedy.to_owned());
        self.add(room, Verdict::Wrong, what.into(), remedy);
    }

    fn add(&mut self, room: &'static str, verdict: Verdict, what: String, remedy: Option<String>) {
        self.0.push(Finding {
            room,
            verdict,
            what,
            remedy,
        });
    }

    fn worst(&self) -> Verdict {
        let verdicts = self.0.iter().map(|finding| finding.verdict);
        verdicts.max().unwrap_or(Verdict::Good)
    }
}

/// Looks at everything.
///
/// # Errors
/// If the configuration cannot be used.
pub async fn doctor(
    args: &DoctorArgs,
    environment: &BTreeMap<String, String>,
) -> Result<Exit, Refused> {
    let loaded = load(&args.config.request(), environment)
        .map_err(|error| Refused::bad_input(error.to_string()))?;
    let config = loaded.config;
    logging::start(config.log);
    let mut findings = Findings::default();
    let file = loaded.file.as_deref().unwrap_or("variables only");
    let users = config.users.len();
    findings.good("config", format!("{file}: no mistakes; {users} users"));
    for warning in loaded.warnings {
        findings.unwise("config", warning, "");
    }
    let register = Register::open(&config)?;
    let seen = store::look(&config, &mut findings).await;
    accounts(&config, &register, &seen, &mut findings).await;
    google::look(&config, &register, &seen, &mut findings).await;
    graph::look(&config, &register, &mut findings).await;
    tell(args, &findings);
    Ok(match findings.worst() {
        Verdict::Wrong => Exit::Failed,
        Verdict::Unwise | Verdict::Good => Exit::Done,
    })
}

/// The grants of added users, and whoever has to connect again.
async fn accounts(
    config: &Config,
    register: &Register,
    seen: &store::Seen,
    findings: &mut Findings,
) {
    const ROOM: &str = "users";
    let waiting: Vec<&str> = seen
        .users
        .iter()
        .filter(|(_, state)| state.parked == Some(ParkReason::NeedsReauth))
        .map(|(user, _)| user.as_str())
        .collect();
    if !waiting.is_empty() {
        let named = waiting.iter().take(NAMED_MAX).copied().collect::<Vec<_>>();
        let what = format!(
            "{} have to connect again: {}",
            waiting.len(),
            named.join(", ")
        );
        let remedy = "`kalends users list --needs-reauth` lists all; `kalends users connect USER` connects one, a user of the \
                      configuration needs another refresh token there";
        findings.unwise(ROOM, what, remedy);
    }
    let all = match register.all().await {
        Ok(all) => all,
        // The store's own finding has said why.
        Err(_) if config.redis.is_some() => return,
        Err(unavailable) => {
            findings.wrong(ROOM, unavailable.detail, "");
            return;
        }
    };
    let grants = all
        .iter()
        .filter_map(|stored| stored.account.grant.as_ref());
    let mut by_key: BTreeMap<&str, u64> = BTreeMap::new();
    for grant in grants {
        let id = grant.sealed.key_id().unwrap_or("unknown");
        *by_key.entry(id).or_default() += 1;
    }
    let connected: u64 = by_key.values().sum();
    if connected == 0 {
        findings.good(
            ROOM,
            format!("{} added users, none with a grant", all.len()),
        );
        return;
    }
    let keys = match register.keys() {
        Ok(keys) => keys,
        Err(refused) => {
            let what = format!("{connected} grants are sealed and cannot be opened");
            findings.wrong(ROOM, what, &refused.detail);
            return;
        }
    };
    let current = keys.ids()[0];
    for (id, grants) in by_key {
        if id == current {
            findings.good(ROOM, format!("{grants} grants are sealed by the key {id}"));
        } else if keys.ids().contains(&id) {
            let what = format!("{grants} grants are sealed by the older key {id}");
            findings.unwise(
                ROOM,
                what,
                "`kalends users reseal` seals them by the first one",
            );
        } else {
            let what = format!("{grants} grants are sealed by the key {id}, which is not there");
            let remedy =
                "add that key to credentials.keys_file again, or connect these users again";
            findings.wrong(ROOM, what, remedy);
        }
    }
}

fn tell(args: &DoctorArgs, findings: &Findings) {
    if args.json {
        let list = findings.0.iter();
        let list: Vec<_> = list
            .map(|finding| {
                json!({
                    "room": finding.room,
                    "verdict": finding.verdict.word(),
                    "what": finding.what,
                    "remedy": finding.remedy,
                })
            })
            .collect();
        let body = json!({ "verdict": findings.worst().word(), "findings": list });
        say(&format!("{body}\n"));
        return;
    }
    for finding in &findings.0 {
        let (word, room) = (finding.verdict.word(), finding.room);
        say(&format!("{word:8} {room:7} {}\n", finding.what));
        if let Some(remedy) = &finding.remedy {
            say(&format!("{:16} do: {remedy}\n", ""));
        }
    }
    let count = |verdict| {
        findings
            .0
            .iter()
            .filter(|finding| finding.verdict == verdict)
            .count()
    };
    say(&format!(
        "{} wrong, {} warnings\n",
        count(Verdict::Wrong),
        count(Verdict::Unwise)
    ));
}
