//! Who answers an operator: the store itself, or the process that has it.
//!
//! Both are asked the same: requests of the API, as JSON. With a queue in Redis, or an embedded store that nobody has, this
//! process answers them itself, over the store; an embedded store that another process has is asked through that process's API.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use kalends_adapters::embedded::LOCK_NAME;
use kalends_adapters::secret::Secret;
use kalends_core::port::Store;
use kalends_core::time::Clock as _;
use reqwest::Method;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use serde_json::Value;
use tokio::sync::watch;

use crate::cli::operate::DeskArgs;
use crate::clock::SystemClock;
use crate::commands::users::is_in_use;
use crate::config::{Config, load};
use crate::exit::Exit;
use crate::handle::Readiness;
use crate::metrics::Metrics;
use crate::web::{ANSWER_BYTES_MAX, Web, WebSettings, ask};
use crate::wiring::{self, Queue, Refused};

/// How long a running process may take for its answer, in milliseconds.
const ANSWER_MS_MAX: u64 = 20_000;

/// Who answers.
pub(crate) struct Desk(Way);

enum Way {
    /// This process, over the store.
    Own {
        web: Arc<Web>,
        /// To be let go of; a reader has nothing to be.
        queue: Option<Queue>,
    },
    /// The process that has the store.
    Api {
        client: reqwest::Client,
        base: String,
        token: Option<Secret>,
    },
}

fn failed(detail: impl Into<String>) -> Refused {
    Refused {
        exit: Exit::Failed,
        detail: detail.into(),
    }
}

impl DeskArgs {
    /// Loads the configuration. Nothing is logged: the answer is what the command has to say.
    pub(crate) fn load(&self, environment: &BTreeMap<String, String>) -> Result<Config, Refused> {
        let mut request = self.config.request();
        if let Some(http) = &self.http {
            request.flags.push(("--http", http.clone()));
        }
        let loaded = load(&request, environment);
        let loaded = loaded.map_err(|error| Refused::bad_input(error.to_string()))?;
        Ok(loaded.config)
    }
}

impl Desk {
    /// For somebody who changes something.
    ///
    /// # Errors
    /// If the store cannot be had, and the process that has it cannot be asked.
    pub(crate) async fn to_change(config: &Config) -> Result<Desk, Refused> {
        if config.redis.is_none() && is_in_use(&config.store.data_dir) {
            return Desk::of_running(config);
        }
        let queue = Queue::open(config, Arc::new(SystemClock)).await?;
        if let Some(detail) = queue.check().await? {
            return Err(failed(detail));
        }
        let web = web(config, queue.store());
        let queue = Some(queue);
        Ok(Desk(Way::Own { web, queue }))
    }

    /// For somebody who only looks: that needs nobody's leave.
    ///
    /// # Errors
    /// If there is no store, or it cannot be read.
    pub(crate) fn to_look(config: &Config) -> Result<Desk, Refused> {
        let store = Queue::open_read_only(config, Arc::new(SystemClock))?;
        let web = web(config, store);
        Ok(Desk(Way::Own { web, queue: None }))
    }

    fn of_running(config: &Config) -> Result<Desk, Refused> {
        let folder = config.store.data_dir.display();
        let Some(listen) = config.http.listen.filter(|listen| listen.port() != 0) else {
            // The lock file holds the process's id, as text.
            let owner = std::fs::read_to_string(config.store.data_dir.join(LOCK_NAME));
            let owner = owner.ok().and_then(|text| text.trim().parse::<u32>().ok());
            let owner = owner.map_or_else(
                || "another process".to_owned(),
                |id| format!("process {id}"),
            );
            return Err(Refused::bad_input(format!(
                "{folder} is in use by {owner}: stop that one first, or start it with http.listen (or --http) and a token, and \
                 this command asks it"
            )));
        };
        Desk::at(config, listen)
    }

    /// The process that serves at `http.listen`, whatever store it has.
    ///
    /// # Errors
    /// If no address is known.
    pub(crate) fn process(config: &Config) -> Result<Desk, Refused> {
        let listen = config.http.listen.filter(|listen| listen.port() != 0);
        let listen = listen.ok_or_else(|| {
            Refused::bad_input(
                "no address is known at which a running process is asked: set http.listen, or give --http ADDRESS; or send \
                 it SIGHUP (kill -HUP, systemctl reload kalends), which does the same and tells its log",
            )
        })?;
        Desk::at(config, listen)
    }

    fn at(config: &Config, listen: SocketAddr) -> Result<Desk, Refused> {
        Desk::of_api(reachable(listen), config.http.token.clone(), ANSWER_MS_MAX)
    }

    /// The process whose API is at `address`, and answers within `answer_ms` milliseconds.
    fn of_api(address: SocketAddr, token: Option<Secret>, answer_ms: u64) -> Result<Desk, Refused> {
        let client = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(Duration::from_millis(answer_ms))
            // What is meant for this machine goes through no other one.
            .no_proxy()
            .build()
            .map_err(|error| failed(format!("no HTTP client can be made: {error}")))?;
        Ok(Desk(Way::Api {
            client,
            base: format!("http://{address}"),
            token,
        }))
    }

    /// Whether another process answers.
    pub(crate) fn is_remote(&self) -> bool {
        matches!(self.0, Way::Api { .. })
    }

