//! The scripts, each put together from the parts that it needs.
//!
//! Lua in Redis has no modules: a script is one text, known by its hash. The parts stand in `lua/`; what a part needs
//! goes before it.

use std::sync::LazyLock;

use redis::Script;

use super::constants::put_in_place;

macro_rules! lua {
    ($($part:literal),+ $(,)?) => {
        Script::new(&put_in_place(concat!(
            $(include_str!(concat!("lua/", $part, ".lua")), "\n"),+
        )))
    };
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
    pub(super) enqueue: Script,
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
    pub(super) retry_failed: Script,
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
        "lib",
        "guard",
        "sources",
        "rows",
        "windows",
        "flows",
        "schedule_rows",
        "checkpoint"
    ),
    checkpoint_fan_out: lua!(
        "lib",
        "guard",
        "all_sources",
        "sources",
        "rows",
        "windows",
        "flows",
        "schedule_rows",
        "checkpoint"
    ),
    connect: lua!("lib", "guard", "sources", "rows", "connect"),
    define_schedule: lua!(
        "lib",
        "guard",
        "sources",
        "rows",
        "schedule_rows",
        "define_schedule"
    ),
    define_source: lua!("lib", "guard", "sources", "define_source"),
    due_by_latest: lua!("lib", "guard", "rows", "due_by_latest"),
    due_users: lua!("lib", "guard", "due_users"),
    enqueue: lua!("lib", "guard", "sources", "rows", "enqueue"),
    enroll: lua!("lib", "guard", "sources", "rows", "enroll"),
    finish: lua!(
        "lib",
        "guard",
        "sources",
        "rows",
        "history",
        "stall",
        "finish",
        "finish_answer"
    ),
    heartbeat: lua!("lib", "guard", "rows", "heartbeat"),
    jobs: lua!("lib", "guard", "all_sources", "rows", "jobs"),
    limited: lua!(
        "lib",
        "guard",
        "sources",
        "rows",
        "schedule_rows",
        "limited"
    ),
    limited_fan_out: lua!(
        "lib",
        "guard",
        "all_sources",
        "sources",
        "rows",
        "schedule_rows",
        "limited"
    ),
    look_again: lua!("lib", "guard", "rows", "look_again"),
    mend: lua!(
        "lib",
        "all_sources",
        "sources",
        "rows",
        "windows",
        "flows",
        "schedule_rows",
        "mend"
    ),
    operate: lua!("lib", "guard", "sources", "operate"),
    operate_all: lua!("lib", "guard", "all_sources", "sources", "operate"),
    remove: lua!("lib", "guard", "rows", "remove"),
    remove_schedule: lua!("lib", "guard", "rows", "remove_schedule"),
    retry_failed: lua!(
        "lib",
        "guard",
        "all_sources",
        "rows",
        "schedule_rows",
        "retry_failed"
    ),
    schedule: lua!("lib", "guard", "rows", "schedule_rows", "schedule"),
    schedules: lua!("lib", "guard", "schedules"),
    stats: lua!(
        "lib",
        "guard",
        "all_sources",
        "sources",
        "rows",
        "windows",
        "flows",
        "stats"
    ),
    tick: lua!("lib", "guard", "rows", "schedule_rows", "tick"),
    trim_history: lua!("lib", "guard", "sources", "trim_history"),
    turn: lua!(
        "lib",
        "guard",
        "all_sources",
        "sources",
        "rows",
        "windows",
        "flows",
        "history",
        "stall",
        "finish",
        "claim"
    ),
    unenroll: lua!(
        "lib", "guard", "sources", "rows", "windows", "flows", "unenroll"
    ),
    users: lua!("lib", "guard", "rows", "users"),
});
