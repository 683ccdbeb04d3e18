//! The scripts, each put together from the parts that it needs.
//!
//! Lua in Redis has no modules: a script is one text, known by its hash. The parts stand in `lua/`; what a part needs
//! goes before it.

use std::sync::LazyLock;

use redis::Script;

use super::constants::put_in_place;

/// What comes behind these parts is a function within them. A function that is made finds a local variable beside it by
/// walking a list of all that are in use; one of a function further out it just has.
const LEVELS: [&str; 2] = ["lib", "flush"];

macro_rules! lua {
    ($($part:literal),+ $(,)?) => {
        put_together(&[$(($part, include_str!(concat!("lua/", $part, ".lua")))),+])
    };
}

fn put_together(parts: &[(&str, &str)]) -> Script {
    let (mut text, mut ends) = (String::new(), String::new());
    for (name, part) in parts {
        text.push_str(part);
        text.push('\n');
        if LEVELS.contains(name) {
            text.push_str("return (function()\n");
            ends.push_str("end)()\n");
        }
    }
    Script::new(&put_in_place(&(text + &ends)))
}

/// All scripts. What each does is said at the head of its own part.
#[derive(Debug)]
pub(super) struct Scripts {
    pub(super) checkpoint: Script,
    pub(super) checkpoint_fan_out: Script,
    pub(super) connect: Script,
    pub(super) define_schedule: Script,
    pub(super) define_source: Script,
    pub(super) due_by_latest: Script,
    pub(super) due_users: Script,
    /// Of one source, without a checkpoint: it has few keys ([`Layout::few_keys`](super::layout::Layout::few_keys)).
    pub(super) enqueue: Script,
    pub(super) enqueue_with_progress: Script,
    pub(super) enroll: Script,
    pub(super) finish: Script,
    pub(super) heartbeat: Script,
    pub(super) jobs: Script,
    pub(super) limited: Script,
    pub(super) limited_fan_out: Script,
    pub(super) look_again: Script,
    pub(super) mend: Script,
    pub(super) operate: Script,
    pub(super) operate_all: Script,
    pub(super) remove: Script,
    pub(super) remove_schedule: Script,
    pub(super) take_failed: Script,
    pub(super) schedule: Script,
    pub(super) schedules: Script,
    pub(super) stats: Script,
    pub(super) tick: Script,
    pub(super) trim_history: Script,
    pub(super) turn: Script,
    pub(super) unenroll: Script,
    pub(super) users: Script,
}

pub(super) static SCRIPTS: LazyLock<Scripts> = LazyLock::new(|| Scripts {
    checkpoint: lua!(
        "keys",
        "lib",
        "guard",
        "sources",
        "rows",
        "flush",
        "windows",
        "flows",
        "schedule_rows",
        "checkpoint"
    ),
    checkpoint_fan_out: lua!(
        "keys",
        "lib",
        "guard",
        "all_sources",
        "sources",
        "rows",
        "flush",
        "windows",
        "flows",
        "schedule_rows",
        "checkpoint"
    ),
    connect: lua!(
        "keys", "lib", "guard", "sources", "rows", "flush", "wishes", "connect"
    ),
    define_schedule: lua!(
        "keys",
        "lib",
        "guard",
        "sources",
        "rows",
        "flush",
        "schedule_rows",
        "define_schedule"
    ),
    define_source: lua!("keys", "lib", "guard", "sources", "define_source"),
    due_by_latest: lua!("keys", "lib", "guard", "rows", "flush", "due_by_latest"),
    due_users: lua!("keys", "lib", "guard", "due_users"),
    enqueue: lua!(
        "few_keys",
        "lib",
        "guard",
        "enqueue_plain",
        "rows",
        "flush",
        "wishes",
        "enqueue"
    ),
    enqueue_with_progress: lua!(
        "keys",
        "lib",
        "guard",
        "enqueue_plain",
        "rows",
        "flush",
        "wishes",
        "enqueue"
    ),
    enroll: lua!("keys", "lib", "guard", "sources", "rows", "flush", "enroll"),
    finish: lua!(
        "keys",
        "lib",
        "guard",
        "sources",
        "rows",
        "flush",
        "wishes",
        "history",
        "plain",
        "setbacks",
        "finish",
        "finish_answer"
    ),
    heartbeat: lua!("keys", "lib", "guard", "rows", "flush", "heartbeat"),
    jobs: lua!(
        "keys",
        "lib",
        "guard",
        "all_sources",
        "rows",
        "flush",
        "jobs"
    ),
    limited: lua!(
        "keys",
        "lib",
        "guard",
        "sources",
        "ramp",
        "rows",
        "flush",
        "wishes",
        "schedule_rows",
        "limited"
    ),
    limited_fan_out: lua!(
        "keys",
        "lib",
        "guard",
        "all_sources",
        "sources",
        "ramp",
        "rows",
        "flush",
        "wishes",
        "schedule_rows",
        "limited"
    ),
    look_again: lua!("keys", "lib", "guard", "rows", "flush", "look_again"),
    mend: lua!(
        "keys",
        "lib",
        "all_sources",
        "sources",
        "rows",
        "flush",
        "windows",
        "flows",
        "schedule_rows",
        "mend"
    ),
    operate: lua!("keys", "lib", "guard", "sources", "ramp", "operate"),
    operate_all: lua!(
        "keys",
        "lib",
        "guard",
        "all_sources",
        "sources",
        "ramp",
        "operate"
    ),
    remove: lua!("keys", "lib", "guard", "rows", "flush", "remove"),
    remove_schedule: lua!(
        "keys",
        "lib",
        "guard",
        "rows",
        "flush",
        "remove_row",
        "remove_schedule"
    ),
    take_failed: lua!(
        "keys",
        "lib",
        "guard",
        "all_sources",
        "rows",
        "flush",
        "wishes",
        "schedule_rows",
        "take_failed"
    ),
    schedule: lua!(
        "keys",
        "lib",
        "guard",
        "rows",
        "flush",
        "schedule_rows",
        "schedule"
    ),
    schedules: lua!("keys", "lib", "guard", "schedules"),
    stats: lua!(
        "keys",
        "lib",
        "guard",
        "all_sources",
        "sources",
        "rows",
        "flush",
        "windows",
        "flows",
        "stats"
    ),
    tick: lua!(
        "keys",
        "lib",
        "guard",
        "rows",
        "flush",
        "wishes",
        "schedule_rows",
        "tick"
    ),
    trim_history: lua!("keys", "lib", "guard", "sources", "trim_history"),
    turn: lua!(
        "keys",
        "lib",
        "guard",
        "all_sources",
        "sources",
        "rows",
        "flush",
        "wishes",
        "windows",
        "flows",
        "history",
        "plain",
        "setbacks",
        "finish",
        "claimed",
        "recovery",
        "claim"
    ),
    unenroll: lua!(
        "keys",
        "lib",
        "guard",
        "sources",
        "rows",
        "flush",
        "remove_row",
        "windows",
        "flows",
        "unenroll"
    ),
    users: lua!("keys", "lib", "guard", "rows", "flush", "users"),
});
