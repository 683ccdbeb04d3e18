//! What a program that embeds Kalends names most: `use kalends::prelude::*`.

pub use kalends_core::failure::{Failure, FailureKind};
pub use kalends_core::google::page::FetchReply;
pub use kalends_core::google::query::FetchRequest;
pub use kalends_core::graph::{GraphReply, GraphSnapshot, GraphWrite};
pub use kalends_core::id::{CalendarId, ScheduleName, SourceName, UserId};
pub use kalends_core::node::io::Notice;
pub use kalends_core::port::{Graph, Source, Store, StoreUnavailable};
pub use kalends_core::queue::command::{Command, Reply, Stamped};
pub use kalends_core::queue::state::JobKey;
pub use kalends_core::time::{Clock, Timestamp};

pub use crate::builder::{Builder, Kalends, StartError};
pub use crate::handle::{Event, Events, Handle, NotDone, NotEnqueued, Readiness, Why, grant_hash};
