//! Push notifications of the emulated Google, on their way to whoever watches.
//!
//! Which there are, and which come late, twice, not at all or forged, is the emulator's to say. Here they are posted, a bounded number
//! at a time, and what each was answered is told. As Google does, one that is answered with 5xx is posted again a few times.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kalends_core::time::{Clock, Timestamp};
use kalends_sim::google::{GoogleEmulator, Notification};
use reqwest::redirect::Policy;
use reqwest::{Client, Url};
use tokio::task::JoinSet;

use crate::wiring::Refused;

/// The emulator is looked at so often, in milliseconds.
const LOOK_MS: u64 = 100;
/// Posts that are under way at a time.
const POSTS_MAX: usize = 16;
/// A post is given up after this time, in milliseconds.
const POST_MS_MAX: u64 = 5_000;
/// Posts of one notification, at the most.
const ATTEMPTS_MAX: u32 = 5;
/// Until the second post of a notification, in milliseconds; then twice as long each time.
const AGAIN_MS: u64 = 1_000;
/// Notifications that wait to be posted again; more are lost.
const AGAIN_MAX: usize = 10_000;

/// Posts notifications.
pub struct Postman {
    google: Arc<Mutex<GoogleEmulator>>,
    clock: Arc<dyn Clock>,
    client: Client,
    /// Other machines are told, too.
    elsewhere: bool,
}

/// A notification that is posted for the `attempt`-th time.
struct Letter {
    at: Timestamp,
    attempt: u32,
    notification: Notification,
}

impl Letter {
    /// The channel's id; the emulator always gives one.
    fn channel(&self) -> &str {
        header(&self.notification, "x-goog-channel-id")
    }

    fn is_of_a_change(&self) -> bool {
        header(&self.notification, "x-goog-resource-state") == "exists"
    }
}

impl Postman {
    /// One for this emulator. Only this machine is told, unless `elsewhere`.
    ///
    /// # Errors
    /// If this machine gives no HTTP client (no certificates, say).
    pub fn new(
        google: Arc<Mutex<GoogleEmulator>>,
        clock: Arc<dyn Clock>,
        elsewhere: bool,
    ) -> Result<Self, Refused> {
        let client = Client::builder()
            .redirect(Policy::none())
            .no_proxy()
            .timeout(Duration::from_millis(POST_MS_MAX))
            .build();
        let client = client
            .map_err(|error| Refused::bad_input(format!("nothing can be posted here: {error}")))?;
        Ok(Postman {
            google,
            clock,
            client,
            elsewhere,
        })
    }

    /// Posts for as long as it is polled, and tells what came of it, a line each.
    pub async fn run(self, tell: impl Fn(&str)) {
        let mut under_way = JoinSet::new();
        let mut again: Vec<Letter> = Vec::new();
        loop {
            for letter in self.due(&mut again) {
                if under_way.len() >= POSTS_MAX
                    && let Some(Ok(answered)) = under_way.join_next().await
                {
                    self.told(answered, &mut again, &tell);
                }
                under_way.spawn(post(self.client.clone(), letter, self.elsewhere));
            }
            while let Some(Ok(answered)) = under_way.try_join_next() {
                self.told(answered, &mut again, &tell);
            }
            tokio::time::sleep(Duration::from_millis(LOOK_MS)).await;
        }
    }

    /// What is to be posted now.
    fn due(&self, again: &mut Vec<Letter>) -> Vec<Letter> {
        let now = self.clock.now();
        let fresh = {
            let mut google = self.google.lock().unwrap_or_else(PoisonError::into_inner);
            google.notifications(now)
        };
        let fresh = fresh.into_iter().map(|notification| Letter {
            at: now,
            attempt: 1,
            notification,
        });
        let (mut due, later): (Vec<_>, Vec<_>) = std::mem::take(again)
            .into_iter()
            .partition(|one| one.at <= now);
        *again = later;
        due.extend(fresh);
        due
    }

    fn told(
        &self,
        (letter, answer): (Letter, Result<u16, String>),
        again: &mut Vec<Letter>,
        tell: &impl Fn(&str),
    ) {
        let channel = letter.channel();
        let what = match letter.notification.forged {
            true => "forged, told to",
            false if letter.is_of_a_change() => "a change, told to",
            false => "a new channel, told to",
        };
        match &answer {
            // Whoever makes many channels need not read of each that it is well.
            Ok(200..300) if !letter.is_of_a_change() => {}
            Ok(status) => tell(&format!("# {what} {channel}: answered {status}\n")),
            Err(why) => tell(&format!("# {what} {channel}: {why}\n")),
        }
        let is_again = matches!(answer, Ok(500..600)) && letter.attempt < ATTEMPTS_MAX;
        if is_again && again.len() < AGAIN_MAX {
            again.push(Letter {
                at: self.clock.now().plus_ms(AGAIN_MS << (letter.attempt - 1)),
                attempt: letter.attempt + 1,
                notification: letter.notification,
            });
        }
    }
}

fn header<'a>(notification: &'a Notification, name: &str) -> &'a str {
    let mut headers = notification.headers.iter();
    let found = headers.find(|(known, _)| known == name);
    found.map_or("", |(_, value)| value.as_str())
}

