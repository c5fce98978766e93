//! The command line, from outside: the program is started on a small corpus in a folder of its own.

mod data;
#[cfg(unix)]
mod interruption;
mod mistakes;
mod model;
mod place;
mod report;
mod reproduce;
mod runs;
mod sweep;
