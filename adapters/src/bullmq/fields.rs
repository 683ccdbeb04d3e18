//! The hashes of jobs and repeatables, looked up a page at a time: first of what type each key is, then how long each
//! field, then the fields that are short enough.

use redis::pipe;

use super::{BullmqError, BullmqQueue, ID_BYTES_MAX, explain};

/// The longest field that is fetched, in bytes. A page whose fields are all as long as this takes 90 MB.
pub(super) const FIELD_BYTES_MAX: u64 = 16 * 1_024;

/// What was found under the key of a job or repeatable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lookup<T> {
    /// Its hash.
    Found(T),
    /// Nothing.
    Gone,
    /// Something that is no hash.
    OtherType,
    /// The id is longer than [`ID_BYTES_MAX`]: it was not looked up. Its length, in bytes.
    IdTooLong(usize),
}

/// A field of a hash.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Field {
    /// It is not there, or empty.
    #[default]
    Absent,
    /// Its text; bytes that are no UTF-8 are replaced.
    Text(String),
    /// It is longer than 16 KiB and was not fetched. Its length, in bytes.
    TooLong(u64),
}

impl Field {
    /// The text; `None` if there is none, or too much of it.
    #[must_use]
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Field::Text(text) => Some(text),
            Field::Absent | Field::TooLong(_) => None,
        }
    }
}

impl From<&str> for Field {
    fn from(text: &str) -> Field {
        Field::Text(text.to_owned())
    }
}

/// A hash with known fields.
pub(super) trait Fields: Sized {
    /// Their names.
    const NAMES: &'static [&'static str];
    /// Made of their values, in the order of the names.
    fn new(values: Vec<Field>) -> Self;
}

macro_rules! fields {
    ($(#[$meta:meta])* $name:ident { $($(#[$field_meta:meta])* $field:ident: $key:literal,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub struct $name {
            $($(#[$field_meta])* pub $field: Field,)*
        }

        impl Fields for $name {
            const NAMES: &'static [&'static str] = &[$($key),*];
            fn new(values: Vec<Field>) -> Self {
                let mut values = values.into_iter();
                $name { $($field: values.next().unwrap_or_default()),* }
            }
        }
    };
}

fields!(
    /// What a job's hash says, as text.
    JobFields {
        /// The job's name.
        name: "name",
        /// What the service gave it, as JSON.
        data: "data",
        /// Its options, as JSON: `lifo`, `repeat` and more.
        opts: "opts",
        /// 0, or absent: none; 1 the highest, 2,097,152 the lowest.
        priority: "priority",
        /// The key of the repeatable that it came from.
        repeat_key: "rjk",
    }
);

fields!(
    /// What a repeatable's hash says, as text. Times are milliseconds since the epoch.
    RepeatFields {
        /// The name of its jobs.
        name: "name",
        /// A cron pattern of five or six fields.
        pattern: "pattern",
        /// Or a period in milliseconds.
        every: "every",
        /// The time zone of the pattern.
        time_zone: "tz",
        /// When it begins.
        start_date: "startDate",
        /// When it ends.
        end_date: "endDate",
        /// How often it runs at the most.
        limit: "limit",
        /// How far its period is moved from multiples of itself, in milliseconds.
        offset: "offset",
        /// The data of its jobs, as JSON (job schedulers only).
        data: "data",
        /// The options of its jobs, as JSON (job schedulers only).
        opts: "opts",
        /// How often it ran (job schedulers only).
        iterations: "ic",
    }
);

impl BullmqQueue {
    /// The hashes of `ids`, whose keys have `infix` between the queue's name and the id.
    pub(super) async fn look_up<T: Fields>(
        &self,
        infix: &str,
        ids: &[&[u8]],
    ) -> Result<Vec<Lookup<T>>, BullmqError> {
        let short = ids.iter().filter(|id| id.len() <= ID_BYTES_MAX);
        let keys: Vec<Vec<u8>> = short.map(|id| self.key_of(infix, id)).collect();
        let mut types = pipe();
        for key in &keys {
            types.cmd("TYPE").arg(key);
        }
        let types: Vec<String> = self.ask_all(&types).await?;
        let is_hash = |kind: &String| kind == "hash";
        let hashes = keys.iter().zip(&types).filter(|(_, kind)| is_hash(kind));
        let hashes: Vec<&[u8]> = hashes.map(|(key, _)| key.as_slice()).collect();
        let mut found = self.fetch::<T>(&hashes).await?.into_iter();
        let mut types = types.into_iter();
        let lookup = |id: &&[u8]| {
            if id.len() > ID_BYTES_MAX {
                return Lookup::IdTooLong(id.len());
            }
            match types.next().as_deref() {
                Some("hash") => found.next().map_or(Lookup::Gone, Lookup::Found),
                Some("none") | None => Lookup::Gone,
                Some(_) => Lookup::OtherType,
            }
        };
        Ok(ids.iter().map(lookup).collect())
    }

    async fn fetch<T: Fields>(&self, keys: &[&[u8]]) -> Result<Vec<T>, BullmqError> {
        let mut lengths = pipe();
        for key in keys {
            for name in T::NAMES {
                lengths.cmd("HSTRLEN").arg(key).arg(name);
            }
        }
        let lengths: Vec<u64> = self.ask_all(&lengths).await?;
        let mut values = pipe();
        let wanted = |length: u64| (1..=FIELD_BYTES_MAX).contains(&length);
        for (key, lengths) in keys.iter().zip(lengths.chunks(T::NAMES.len())) {
            for (name, length) in T::NAMES.iter().zip(lengths) {
                if wanted(*length) {
                    values.cmd("HGET").arg(key).arg(name);
                }
            }
        }
        let values: Vec<Option<Vec<u8>>> = self.ask_all(&values).await?;
        let mut values = values.into_iter();
        let mut field = |length: u64| match length {
            0 => Field::Absent,
            _ if wanted(length) => values
                .next()
                .flatten()
                .map_or(Field::Absent, |bytes| Field::Text(text(&bytes))),
            _ => Field::TooLong(length),
        };
        let hashes = lengths.chunks(T::NAMES.len());
        Ok(hashes
            .map(|lengths| T::new(lengths.iter().map(|length| field(*length)).collect()))
            .collect())
    }

    fn key_of(&self, infix: &str, id: &[u8]) -> Vec<u8> {
        let mut key = self.key(infix).into_bytes();
        key.extend_from_slice(id);
        key
    }

    async fn ask_all<T: redis::FromRedisValue>(
        &self,
        commands: &redis::Pipeline,
    ) -> Result<Vec<T>, BullmqError> {
        if commands.is_empty() {
            return Ok(Vec::new());
        }
        let mut connection = self.connection.clone();
        let answers = commands.query_async(&mut connection).await;
        answers.map_err(|error| explain(&error))
    }
}

/// Bytes as text; those that are no UTF-8 are replaced.
fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// An id as text, cut to [`ID_BYTES_MAX`].
pub(super) fn id_text(bytes: &[u8]) -> String {
    text(&bytes[..bytes.len().min(ID_BYTES_MAX)])
}
