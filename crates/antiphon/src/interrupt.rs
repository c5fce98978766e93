//! Ctrl-C and SIGTERM: the first asks for an orderly end, the second ends the process at once. A run that a sweep or
//! `reproduce` has started also ends in good order when that process is gone.

use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use antiphon_core::{Error, Result};
use antiphon_lab::sweep::LIFELINE;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

/// The exit code of a command that was interrupted.
pub(crate) const EXIT_CODE: u8 = 130;

/// A flag that is raised by the first signal, or, for a run that another process has started, by the end of that process.
///
/// # Errors
/// If the system does not let us listen.
pub(crate) fn stop_flag() -> Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        // In this order: a signal that finds the flag raised ends the process, before the flag is raised again.
        flag::register_conditional_shutdown(signal, i32::from(EXIT_CODE), Arc::clone(&stop))
            .and_then(|_| flag::register(signal, Arc::clone(&stop)))
            .map_err(|error| cannot_listen(signal, &error))?;
    }
    if std::env::var_os(LIFELINE).is_some() {
        let stop = Arc::clone(&stop);
        std::thread::spawn(move || {
            // Nothing is ever sent: this returns at the end, or with an error, which means the same.
            let _ = std::io::stdin().lock().read(&mut [0]);
            stop.store(true, Ordering::Relaxed);
        });
    }
    Ok(stop)
}

/// Makes the first signal end the process at once while `idle` is set: then nothing has begun that would have to be ended in good
/// order.
///
/// # Errors
/// As [`stop_flag`].
pub(crate) fn end_at_once_while(idle: &Arc<AtomicBool>) -> Result<()> {
    for signal in [SIGINT, SIGTERM] {
        flag::register_conditional_shutdown(signal, i32::from(EXIT_CODE), Arc::clone(idle))
            .map_err(|error| cannot_listen(signal, &error))?;
    }
    Ok(())
}

fn cannot_listen(signal: i32, error: &std::io::Error) -> Error {
    Error::new(format!("cannot listen to signal {signal}: {error}"))
}
