//! The command line, from outside: the program is started on a small corpus in a folder of its own.

mod broken;
mod chat;
#[cfg(unix)]
mod ctc_alone;
mod dashboard;
mod data;
mod dialogs;
mod ensembles;
#[cfg(unix)]
mod full_disk;
#[cfg(unix)]
mod fusion;
mod generate;
mod going_on;
#[cfg(unix)]
mod guide;
#[cfg(unix)]
mod interruption;
mod judging;
#[cfg(unix)]
mod language_models;
mod mistakes;
mod model;
mod older;
mod place;
mod provenance;
mod questions;
mod readers;
mod report;
mod reproduce;
mod rerank;
#[cfg(unix)]
mod resume;
mod runs;
mod smallest;
mod speech;
mod stream;
#[cfg(unix)]
mod suggestions;
mod sweep;
mod tables;
mod teacher;
mod text;
mod wgpu;
