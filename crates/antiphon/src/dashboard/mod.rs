//! `--dashboard`: a training as curves and bars that fill the terminal.
//!
//! ```text
//! Observer ─▶ Console ─▶ Dashboard ─ reports ─▶ [thread: View ─▶ burn-train's renderer ─▶ terminal]
//! ```
//!
//! The drawing is burn-train's. `view` tells its renderer what our reports say; `screen` gives the terminal to it
//! and takes it back. Without the cargo feature `dashboard`, nobody can make a [`Dashboard`].

#[cfg(not(feature = "dashboard"))]
mod absent;
#[cfg(feature = "dashboard")]
mod screen;
#[cfg(feature = "dashboard")]
mod view;

#[cfg(not(feature = "dashboard"))]
pub(crate) use absent::Dashboard;
#[cfg(feature = "dashboard")]
pub(crate) use screen::Dashboard;
