//! How a command ends: three codes, so that a script or a supervisor can tell them apart.

use std::process::ExitCode;

/// The exit codes of `kalends`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// 0: done, or stopped by SIGTERM or SIGINT with everything handed back.
    Done = 0,
    /// 1: it began and failed. Trying again may help; the log says what happened.
    Failed = 1,
    /// 2: what it was given is wrong (flags, configuration, files), or in use by another process (the store, a port).
    /// Nothing was started; trying again does not help before somebody has put that right.
    BadInput = 2,
}

impl Exit {
    /// The code as a number.
    #[must_use]
    pub fn code(self) -> u8 {
        self as u8
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit.code())
    }
}
