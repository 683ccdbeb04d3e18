//! Asking a script: its keys, its arguments, its answer, and what has to be done first if it says so.
//!
//! Two things may come first. A script that goes over all sources is told which this process knows; if there are others
//! it names them, and is asked again with their keys. And a clock that stepped back is minded page by page: until that is
//! done every script answers `mend`, and whoever hears it does the next page.

use std::sync::{Mutex, PoisonError};

use kalends_core::id::SourceName;
use kalends_core::port::StoreUnavailable;
use kalends_core::time::Timestamp;
use redis::Script;

use super::layout::{Keys, Layout};
use super::link::Link;
use super::scripts::SCRIPTS;
use super::wire::{Unreadable, Value, Writer};

/// How often one command learns of new sources at the most: each time somebody has just defined one.
const SOURCES_LEARNED_MAX: u32 = 10;
/// Pages of 200 users that one command mends at the most, before it says that the store is busy; the next goes on.
const MEND_PAGES_MAX: u32 = 2_000;

/// Whose keys a script needs.
#[derive(Clone, Copy, Debug)]
pub(super) enum Scope<'a> {
    /// These sources, in this order; often none or one.
    Of(&'a [SourceName]),
    /// This one, by a script that only enqueues there.
    Few(&'a SourceName),
    /// All that there are.
    All,
}

/// What a script said.
#[derive(Debug)]
pub(super) struct Answer {
    /// The server's time.
    pub(super) now: Timestamp,
    /// In one word.
    pub(super) word: String,
    /// What belongs to the word.
    pub(super) rest: Vec<Value>,
    /// The sources whose blocks the answer speaks of: block 1 is the first.
    pub(super) sources: Vec<SourceName>,
}

impl Answer {
    /// What belongs to the word: exactly `N` values.
    pub(super) fn fields<const N: usize>(self) -> Result<[Value; N], Unreadable> {
        Value::List(self.rest).fields()
    }
}

/// Asks scripts over a link.
#[derive(Debug)]
pub(super) struct Asker {
    link: Link,
    layout: Layout,
    /// All sources that this process knows of, by name.
    known: Mutex<Vec<SourceName>>,
}

impl Asker {
    pub(super) fn new(link: Link, prefix: &str) -> Self {
        Asker {
            link,
            layout: Layout::new(prefix),
            known: Mutex::default(),
        }
    }

    pub(super) fn link(&self) -> &Link {
        &self.link
    }

    /// Runs `script` with the arguments that `write` adds (the names of the sources come before them, and are told to it,
    /// as they may be all there are) as if the server's clock said `now`, if that is given.
    ///
    /// # Errors
    /// If the server cannot be asked, or its answer cannot be understood.
    pub(super) async fn ask(
        &self,
        script: &Script,
        scope: Scope<'_>,
        now: Option<Timestamp>,
        write: impl Fn(&mut Writer, &[SourceName]) + Send + Sync,
    ) -> Result<Answer, StoreUnavailable> {
        for _ in 0..SOURCES_LEARNED_MAX {
            let sources = match scope {
                Scope::Of(sources) => sources.to_vec(),
                Scope::Few(source) => vec![source.clone()],
                Scope::All => self.known(),
            };
            let keys = match scope {
                Scope::Few(source) => self.layout.few_keys(source),
                _ => self.layout.keys(&sources),
            };
            let answer = self.once(script, &keys, sources, now, &write).await?;
            match answer.word.as_str() {
                "mend" => Box::pin(self.mend(now)).await?,
                "sources" => self.learn(answer)?,
                _ => return Ok(answer),
            }
        }
        Err(busy("sources are being defined"))
    }

    async fn once(
        &self,
        script: &Script,
        keys: &Keys,
        sources: Vec<SourceName>,
        now: Option<Timestamp>,
        write: impl Fn(&mut Writer, &[SourceName]),
    ) -> Result<Answer, StoreUnavailable> {
        let mut arguments = Writer::default();
        arguments.list(sources.len());
        for source in &sources {
            arguments.text(source.as_str());
        }
        write(&mut arguments, &sources);
        let time = now.map_or_else(String::new, |now| now.as_ms().to_string());
        let given = self
            .link
            .call(script, keys, &[time.as_bytes(), arguments.bytes()])
            .await
            .map_err(|error| StoreUnavailable {
                detail: error.detail,
            })?;
        read_answer(given, sources).map_err(misread)
    }

    /// Minds the clock's step back until it is done.
    async fn mend(&self, now: Option<Timestamp>) -> Result<(), StoreUnavailable> {
        for _ in 0..MEND_PAGES_MAX {
            let sources = self.known();
            let keys = self.layout.keys(&sources);
            let mended = self.once(&SCRIPTS.mend, &keys, sources, now, |_, _| {});
            let answer = mended.await?;
            match answer.word.as_str() {
                "done" => return Ok(()),
                "sources" => self.learn(answer)?,
                _ => {}
            }
        }
        Err(busy("its clock stepped back, and every user is looked at"))
    }

    fn known(&self) -> Vec<SourceName> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.clone()
    }

    fn learn(&self, answer: Answer) -> Result<(), StoreUnavailable> {
        let [names] = answer.fields().map_err(misread)?;
        let names = names.list().map_err(misread)?;
        let names = names.into_iter().map(Value::name::<SourceName>);
        let mut names = names.collect::<Result<Vec<_>, _>>().map_err(misread)?;
        names.sort();
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = names;
        Ok(())
    }
}

fn read_answer(given: redis::Value, sources: Vec<SourceName>) -> Result<Answer, Unreadable> {
    let redis::Value::BulkString(bytes) = given else {
        return Err(Unreadable("an answer is no text"));
    };
    let mut values = Value::read_all(&bytes)?.into_iter();
    let (Some(now), Some(word)) = (values.next(), values.next()) else {
        return Err(Unreadable("an answer is too short"));
    };
    Ok(Answer {
        now: now.time()?,
        word: word.text()?,
        rest: values.collect(),
        sources,
    })
}

/// The answer is not what this version's scripts give.
pub(super) fn misread(unreadable: Unreadable) -> StoreUnavailable {
    StoreUnavailable {
        detail: format!(
            "what Redis answered cannot be read ({}): does another version of Kalends, or another program, write keys \
             with this redis.prefix?",
            unreadable.0
        ),
    }
}

fn busy(why: &str) -> StoreUnavailable {
    StoreUnavailable {
        detail: format!("the queue in Redis is busy just now ({why}); it is asked again"),
    }
}
