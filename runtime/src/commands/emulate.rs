//! `kalends emulate google` and `kalends emulate neo4j`: the emulators by hand, on this machine only.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kalends_core::rng::{KalendsRng, substream, uniform};
use kalends_core::time::{Clock as _, Timestamp};
use kalends_sim::google::{GoogleEmulator, GoogleSettings, PushWeather};
use kalends_sim::neo4j::{Neo4jEmulator, Neo4jEmulatorSettings};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;

use crate::cli::{EmulateCommand, EmulateGoogleArgs, EmulateNeo4jArgs};
use crate::clock::SystemClock;
use crate::emulate::face::{self, Emulated, FaceOptions};
use crate::emulate::post::Postman;
use crate::exit::Exit;
use crate::say::say;
use crate::wiring::Refused;

/// The largest fixture that is read, in bytes.
const FIXTURE_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// Serves until SIGTERM or SIGINT.
///
/// # Errors
/// If the port is in use, or the fixture cannot be used.
pub async fn emulate(command: &EmulateCommand) -> Result<Exit, Refused> {
    match command {
        EmulateCommand::Google(args) => google(args).await,
        EmulateCommand::Neo4j(args) => neo4j(args).await,
    }
}

async fn listen(port: u16) -> Result<(TcpListener, SocketAddr), Refused> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let refused = |error: std::io::Error| {
        Refused::bad_input(format!(
            "{address}: {error}; free that port, or name another one with --port"
        ))
    };
    let listener = TcpListener::bind(address).await.map_err(refused)?;
    let address = listener.local_addr().map_err(refused)?;
    Ok((listener, address))
}

async fn serve<E: Emulated>(
    listener: TcpListener,
    emulator: Arc<Mutex<E>>,
) -> Result<Exit, Refused> {
    let stopped = async {
        let (Ok(mut term), Ok(mut int)) = (
            signal(SignalKind::terminate()),
            signal(SignalKind::interrupt()),
        ) else {
            return std::future::pending().await;
        };
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
    };
    let served = face::serve(
        listener,
        emulator,
        Arc::new(SystemClock),
        FaceOptions::default(),
        stopped,
    );
    match served.await {
        Ok(()) => Ok(Exit::Done),
        Err(error) => Err(Refused {
            exit: Exit::Failed,
            detail: format!("the emulator stopped: {error}"),
        }),
    }
}

async fn google(args: &EmulateGoogleArgs) -> Result<Exit, Refused> {
    let now = SystemClock.now();
    let emulator = emulated_google(args, now)?;
    let (listener, address) = listen(args.port).await?;
    let users: String = emulator
        .users()
        .map(|access| format!("{}\t{}\n", access.email, access.refresh_token))
        .collect();
    say(&format!(
        "# Google Calendar, emulated at http://{address}/calendar/v3, tokens at http://{address}/token,\n\
         # consent at http://{address}/o/oauth2/v2/auth (google.api_base_url, google.token_url, google.auth_url)\n\
         # user, a tab, and the user's token: good as a refresh token, and by hand as a bearer token\n\
         {users}# ready; Ctrl-C ends it\n"
    ));
    let emulator = Arc::new(Mutex::new(emulator));
    let mut tasks = JoinSet::new();
    let postman = Postman::new(
        Arc::clone(&emulator),
        Arc::new(SystemClock),
        args.push_elsewhere,
    )?;
    tasks.spawn(postman.run(say));
    let seconds = |every_s: u32| Duration::from_secs(u64::from(every_s));
    if let Some(every_s) = args.play_every {
        tasks.spawn(play(Arc::clone(&emulator), seconds(every_s), say));
    }
    if let Some(every_s) = args.change_every {
        let rng = substream(args.seed, "change");
        tasks.spawn(change(Arc::clone(&emulator), seconds(every_s), rng, say));
    }
    let served = serve(listener, emulator).await;
    tasks.shutdown().await;
    served
}

/// Somebody changes a primary calendar each time `every` has passed.
async fn change(
    google: Arc<Mutex<GoogleEmulator>>,
    every: Duration,
    mut rng: KalendsRng,
    tell: impl Fn(&str),
) {
    loop {
        tokio::time::sleep(every).await;
        let changed = {
            let mut google = google.lock().unwrap_or_else(PoisonError::into_inner);
            change_one(&mut google, SystemClock.now(), &mut rng)
        };
        if let Some(user) = changed {
            tell(&format!("# {user} changed an event\n"));
        }
    }
}

