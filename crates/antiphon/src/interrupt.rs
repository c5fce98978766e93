//! Ctrl-C and SIGTERM: the first asks for an orderly end, the second ends the process at once.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use antiphon_core::{Error, Result};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

/// The exit code of a command that was interrupted.
pub(crate) const EXIT_CODE: u8 = 130;

/// A flag that is raised by the first signal.
pub(crate) fn stop_flag() -> Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        // In this order: a signal that finds the flag raised ends the process, before the flag is raised again.
        flag::register_conditional_shutdown(signal, i32::from(EXIT_CODE), Arc::clone(&stop))
            .and_then(|_| flag::register(signal, Arc::clone(&stop)))
            .map_err(|error| Error::new(format!("cannot listen to signal {signal}: {error}")))?;
    }
    Ok(stop)
}
