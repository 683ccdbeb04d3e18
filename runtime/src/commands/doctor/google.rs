//! Google: a token call, and with the token one look at a list of calendars.

use std::sync::Arc;

use kalends_adapters::google::{GoogleCalendar, RefreshTokens};
use kalends_adapters::secret::Secret;
use kalends_core::failure::{Failure, FailureKind};
use kalends_core::google::query::FetchRequest;
use kalends_core::id::UserId;
use kalends_core::port::Source as _;
use kalends_core::queue::command::ParkReason;

use super::Findings;
use super::store::Seen;
use crate::accounts::{Register, Tokens};
use crate::clock::SystemClock;
use crate::config::Config;
use crate::wiring;

const ROOM: &str = "google";
/// Users that are tried at the most, until one is let in.
const TRIED_MAX: usize = 3;

/// A grant that nobody ever had: what Google says of it shows whether the client is known.
struct NoGrant;

impl RefreshTokens for NoGrant {
    fn refresh_token(&self, _: &UserId) -> Option<Secret> {
        Some(Secret::new(
            "kalends-doctor-asks-whether-the-client-is-known",
        ))
    }
}

pub(super) async fn look(
    config: &Config,
    register: &Register,
    seen: &Seen,
    findings: &mut Findings,
) {
    let mut tried = users(config, register, seen).await;
    tried.truncate(TRIED_MAX);
    let tokens: Arc<dyn RefreshTokens> = if tried.is_empty() {
        Arc::new(NoGrant)
    } else {
        Arc::new(Tokens::new(register.clone()))
    };
    let google = match wiring::google_with(config, Arc::new(SystemClock), tokens) {
        Ok(google) => google,
        Err(refused) => {
            findings.wrong(ROOM, refused.detail, "");
            return;
        }
    };
    if tried.is_empty() {
        nobody(config, &google, findings).await;
        return;
    }
    for user in tried {
        match google.check_token(&user).await {
            Ok(()) => {
                findings.good(ROOM, format!("a token was given for {user}"));
                calendars(&google, &user, findings).await;
                return;
            }
            Err(failure) if failure.kind == FailureKind::Unauthorized => {
                findings.unwise(ROOM, format!("{user}: {}", failure.detail), "");
            }
            Err(failure) => {
                tell(&format!("no token for {user}"), &failure, findings);
                return;
            }
        }
    }
    findings.wrong(
        ROOM,
        "none of the users that were tried is let in",
        "connect them again; if it meets everybody, look at the OAuth client in the Google Cloud console: while its \
         consent screen is in testing, refresh tokens live for seven days",
    );
}

/// Users who should be let in, those who are not parked first.
async fn users(config: &Config, register: &Register, seen: &Seen) -> Vec<UserId> {
    let mut all: Vec<UserId> = config.users.iter().map(|user| user.id.clone()).collect();
    let needs_grant = wiring::common_grant(config).is_none();
    let added = register.all().await.unwrap_or_default();
    let added = added
        .into_iter()
        .filter(|stored| stored.account.grant.is_some() || !needs_grant);
    all.extend(added.map(|stored| stored.account.user));
    let is_parked = |user: &UserId| {
        let mut states = seen.users.iter();
        states.any(|(known, state)| known == user && state.parked == Some(ParkReason::NeedsReauth))
    };
    // Whoever waits for a new grant is not asked about again: that one is known to be refused.
    all.retain(|user| !is_parked(user));
    all
}

async fn nobody(config: &Config, google: &GoogleCalendar, findings: &mut Findings) {
    if wiring::common_grant(config).is_some() {
        findings.unwise(
            ROOM,
            "there is no user for whom the service account could be tried",
            "`kalends users add USER` adds one",
        );
        return;
    }
    let somebody = UserId::new("kalends-doctor").expect("it is a name");
    match google.check_token(&somebody).await {
        // Google knows the client, and of course not the grant.
        Err(failure) if failure.kind == FailureKind::Unauthorized => {
            findings.good(ROOM, "the OAuth client is known");
            findings.unwise(
                ROOM,
                "there is no connected user for whom a token could be asked",
                "`kalends users connect USER` connects one",
            );
        }
        Ok(()) => findings.wrong(
            ROOM,
            "the token endpoint gives a token for a grant that does not exist",
            "correct google.token_url",
        ),
        Err(failure) => tell("the OAuth client could not be tried", &failure, findings),
    }
}

async fn calendars(google: &GoogleCalendar, user: &UserId, findings: &mut Findings) {
    let request = FetchRequest::Calendars {
        user: user.clone(),
        page_token: None,
    };
    match google.fetch(request).await {
        Ok(_) => findings.good(ROOM, format!("the calendars of {user} can be listed")),
        Err(failure) => tell("the calendars cannot be listed", &failure, findings),
    }
}

fn tell(what: &str, failure: &Failure, findings: &mut Findings) {
    let what = format!("{what}: {}", failure.detail);
    match failure.kind {
        FailureKind::Limited { .. } => {
            findings.unwise(ROOM, what, "wait, then ask again; the credentials may be all right");
        }
        FailureKind::Transient { .. } => findings.wrong(
            ROOM,
            what,
            "look whether this machine reaches google.token_url and google.api_base_url (a proxy, a firewall, DNS)",
        ),
        // The detail says what to do.
        _ => findings.wrong(ROOM, what, ""),
    }
}
