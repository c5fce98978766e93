//! Large buffers: what the allocator does with freed ones, and new ones that are filled anyway.

use std::mem::MaybeUninit;

use rayon::prelude::*;

/// Lets the process keep the memory that it frees, for the whole of its life.
///
/// A training step frees and takes the same few large buffers again. The C library of GNU/Linux would give each back to
/// the system at once and fetch it anew, page by page: a sixth of a step's time. A no-op elsewhere.
pub fn keep_freed_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        const MIB: libc::c_int = 1 << 20;
        // SAFETY: mallopt only sets the allocator's own parameters, and takes its lock for that.
        unsafe {
            libc::mallopt(libc::M_MMAP_THRESHOLD, 32 * MIB); // the largest it takes
            libc::mallopt(libc::M_TRIM_THRESHOLD, 2047 * MIB);
            libc::mallopt(libc::M_TOP_PAD, 64 * MIB);
        }
    }
}

/// A line of the caches, in numbers of four bytes.
pub(crate) const LINE: usize = 16;

/// Numbers that are still to be written.
pub(crate) type Unwritten = [MaybeUninit<f32>];

/// A number that a buffer can be made of before it is written.
pub(crate) trait Plain: Copy + Send {
    /// What shows that nobody has written it: NaN, if there is one.
    const STRAY: Self;
}

impl Plain for f32 {
    const STRAY: Self = f32::NAN;
}

impl Plain for i32 {
    const STRAY: Self = i32::MIN;
}

/// A buffer of `n` numbers that are yet to be written; [`written`] makes it one of numbers.
///
/// To clear it first would be a pass of one thread over memory while the others wait: a tenth of a recurrent layer's time.
/// In this crate's tests it holds [`Plain::STRAY`], so that a number which nobody writes shows.
pub(crate) fn unwritten<T: Plain>(n: usize) -> Box<[MaybeUninit<T>]> {
    let mut buffer = Box::new_uninit_slice(n);
    if cfg!(test) {
        buffer.fill(MaybeUninit::new(T::STRAY));
    }
    buffer
}

/// So many zeros, which all threads write where they are many.
pub(crate) fn zeros(n: usize) -> Vec<f32> {
    const TASK: usize = 1 << 15;
    if n <= TASK {
        return vec![0.0; n];
    }
    let mut zeros = unwritten(n);
    zeros.par_chunks_mut(TASK).for_each(|part| part.fill(MaybeUninit::new(0.0)));
    // SAFETY: all are written.
    unsafe { written(zeros) }
}

/// The buffer as the numbers that it holds; nothing is copied.
///
/// # Safety
/// All of them were written.
pub(crate) unsafe fn written<T: Plain>(buffer: Box<[MaybeUninit<T>]>) -> Vec<T> {
    // SAFETY: the caller has written all of it.
    unsafe { buffer.assume_init() }.into_vec()
}

/// Numbers as a buffer to write over.
///
/// # Safety
/// Whoever gets it leaves numbers wherever they write.
pub(crate) unsafe fn overwritten(numbers: &mut [f32]) -> &mut [MaybeUninit<f32>] {
    // SAFETY: both lie in memory alike, and numbers they stay.
    unsafe { &mut *(std::ptr::from_mut(numbers) as *mut [MaybeUninit<f32>]) }
}
