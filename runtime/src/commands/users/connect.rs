//! `kalends users connect`: the user consents in a browser, and the grant is kept sealed.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use kalends_adapters::google::{ConnectSettings, Consent};
use kalends_core::failure::FailureKind;
use kalends_core::id::UserId;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use url::Url;

use super::loopback::{self, Answer};
use super::{Desk, Given, failed};
use crate::cli::users::ConnectArgs;
use crate::clock::SystemClock;
use crate::config::{Config, GoogleAuth};
use crate::exit::Exit;
use crate::say::{complain, say};
use crate::wiring::Refused;

/// The longest address that is taken from standard input, in bytes.
const PASTED_BYTES_MAX: usize = 16 * 1024;

pub(super) async fn connect(
    args: &ConnectArgs,
    environment: &BTreeMap<String, String>,
) -> Result<Exit, Refused> {
    let desk = Desk::open(&args.config, environment)?;
    let user = desk.own_user(&args.user)?;
    let (client_id, client_secret) = match &desk.config.google.auth {
        GoogleAuth::RefreshToken {
            client_id,
            client_secret,
        } => (client_id, client_secret),
        GoogleAuth::ServiceAccount { .. } => {
            return Err(Refused::bad_input(
                "with a service account nobody has to connect: `kalends users add` is all",
            ));
        }
    };
    // Before anybody is sent to Google in vain.
    desk.register.keys()?;
    desk.find(&user).await?;
    let address = (Ipv4Addr::LOCALHOST, args.port);
    let listener = TcpListener::bind(address).await;
    let listener = listener.map_err(|error| {
        Refused::bad_input(format!(
            "port {} of 127.0.0.1 cannot be taken: {error}; name another one with --port",
            args.port
        ))
    })?;
    let port = listener
        .local_addr()
        .map_err(|error| failed(error.to_string()))?
        .port();
    let settings = connect_settings(&desk.config, client_id, client_secret);
    let redirect = format!("http://127.0.0.1:{port}/");
    let consent = Consent::begin(settings, redirect, Arc::new(SystemClock))
        .map_err(|error| Refused::bad_input(format!("google.{error}")))?;
    let is_address = user.as_str().contains('@');
    let address = consent.address(is_address.then(|| user.as_str()));
    let opened = !args.no_browser && open_browser(&address);
    let lead = if opened {
        "A browser should have opened. If it has not, open this address:"
    } else {
        "Open this address in the user's browser:"
    };
    complain(&format!("{lead}\n\n"));
    say(&format!("{address}\n"));
    complain(
        "\nIf the browser runs on another machine, it ends at an address of 127.0.0.1 where nothing answers: paste that \
         address here.\n",
    );
    let limit = Duration::from_secs(u64::from(args.timeout));
    let answer = tokio::select! {
        answer = loopback::wait(&listener, |state| consent.is_ours(state)) => answer?,
        answer = pasted(&consent) => answer,
        () = tokio::time::sleep(limit) => {
            return Err(failed(format!(
                "nobody came back within {} seconds; begin again, or give more time with --timeout",
                args.timeout
            )));
        }
        _ = tokio::signal::ctrl_c() => return Err(failed("interrupted; nothing was changed")),
    };
    let code = match answer {
        Answer::Code(code) => code,
        Answer::Refused(word) => {
            return Err(failed(format!("Google says {word}: nothing was changed")));
        }
    };
    finish(args, &desk, &user, &consent, &code).await
}

fn connect_settings(
    config: &Config,
    client_id: &str,
    client_secret: &kalends_adapters::secret::Secret,
) -> ConnectSettings {
    let google = &config.google;
    ConnectSettings {
        auth_url: google.auth_url.clone(),
        token_url: google.token_url.clone(),
        api_base_url: google.api_base_url.clone(),
        request_timeout_ms: google.request_timeout_ms,
        client_id: client_id.to_owned(),
        client_secret: client_secret.clone(),
    }
}

async fn finish(
    args: &ConnectArgs,
    desk: &Desk,
    user: &UserId,
    consent: &Consent,
    code: &str,
) -> Result<Exit, Refused> {
    let told = |failure: kalends_core::failure::Failure| {
        let exit = match failure.kind {
            FailureKind::Misconfigured => Exit::BadInput,
            _ => Exit::Failed,
        };
        Refused {
            exit,
            detail: failure.detail,
        }
    };
    let granted = consent.exchange(code).await.map_err(told)?;
    // A sync would find that out too, but only after somebody else's calendar stands in this user's graph.
    let account = consent.account(user, &granted).await.map_err(told)?;
    let is_another = account.as_ref().is_some_and(|account| {
        user.as_str().contains('@') && !account.eq_ignore_ascii_case(user.as_str())
    });
    if is_another && !args.any_account {
        let account = account.unwrap_or_default();
        return Err(failed(format!(
            "{account} consented, not {user}: nothing was changed; begin again and choose the right account, or add --any-account"
        )));
    }
    let shown = account.clone().filter(|_| is_another);
    let given = Given {
        is_consent: true,
        scopes: granted.scopes,
        account,
    };
    let grant = desk.grant(user, &granted.refresh_token, given)?;
    let is_new = desk.connected(user, grant).await?;
    let added = if is_new {
        "added and connected"
    } else {
        "connected"
    };
    let to = shown.map_or_else(String::new, |account| {
        format!(" to the calendars of {account}")
    });
    complain(&format!("{user} {added}{to}\n"));
    Ok(Exit::Done)
}

/// Waits for an address on standard input that belongs to this consent. Without anybody there it waits for ever.
async fn pasted(consent: &Consent) -> Answer {
    let (lines, mut pasted) = mpsc::channel(1);
    // Reading blocks, and nothing can end it but the process.
    std::thread::spawn(move || {
        let mut line = String::new();
        while let Ok(1..) = std::io::stdin().read_line(&mut line) {
            if line.len() > PASTED_BYTES_MAX
                || lines.blocking_send(std::mem::take(&mut line)).is_err()
            {
                return;
            }
        }
    });
    while let Some(line) = pasted.recv().await {
        if line.trim().is_empty() {
            continue;
        }
        let url = Url::parse(line.trim()).ok();
        match url.and_then(|url| loopback::read(&url, |state| consent.is_ours(state))) {
            Some(answer) => return answer,
            None => {
                complain("that is not the address at which this consent ended; paste all of it\n")
            }
        }
    }
    std::future::pending().await
}

/// Whether a program was found that opens addresses.
fn open_browser(address: &str) -> bool {
    let opener = if cfg!(target_os = "macos") {
        "open"
    } else {
        "xdg-open"
    };
    let spawned = Command::new(opener)
        .arg(address)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    spawned.is_ok()
}
