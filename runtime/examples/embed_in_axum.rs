//! Kalends inside a web application: people connect their calendars while it runs, ask for a sync, and the application tells
//! how fresh they are.
//!
//! ```sh
//! cargo run -p kalends --example embed_in_axum
//! ```
//!
//! It prints the commands to try. Google is an emulated one here, so nothing is needed; with the real one, `google.*` below
//! are Google's own addresses and your OAuth client, and the refresh token is what your consent page brought back.

use std::collections::BTreeMap;
use std::error::Error;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::extract::{Path as UrlPath, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use kalends::clock::SystemClock;
use kalends::emulate::face::{self, FaceOptions};
use kalends::prelude::*;
use kalends_adapters::google::{GoogleAuth, GoogleSettings, RefreshTokens};
use kalends_adapters::secret::Secret;
use kalends_sim::google::{GoogleEmulator, GoogleSettings as EmulatorSettings, UserAccess};
use tokio::net::TcpListener;

/// How long running syncs may take to finish when the application stops, in milliseconds.
const SHUTDOWN_MS: u64 = 25_000;

/// The application's accounts. A real one keeps them in its database, sealed.
#[derive(Default)]
struct Accounts(Mutex<BTreeMap<UserId, Secret>>);

impl RefreshTokens for Accounts {
    fn refresh_token(&self, user: &UserId) -> Option<Secret> {
        let accounts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        accounts.get(user).cloned()
    }
}

/// What the application's handlers share.
#[derive(Clone)]
struct App {
    accounts: Arc<Accounts>,
    kalends: Handle,
}

/// The application, until `stop`: Kalends begins before the first request is answered and ends after the last.
///
/// # Errors
/// If the folder or the settings cannot be used, or the socket fails.
pub(crate) async fn serve(
    listener: TcpListener,
    google_url: &str,
    folder: &Path,
    stop: impl Future<Output = ()> + Send + 'static,
) -> Result<(), Box<dyn Error>> {
    let accounts = Arc::new(Accounts::default());
    let kalends = Kalends::builder()
        .folder(folder)
        .google(GoogleSettings {
            api_base_url: format!("{google_url}/calendar/v3"),
            token_url: format!("{google_url}/token"),
            request_timeout_ms: 20_000,
            auth: GoogleAuth::RefreshTokens {
                client_id: "my-client".to_owned(),
                client_secret: Secret::new("my-client-secret"),
                tokens: accounts.clone(),
            },
        })
        .start()
        .await?;
    let app = App {
        accounts,
        kalends: kalends.handle(),
    };
    let router = Router::new()
        .route("/calendars/{user}", post(connect).delete(disconnect))
        .route("/calendars/{user}/sync", post(sync_now))
        .route("/calendars", get(status))
        .with_state(app);
    axum::serve(listener, router)
        .with_graceful_shutdown(stop)
        .await?;
    match kalends.shutdown(SHUTDOWN_MS).await {
        Why::Asked => Ok(()),
        Why::Fault(detail) => Err(detail.into()),
    }
}

/// What a handler answers: a status, and a line.
type Answer = (StatusCode, String);

fn bad(error: impl ToString) -> Answer {
    (StatusCode::BAD_REQUEST, format!("{}\n", error.to_string()))
}

fn away(error: impl ToString) -> Answer {
    let detail = format!("{}\n", error.to_string());
    (StatusCode::SERVICE_UNAVAILABLE, detail)
}

/// `POST /calendars/USER` with a refresh token: the user's first sync begins at once.
async fn connect(
    State(app): State<App>,
    UrlPath(user): UrlPath<String>,
    refresh_token: String,
) -> Result<Answer, Answer> {
    let user = UserId::new(&user).map_err(bad)?;
    let grant = grant_hash(refresh_token.trim());
    {
        let mut accounts = app
            .accounts
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        accounts.insert(user.clone(), Secret::new(refresh_token.trim()));
    }
    let google = SourceName::google_calendar();
    app.kalends
        .enroll(google, user, grant)
        .await
        .map_err(away)?;
    Ok((StatusCode::CREATED, "connected\n".to_owned()))
}

/// `DELETE /calendars/USER`.
async fn disconnect(
    State(app): State<App>,
    UrlPath(user): UrlPath<String>,
) -> Result<Answer, Answer> {
    let user = UserId::new(&user).map_err(bad)?;
    let google = SourceName::google_calendar();
    app.kalends
        .unenroll(google, user.clone())
        .await
        .map_err(away)?;
    let mut accounts = app
        .accounts
        .0
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    accounts.remove(&user);
    Ok((StatusCode::OK, "disconnected\n".to_owned()))
}

/// `POST /calendars/USER/sync`: now, before those whose turn it only is.
async fn sync_now(
    State(app): State<App>,
    UrlPath(user): UrlPath<String>,
) -> Result<Answer, Answer> {
    let user = UserId::new(&user).map_err(bad)?;
    let google = SourceName::google_calendar();
    match app.kalends.enqueue_sync(google, user).await {
        Ok(()) => Ok((StatusCode::ACCEPTED, "asked for\n".to_owned())),
        Err(NotEnqueued::StoreAway(error)) => Err(away(error)),
        Err(error) => Err((StatusCode::CONFLICT, format!("{error}\n"))),
    }
}

/// `GET /calendars`: everything that `kalends status --json` tells.
async fn status(State(app): State<App>) -> Result<Answer, Answer> {
    let status = app.kalends.status().await.map_err(away)?;
    Ok((StatusCode::OK, format!("{}\n", status.json())))
}

/// An emulated Google with two users, on a port of its own for as long as the program lives; its address and its users.
///
/// # Errors
/// If this machine has no port to give.
pub(crate) async fn emulated_google() -> Result<(String, Vec<UserAccess>), Box<dyn Error>> {
    let settings = EmulatorSettings::new(7, 2, 40, SystemClock.now());
    let emulator = GoogleEmulator::new(settings);
    let users = emulator.users().collect();
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    tokio::spawn(face::serve(
        listener,
        Arc::new(Mutex::new(emulator)),
        Arc::new(SystemClock),
        FaceOptions::default(),
        std::future::pending(),
    ));
    Ok((url, users))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let (google_url, users) = emulated_google().await?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    for UserAccess {
        email,
        refresh_token,
    } in users
    {
        println!("curl http://{address}/calendars/{email} -d {refresh_token}");
        println!("curl -X POST http://{address}/calendars/{email}/sync");
    }
    println!("curl http://{address}/calendars\nCtrl-C ends it.");
    let folder = tempfile::tempdir()?;
    let stop = async {
        // Without signals there is only the end of the process.
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending().await
        }
    };
    serve(listener, &google_url, folder.path(), stop).await
}