/// Draws a user and a change, and makes it; the user. `None`: it was not possible just then.
fn change_one(google: &mut GoogleEmulator, now: Timestamp, rng: &mut KalendsRng) -> Option<String> {
    let users = google.users().count() as u64;
    let place = usize::try_from(uniform(rng, users - 1)).expect("below the count");
    let user = google.users().nth(place).expect("below the count").email;
    let drawn = google.random_change(now, &user, rng);
    let drawn = drawn.expect("the user is there, and no calendar is from a file");
    google.apply(now, &user, &drawn).is_ok().then_some(user)
}

/// Plays the next answer of every user's fixture each time `every` has passed, and tells of it, until none is left.
async fn play(google: Arc<Mutex<GoogleEmulator>>, every: Duration, tell: impl Fn(&str)) {
    for number in 2_u32.. {
        tokio::time::sleep(every).await;
        let is_played = {
            let mut google = google.lock().unwrap_or_else(PoisonError::into_inner);
            play_next(&mut google, SystemClock.now())
        };
        if !is_played {
            tell("# every answer of the fixture has been played\n");
            return;
        }
        tell(&format!(
            "# answer {number} of the fixture has been played\n"
        ));
    }
}

/// Plays every user's next answer; false if none is left.
fn play_next(google: &mut GoogleEmulator, now: Timestamp) -> bool {
    let users: Vec<String> = google.users().map(|access| access.email).collect();
    let mut is_played = false;
    for user in users {
        is_played |= google
            .play_next_fixture(now, &user)
            .expect("the emulator knows its own users");
    }
    is_played
}

fn emulated_google(args: &EmulateGoogleArgs, now: Timestamp) -> Result<GoogleEmulator, Refused> {
    let settings = GoogleSettings::new(args.seed, args.users, args.events, now);
    let mut emulator = GoogleEmulator::new(settings);
    emulator.set_push_weather(PushWeather {
        delay_ms: args.push_delay_ms,
        doubled_every: args.push_doubled_every.unwrap_or(0),
        dropped_every: args.push_dropped_every.unwrap_or(0),
        forged_every: args.push_forged_every.unwrap_or(0),
    });
    let Some(path) = &args.fixture else {
        return Ok(emulator);
    };
    let refused = |what: String| Refused::bad_input(format!("{}: {what}", path.display()));
    let size = std::fs::metadata(path)
        .map_err(|error| refused(error.to_string()))?
        .len();
    if size > FIXTURE_BYTES_MAX {
        return Err(refused(format!(
            "has {size} bytes; at most {FIXTURE_BYTES_MAX} are read"
        )));
    }
    let json = std::fs::read_to_string(path).map_err(|error| refused(error.to_string()))?;
    let users: Vec<String> = emulator.users().map(|access| access.email).collect();
    for user in users {
        emulator
            .load_fixture(&user, &json)
            .map_err(|error| refused(error.to_string()))?;
    }
    Ok(emulator)
}

async fn neo4j(args: &EmulateNeo4jArgs) -> Result<Exit, Refused> {
    let emulator = Arc::new(Mutex::new(Neo4jEmulator::new(
        Neo4jEmulatorSettings::default(),
    )));
    let (listener, address) = listen(args.port).await?;
    say(&format!(
        "# Neo4j's Query API for the statements of Kalends, emulated at http://{address}\n# ready; Ctrl-C ends it\n"
    ));
    serve(listener, emulator).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn answers_are_played_one_after_another_to_everybody() {
        let settings = GoogleSettings::new(1, 2, 0, Timestamp::EPOCH);
        let mut google = GoogleEmulator::new(settings);
        let users: Vec<String> = google.users().map(|access| access.email).collect();
        for user in &users {
            let answers =
                r#"[{"items": []}, {"items": [{"id": "a1"}]}, {"items": [{"id": "a2"}]}]"#;
            google.load_fixture(user, answers).unwrap();
        }
        let google = Arc::new(Mutex::new(google));
        let told: Mutex<Vec<(String, usize, usize)>> = Mutex::default();
        let tell = |text: &str| {
            let google = google.lock().unwrap();
            let events = |user| google.calendar_truth(user, "primary").unwrap().count();
            let line = (text.to_owned(), events(&users[0]), events(&users[1]));
            told.lock().unwrap().push(line);
        };
        play(Arc::clone(&google), Duration::from_millis(1), tell).await;
        let played = |text: &str, events| {
            (
                format!("# {text} of the fixture has been played\n"),
                events,
                events,
            )
        };
        assert_eq!(
            *told.lock().unwrap(),
            [
                played("answer 2", 1),
                played("answer 3", 2),
                played("every answer", 2)
            ]
        );
    }
}
