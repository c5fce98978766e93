//! What a build without the cargo feature says.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crate::feature::missing;
use antiphon_core::{Place, Result};
use antiphon_train::{StepReport, TrainConfig, ValidationReport};

/// There is none.
pub(crate) enum Dashboard {}

impl Dashboard {
    pub(crate) fn check() -> Result<()> {
        Err(missing("the dashboard", "dashboard").at(Place::text("--dashboard")))
    }

    pub(crate) fn new(_: &str, _: &TrainConfig, _: Arc<AtomicBool>) -> Result<Self> {
        Err(missing("the dashboard", "dashboard").at(Place::text("--dashboard")))
    }

    pub(crate) fn is_shown(&self) -> bool {
        match *self {}
    }

    pub(crate) fn is_closed(&self) -> bool {
        match *self {}
    }

    pub(crate) fn step(&mut self, _: &StepReport) {
        match *self {}
    }

    pub(crate) fn validation(&mut self, _: &ValidationReport) {
        match *self {}
    }
}
