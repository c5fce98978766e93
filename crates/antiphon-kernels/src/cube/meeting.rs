//! Cubes that wait for each other within a launch, where a GPU lets them.
//!
//! No graphics interface promises that all cubes of a launch run at once, and one that waits for another that never starts would
//! wait for ever. So a device is asked once, by a launch of cubes that hold twice the shared memory of those that will wait, whether they meet; none
//! waits without bound; and what was made after a meeting that failed is NaN, so that a training sees it.

use std::sync::{LazyLock, Mutex};

use cubecl::client::Client;
use cubecl::ir::DeviceIdentity;
use cubecl::prelude::*;

use super::UNITS;
use super::tile::SUMS;

/// How often a cube looks before it gives up: some seconds.
const LOOKS: u32 = 1 << 24;

/// The same for the question, which every process asks: some milliseconds.
const LOOKS_OF_QUESTION: u32 = 1 << 14;

/// A NaN.
const NAN_BITS: u32 = 0x7fc0_0000;

/// Cubes that are asked about, the most first.
pub(crate) const ASKED: [usize; 3] = [128, 64, 32];

/// A launch for every step wherever this variable of the environment is set to it, for drivers on which the question is answered wrongly.
const APART: (&str, &str) = ("ANTIPHON_GPU_STEPS", "apart");

/// Whether so many cubes of 256 units and 16 KiB can wait for each other on this device.
pub(crate) fn can_meet(client: &Client, cubes: usize) -> bool {
    static KNOWN: Mutex<Vec<(DeviceIdentity, usize)>> = Mutex::new(Vec::new());
    static IS_APART: LazyLock<bool> = LazyLock::new(|| std::env::var_os(APART.0).is_some_and(|value| value == APART.1));
    let properties = client.properties();
    if *IS_APART || !properties.features.device_memory_scope {
        return false;
    }
    let mut known = KNOWN.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let most = known.iter().find(|(device, _)| *device == properties.identity).map(|&(_, most)| most);
    let most = most.unwrap_or_else(|| {
        let most = ASKED.into_iter().find(|&cubes| do_meet(client, cubes)).unwrap_or(0);
        known.push((properties.identity.clone(), most));
        most
    });
    cubes <= most
}

/// Lets cubes meet a few times; → whether all saw all others.
fn do_meet(client: &Client, cubes: usize) -> bool {
    // Twice what the kernels hold, as far as there is so much: they also need more registers than the question.
    let held = client.properties().hardware.max_shared_memory_size.min(8 * SUMS) / 4;
    let counters = client.create_from_slice(&[0; 4]);
    let found = client.create_from_slice(&vec![0; 4 * cubes]);
    // SAFETY: the kernel reads and writes one counter, and a number a cube.
    unsafe {
        question::launch_unchecked(
            client,
            CubeCount::Static(cubes as u32, 1, 1),
            CubeDim::new_1d(UNITS as u32),
            BufferArg::from_raw_parts(counters, 1),
            BufferArg::from_raw_parts(found.clone(), cubes),
            held,
        );
    }
    let found = client.read_one_unchecked(found);
    u32::from_bytes(&found).iter().all(|&met| met == 1)
}

#[cube(launch_unchecked)]
fn question(counters: &[Atomic<u32>], found: &mut [u32], #[comptime] size: usize) {
    let mut held = Shared::<[u32]>::new_slice(size);
    held[UNIT_POS as usize] = 0;
    let mut lost = 0u32;
    let mut round = 0u32;
    while round < 4 {
        round += 1;
        lost = meet_within(&counters[0], round * CUBE_COUNT_X, &mut held, lost, LOOKS_OF_QUESTION);
    }
    if UNIT_POS == 0 && lost == 0 {
        found[CUBE_POS_X as usize] = 1;
    }
}

/// Waits until `target` cubes have come here, each as often as it was to; what they wrote before can then be read. All units of a cube must come here.
///
/// → 0; but 1 if not all came in time, or if `lost` was 1: who has lost the others once does not wait again. `told`: shared memory for one
/// number.
#[cube]
pub(crate) fn meet(counter: &Atomic<u32>, target: u32, told: &mut Shared<[u32]>, lost: u32) -> u32 {
    meet_within(counter, target, told, lost, LOOKS)
}

#[cube]
fn meet_within(counter: &Atomic<u32>, target: u32, told: &mut Shared<[u32]>, lost: u32, #[comptime] looks: u32) -> u32 {
    sync_storage();
    if UNIT_POS == 0 {
        counter.fetch_add(1u32);
        let mut left = select(lost == 0, looks, 1u32);
        while left > 0 && counter.load() < target {
            left -= 1;
        }
        told[0] = select(left > 0, lost, 1u32);
    }
    sync_storage();
    told[0]
}

/// What is added to the numbers of a cube that has lost the others: nothing if it has not, else NaN.
#[cube]
pub(crate) fn fault(lost: u32) -> f32 {
    f32::reinterpret(lost * NAN_BITS)
}
