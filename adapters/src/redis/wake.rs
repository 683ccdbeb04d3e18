//! Hearing at once that there is something to do.
//!
//! Whoever makes a job due publishes to the channel `{prefix}:wake`; here every process listens. A message may be lost
//! (Redis keeps none for who is away), so a slow poll stands behind this: nothing here needs to be certain, only cheap
//! and quick. The listener has a connection of its own, for a call must not wait behind messages, and it dials for ever
//! at a bounded pace. Each time it comes to listen it wakes once, for something may have been missed.
//!
//! A connection that dies without a word is found by a `PING` now and then.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use redis::{PushInfo, PushKind, RedisError};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::failure::CallError;
use super::link::dial::{Dialer, OnPush};

/// How long it waits before it dials again: the first time, and at most (doubling in between).
const REDIAL_AFTER_MIN: Duration = Duration::from_millis(200);
const REDIAL_AFTER_MAX: Duration = Duration::from_secs(2);

/// How often the server is asked whether it is still there: the only thing that an idle listener sends.
const PING_EVERY: Duration = Duration::from_secs(5);

/// The channel on which wake-ups are published.
pub(super) fn channel(prefix: &str) -> String {
    format!("{{{prefix}}}:wake")
}

/// A listener for wake-ups: see the module's text. Listens from the first [`Wake::wait`] until it is dropped.
#[derive(Debug)]
pub struct Wake {
    dialer: Arc<Dialer>,
    channel: String,
    heard: Arc<Notify>,
    listener: Mutex<Option<JoinHandle<()>>>,
}

impl Wake {
    /// Does nothing yet.
    pub(super) fn new(dialer: Arc<Dialer>, prefix: &str) -> Wake {
        Wake {
            dialer,
            channel: channel(prefix),
            heard: Arc::new(Notify::new()),
            listener: Mutex::new(None),
        }
    }

    /// Waits until something was published since the last wait, or may have been. Of several that wait, one is woken.
    pub async fn wait(&self) {
        self.listen();
        self.heard.notified().await;
    }

    /// Starts the listener, unless it runs. (It ends by itself only with the runtime that it was started in.)
    fn listen(&self) {
        let mut listener = self.listener.lock().unwrap_or_else(PoisonError::into_inner);
        if listener.as_ref().is_none_or(JoinHandle::is_finished) {
            let (dialer, channel, heard) = (
                Arc::clone(&self.dialer),
                self.channel.clone(),
                Arc::clone(&self.heard),
            );
            *listener = Some(tokio::spawn(listen_for_ever(dialer, channel, heard)));
        }
    }
}

impl Drop for Wake {
    fn drop(&mut self) {
        if let Some(listener) = self
            .listener
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
        {
            listener.abort();
        }
    }
}

async fn listen_for_ever(dialer: Arc<Dialer>, channel: String, heard: Arc<Notify>) {
    let mut redial_after = REDIAL_AFTER_MIN;
    loop {
        let mut listened = false;
        let error = listen_once(&dialer, &channel, &heard, &mut listened).await;
        if listened {
            redial_after = REDIAL_AFTER_MIN;
        }
        if redial_after == REDIAL_AFTER_MIN {
            tracing::warn!(
                error = %error.detail,
                "wake-ups from Redis are not heard just now, jobs are found by polling; it is dialled again until it answers"
            );
        }
        tokio::time::sleep(redial_after).await;
        redial_after = REDIAL_AFTER_MAX.min(redial_after * 2);
    }
}

/// Listens until the connection ends, and gives the reason. `listened` says whether it came to listen at all.
async fn listen_once(
    dialer: &Dialer,
    channel: &str,
    heard: &Arc<Notify>,
    listened: &mut bool,
) -> CallError {
    let lost = Arc::new(Notify::new());
    let on_push: OnPush = {
        let (heard, lost) = (Arc::clone(heard), Arc::clone(&lost));
        Arc::new(move |push: PushInfo| match push.kind {
            PushKind::Message => heard.notify_one(),
            PushKind::Disconnection => lost.notify_one(),
            _ => {}
        })
    };
    let connection = match dialer.connect(&on_push).await {
        Ok(connection) => connection,
        Err(error) => return error,
    };
    let explain = |error: RedisError| CallError::new(&error, &connection.address);
    if let Err(error) = connection.handle().subscribe(channel).await {
        return explain(error);
    }
    *listened = true;
    heard.notify_one();
    loop {
        tokio::select! {
            () = lost.notified() => {
                // On the way to the master others may have been dialled, and their loss is none.
                if connection.is_lost() {
                    return CallError::away(format!("the connection to Redis at {} was closed", connection.address));
                }
            }
            () = tokio::time::sleep(PING_EVERY) => {
                if let Err(error) = connection.ask::<redis::Value>(&redis::cmd("PING")).await {
                    return explain(error);
                }
            }
        }
    }
}
