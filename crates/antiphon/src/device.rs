//! Where tensors live, and how many threads compute.

use antiphon_core::{Error, Result};
use burn::tensor::Device;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Where tensors live.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DeviceConfig {
    /// Burn's pure-Rust CPU backend.
    #[default]
    Flex,
}

impl DeviceConfig {
    /// Its name in configs.
    pub const fn name(self) -> &'static str {
        match self {
            DeviceConfig::Flex => "flex",
        }
    }
}

/// The device that a config names, without autodiff.
pub(crate) fn device(config: DeviceConfig) -> Device {
    match config {
        DeviceConfig::Flex => {
            antiphon_kernels::keep_freed_memory();
            Device::flex()
        }
    }
}

/// How many threads compute: as many as asked for, or as the machine has cores for us.
pub(crate) fn thread_count(asked: Option<usize>) -> usize {
    asked.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from))
}

/// Starts the threads that compute, once for the whole process. Starting as many a second time does nothing.
pub(crate) fn start_threads(asked: Option<usize>) -> Result<()> {
    let wanted = thread_count(asked);
    match rayon::ThreadPoolBuilder::new().num_threads(wanted).build_global() {
        Ok(()) => Ok(()),
        Err(_) if rayon::current_num_threads() == wanted => Ok(()),
        Err(error) => Err(Error::new(format!("cannot start {wanted} threads: {error}")).at("threads")),
    }
}