async fn post(client: Client, letter: Letter, elsewhere: bool) -> (Letter, Result<u16, String>) {
    let address = &letter.notification.address;
    let url = match Url::parse(address) {
        Ok(url) if elsewhere || is_here(&url) => url,
        Ok(_) => {
            let why = format!(
                "not posted, as {address} is not on this machine; --push-elsewhere posts it all the same"
            );
            return (letter, Err(why));
        }
        Err(error) => {
            let why = format!("not posted, as {address} is no address: {error}");
            return (letter, Err(why));
        }
    };
    // As Google's, it has a length, which is 0.
    let mut request = client.post(url).header("content-length", "0");
    for (name, value) in &letter.notification.headers {
        request = request.header(name, value);
    }
    let answer = match request.send().await {
        Ok(answer) => Ok(answer.status().as_u16()),
        Err(error) => Err(format!(
            "nobody answers at {address}: {}",
            error.without_url()
        )),
    };
    (letter, answer)
}

/// Whether an address leads to this machine.
fn is_here(url: &Url) -> bool {
    let Some(host) = url.host_str() else {
        return false;
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let address = host.parse::<std::net::IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemClock;
    use kalends_sim::google::GoogleSettings;
    use std::collections::BTreeMap;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;
    use tokio::sync::mpsc;

    fn letter(address: &str) -> Letter {
        let headers = [
            ("x-goog-channel-id", "c-1"),
            ("x-goog-resource-state", "exists"),
        ];
        Letter {
            at: Timestamp::EPOCH,
            attempt: 1,
            notification: Notification {
                at: Timestamp::EPOCH,
                address: address.to_owned(),
                headers: headers
                    .map(|(name, value)| (name.to_owned(), value.to_owned()))
                    .to_vec(),
                forged: false,
            },
        }
    }

    #[test]
    fn this_machine_is_known_by_its_addresses() {
        let here = |text: &str| is_here(&Url::parse(text).unwrap());
        for address in [
            "http://127.0.0.1:7879/google",
            "http://127.8.8.8/",
            "https://[::1]:7879/",
            "http://localhost:1/",
        ] {
            assert!(here(address), "{address}");
        }
        for address in [
            "https://hooks.example.com/google",
            "https://127.0.0.1.example.com/",
            "https://192.0.2.1/",
            "https://localhost.example.com/",
        ] {
            assert!(!here(address), "{address}");
        }
    }

    #[tokio::test]
    async fn another_machine_is_not_told_unless_that_is_wished() {
        let client = Client::builder().no_proxy().build().unwrap();
        let (_, answer) = post(client, letter("http://192.0.2.1/google"), false).await;
        assert!(answer.unwrap_err().contains("--push-elsewhere"));
    }

    /// Who is away for a moment is told again; who refuses is not, nor is a redirect followed.
    #[tokio::test]
    async fn one_that_is_told_to_come_again_comes_again() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let google = GoogleEmulator::new(GoogleSettings::new(1, 1, 0, Timestamp::EPOCH));
        let google = Arc::new(Mutex::new(google));
        let postman = Postman::new(Arc::clone(&google), Arc::new(SystemClock), false).unwrap();
        let (sender, mut told) = mpsc::unbounded_channel();
        let running = postman.run(move |line: &str| {
            // The test may have ended.
            let _ = sender.send(line.to_owned());
        });
        let user = google.lock().unwrap().users().next().unwrap();
        let body = serde_json::json!({
            "id": "c-1", "type": "web_hook", "address": format!("http://{address}/google"), "token": "t",
        });
        let watch = kalends_sim::http::Request::post(
            "/calendar/v3/calendars/primary/events/watch",
            body.to_string(),
        )
        .with_header("authorization", format!("Bearer {}", user.refresh_token));
        let now = SystemClock.now();
        assert_eq!(google.lock().unwrap().handle(now, &watch).status, 200);
        google.lock().unwrap().tell_again(now, &user.email).unwrap();
        let answering = async {
            let mut posts = BTreeMap::new();
            // Both are told to come again once. Then the channel's own message is redirected, and the change heard.
            for _ in 0..4 {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(stream.read_u8().await.unwrap());
                }
                let head = String::from_utf8(head).unwrap();
                assert!(head.starts_with("POST /google HTTP/1.1\r\n"), "{head}");
                assert!(head.contains("content-length: 0\r\n"), "{head}");
                let is_change = head.contains("x-goog-resource-state: exists");
                let count = posts.entry(is_change).or_insert(0);
                *count += 1;
                let status = match (*count, is_change) {
                    (1, _) => "503 Come Again",
                    (_, true) => "204 No Content",
                    (_, false) => "307 Elsewhere\r\nLocation: http://192.0.2.1/",
                };
                let answer = format!("HTTP/1.1 {status}\r\nConnection: close\r\n\r\n");
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
            let mut lines = Vec::new();
            while lines.len() < 4 {
                lines.push(told.recv().await.unwrap());
            }
            lines.sort();
            lines
        };
        let answering = tokio::time::timeout(Duration::from_secs(60), answering);
        let lines = tokio::select! {
            () = running => unreachable!("it runs for as long as it is polled"),
            lines = answering => lines.expect("four notifications are posted"),
        };
        assert_eq!(
            lines,
            [
                "# a change, told to c-1: answered 204\n",
                "# a change, told to c-1: answered 503\n",
                "# a new channel, told to c-1: answered 307\n",
                "# a new channel, told to c-1: answered 503\n",
            ]
        );
    }
}