    /// Asks; the answer.
    ///
    /// # Errors
    /// If it is a refusal, or nobody answers.
    pub(crate) async fn ask(
        &self,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Value, Refused> {
        let (status, answer) = match &self.0 {
            Way::Own { web, .. } => ask(web, method, path, body).await,
            Way::Api {
                client,
                base,
                token,
            } => {
                let method = Method::from_bytes(method.as_bytes()).expect("callers know them");
                let mut request = client.request(method, format!("{base}{path}"));
                if let Some(token) = token {
                    let bearer = HeaderValue::from_str(&format!("Bearer {}", token.expose()));
                    let mut bearer = bearer.expect("the configuration lets no other token pass");
                    bearer.set_sensitive(true);
                    request = request.header(AUTHORIZATION, bearer);
                }
                if let Some(body) = body {
                    let body = body.to_string();
                    request = request.header(CONTENT_TYPE, "application/json").body(body);
                }
                answer_of(request, base).await?
            }
        };
        if (200..300).contains(&status) {
            return Ok(answer);
        }
        let detail = answer["detail"]
            .as_str()
            .unwrap_or("refused, without a reason");
        Err(Refused {
            exit: match status {
                400 | 401 | 403 | 404 | 413 | 421 | 422 => Exit::BadInput,
                _ => Exit::Failed,
            },
            detail: detail.to_owned(),
        })
    }

    /// Lets go of the store.
    pub(crate) async fn close(self) {
        if let Way::Own {
            queue: Some(queue), ..
        } = self.0
        {
            queue.close().await;
        }
    }
}

async fn answer_of(request: reqwest::RequestBuilder, base: &str) -> Result<(u16, Value), Refused> {
    let away = |error: reqwest::Error| {
        failed(format!(
            "the process at {base} does not answer ({}); is it served there? See http.listen, or --http",
            error.without_url()
        ))
    };
    let mut response = request.send().await.map_err(away)?;
    let status = response.status().as_u16();
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(away)? {
        if body.len() + chunk.len() > ANSWER_BYTES_MAX {
            return Err(failed(format!(
                "what answers at {base} is no Kalends: it sends too much"
            )));
        }
        body.extend_from_slice(&chunk);
    }
    let value = serde_json::from_slice(&body).map_err(|_| {
        Refused::bad_input(format!(
            "what answers at {base} is no Kalends: see http.listen, or --http"
        ))
    })?;
    Ok((status, value))
}

/// An address at which a listener of this machine is reached.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

/// The API over a store, without a socket.
fn web(config: &Config, store: Arc<dyn Store>) -> Arc<Web> {
    let seed = config.worker.seed.unwrap_or_else(wiring::fresh_seed);
    let settings = WebSettings {
        address: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        token: None,
        hosts: Vec::new(),
        worker: wiring::worker_id(&config.worker.name),
        source: config.schedule.definition.source.clone(),
        spread: config.schedule.spread,
        jitter: config.schedule.jitter,
        seed,
        requests: WebSettings::REQUESTS,
        changes: WebSettings::CHANGES,
        bounds: WebSettings::BOUNDS,
        connections_per_address_max: None,
        reloader: None,
    };
    let (_, readiness) = watch::channel(Readiness::Ready);
    let metrics = Arc::new(Metrics::new(SystemClock.now(), 1));
    Web::new(settings, store, readiness, metrics)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hostile::{Hostile, LONG_MS, Manner, PATIENCE};

    const TOKEN: &str = "planted-api-token-0123456789";

    /// What an operator hears whose process is `server`.
    async fn refusal(server: &Hostile, answer_ms: u64) -> Refused {
        let token = Some(Secret::new(TOKEN));
        let desk = Desk::of_api(server.address, token, answer_ms).unwrap();
        let asked = desk.ask("POST", "/api/v1/resume", None);
        let asked = tokio::time::timeout(PATIENCE, asked).await;
        let refused = asked.expect("a request ends").unwrap_err();
        assert!(!refused.detail.contains(TOKEN), "{}", refused.detail);
        refused
    }

    #[tokio::test]
    async fn the_token_does_not_follow_a_redirect() {
        let trap = Hostile::start(Manner::Trap).await;
        for status in [301, 302, 303, 307, 308] {
            let server = Hostile::start(Manner::Redirect(status, trap.address)).await;
            refusal(&server, LONG_MS).await;
            // It was sent where it belongs, so that it could have been sent on.
            let asked = server.asked();
            assert_eq!(asked.len(), 1, "{status}");
            assert_eq!(asked[0][AUTHORIZATION], format!("Bearer {TOKEN}"));
        }
        assert_eq!(trap.asked().len(), 0);
    }

    #[tokio::test]
    async fn an_answer_that_never_comes_ends_with_the_timeout() {
        let server = Hostile::start(Manner::Silent).await;
        let refused = refusal(&server, 100).await;
        assert_eq!(refused.exit, Exit::Failed);
        let detail = refused.detail;
        assert!(detail.contains("does not answer"), "{detail}");
        assert!(detail.contains("http.listen"), "{detail}");
    }

    #[tokio::test]
    async fn an_answer_without_end_is_cut_short() {
        let server = Hostile::start(Manner::Endless).await;
        let refused = refusal(&server, LONG_MS).await;
        assert!(refused.detail.contains("too much"), "{}", refused.detail);
    }
}
