//! The webhook of a process that is told to stop while its store hangs.

#![allow(
    clippy::unwrap_used,
    reason = "all of this file is a test, its helpers too"
)]

use std::sync::Arc;

use async_trait::async_trait;
use kalends::clock::SystemClock;
use kalends::handle::Readiness;
use kalends::metrics::Metrics;
use kalends::web::{Hooks, serve_webhook};
use kalends_adapters::google::Webhook;
use kalends_adapters::secret::Secret;
use kalends_core::failure::Failure;
use kalends_core::google::page::FetchReply;
use kalends_core::google::query::FetchRequest;
use kalends_core::id::{SourceName, UserId};
use kalends_core::port::{Source, Store, StoreUnavailable};
use kalends_core::push::channel_id;
use kalends_core::queue::command::{Command, LeaseToken, Reply, Stamped};
use kalends_core::time::Clock as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};

/// A store that is asked and never answers.
#[derive(Default)]
struct Hangs {
    is_asked: Notify,
}

#[async_trait]
impl Store for Hangs {
    async fn apply(&self, _: Command) -> Result<Stamped<Reply>, StoreUnavailable> {
        self.is_asked.notify_one();
        std::future::pending().await
    }

    async fn wait_for_wake(&self) {
        std::future::pending().await
    }
}

struct NoGoogle;

#[async_trait]
impl Source for NoGoogle {
    async fn fetch(&self, _: FetchRequest) -> Result<FetchReply, Failure> {
        Err(Failure::transient("there is no Google here"))
    }
}

/// Nobody would ask for what it accepted now: the process ends before its store has answered.
#[tokio::test]
async fn a_process_that_stops_accepts_nothing_while_its_store_hangs() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let key = Secret::new("0123456789abcdef0123456789abcdef");
    let webhook = Webhook::new("https://kalends.example.com/google", &key).unwrap();
    let channel = channel_id(LeaseToken(1), 0);
    let token = webhook.token(&UserId::new("ada").unwrap(), &channel);
    let token = token.unwrap();
    let store = Arc::new(Hangs::default());
    let (readiness, changes) = watch::channel(Readiness::Ready);
    let serving = tokio::spawn(serve_webhook(
        listener,
        Hooks {
            webhook: Arc::new(webhook),
            readiness: changes,
            store: store.clone(),
            source: Arc::new(NoGoogle),
            source_name: SourceName::google_calendar(),
            metrics: Arc::new(Metrics::new(SystemClock.now(), 1)),
            connections_per_address_max: None,
        },
    ));
    let tell = async || {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!(
            "POST /google HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nX-Goog-Channel-Id: {channel}\r\n\
             X-Goog-Channel-Token: {token}\r\nX-Goog-Resource-State: exists\r\nContent-Length: 0\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer.split(' ').nth(1).unwrap().to_owned()
    };
    assert_eq!(tell().await, "204");
    store.is_asked.notified().await;
    assert_eq!(tell().await, "204");
    readiness.send_replace(Readiness::Stopping);
    assert_eq!(tell().await, "503");
    serving.abort();
}
