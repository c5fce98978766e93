//! Why a task did not succeed, and the exit code that says so.

use std::process::ExitStatus;

use antiphon_core::Error;

/// What a task comes to.
pub(crate) type Outcome<T = ()> = Result<T, Stop>;

/// Why a task did not succeed.
#[derive(Debug, PartialEq)]
pub(crate) enum Stop {
    /// A mistake in what was given, or a failing machine: exit code 2.
    Mistake(Error),
    /// A check of ours did not hold: exit code 1.
    Failed(String),
    /// A process that we started has said why; its exit code is ours.
    Quietly(u8),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Stop::Mistake(error)
    }
}

impl Stop {
    /// Passes a process' failure on.
    pub(crate) fn unless_success(status: ExitStatus) -> Outcome {
        if status.success() { Ok(()) } else { Err(Stop::Quietly(code(status))) }
    }
}

/// The exit code; behind a signal 128 and its number, as shells have it (130 after Ctrl-C).
fn code(status: ExitStatus) -> u8 {
    #[cfg(unix)]
    let signal = std::os::unix::process::ExitStatusExt::signal(&status);
    #[cfg(not(unix))]
    let signal: Option<i32> = None;
    let code = status.code().or(signal.map(|signal| 128 + signal)).unwrap_or(1);
    u8::try_from(code).unwrap_or(1)
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;

    #[test]
    fn exit_codes_and_signals_are_passed_on() {
        assert_eq!(Stop::unless_success(ExitStatus::from_raw(0)), Ok(()));
        assert_eq!(Stop::unless_success(ExitStatus::from_raw(101 << 8)), Err(Stop::Quietly(101)));
        assert_eq!(Stop::unless_success(ExitStatus::from_raw(2)), Err(Stop::Quietly(130)));
    }
}
