//! Where tensors live, and how many threads compute.

use antiphon_core::{Error, Result};
use burn::tensor::Device;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Where tensors live.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
pub enum DeviceConfig {
    /// Burn's pure-Rust CPU backend.
    #[default]
    Flex,
    /// A GPU, through Vulkan, Metal or DirectX; needs the cargo feature `vulkan` or `wgpu`.
    Wgpu,
}

impl DeviceConfig {
    /// Its name in configs.
    pub const fn name(self) -> &'static str {
        match self {
            DeviceConfig::Flex => "flex",
            DeviceConfig::Wgpu => "wgpu",
        }
    }
}

/// The device that a config names, without autodiff. The first call starts it.
///
/// # Errors
/// If this build does not have it, or the machine has none.
pub(crate) fn device(config: DeviceConfig) -> Result<Device> {
    match config {
        DeviceConfig::Flex => {
            antiphon_kernels::keep_freed_memory();
            Ok(Device::flex())
        }
        DeviceConfig::Wgpu => gpu(),
    }
}

/// The best adapter that the graphics drivers offer; `CUBECL_WGPU_DEFAULT_DEVICE` names another.
#[cfg(feature = "wgpu")]
fn gpu() -> Result<Device> {
    use std::sync::OnceLock;
    // Burn starts an adapter once in a process.
    static STARTED: OnceLock<Result<Device>> = OnceLock::new();
    let start = || {
        let none = "no GPU can be used: install its driver (for Vulkan, on most systems), or compute with `flex`";
        Device::wgpu_options().init().map_err(|error| Error::new(format!("{none} ({error})")))
    };
    STARTED.get_or_init(start).clone()
}

#[cfg(not(feature = "wgpu"))]
fn gpu() -> Result<Device> {
    // Metal has no use for Vulkan's shaders.
    Err(crate::feature::missing("`wgpu`", if cfg!(target_os = "macos") { "wgpu" } else { "vulkan" }))
}

/// Starts the device that a config names; → what it calls itself, where several devices would answer to that name.
///
/// # Errors
/// As [`device`].
pub(crate) fn start_device(config: DeviceConfig) -> Result<Option<String>> {
    Ok(name_of(&device(config).map_err(|error| error.at("device"))?))
}

#[cfg(feature = "wgpu")]
fn name_of(device: &Device) -> Option<String> {
    device.identity().map(|identity| identity.name)
}

#[cfg(not(feature = "wgpu"))]
fn name_of(_: &Device) -> Option<String> {
    None
}

/// How many threads compute: as many as asked for, or as the machine has [cores](core_count) for us.
pub(crate) fn thread_count(asked: Option<usize>) -> usize {
    asked.unwrap_or_else(core_count)
}

/// How many cores there are for us: physical ones, since two threads of one core share the units that multiply; fewer where
/// the system allows this process fewer threads.
pub(crate) fn core_count() -> usize {
    let allowed = std::thread::available_parallelism().map_or(1, usize::from);
    num_cpus::get_physical().clamp(1, allowed)
}

/// Starts the threads that compute, once for the whole process. Starting as many a second time does nothing.
///
/// The thread that starts them is one of them, so that what it computes is not handed to another one, and its results back, at every
/// operation. While it waits for something else, it computes nothing: it must not wait for a thread that wants this pool.
pub(crate) fn start_threads(asked: Option<usize>) -> Result<()> {
    let wanted = thread_count(asked);
    match rayon::ThreadPoolBuilder::new().num_threads(wanted).use_current_thread().build_global() {
        Ok(()) => Ok(()),
        Err(_) if rayon::current_num_threads() == wanted => Ok(()),
        Err(error) => Err(Error::new(format!("cannot start {wanted} threads: {error}")).at("threads")),
    }
}
