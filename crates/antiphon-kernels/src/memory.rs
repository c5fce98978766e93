//! Large buffers: what the allocator does with freed ones, and new ones that are filled anyway.

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

/// A buffer of `n` numbers that are yet to be written.
///
/// To clear it first would be a pass of one thread over memory while the others wait: a tenth of a recurrent layer's time.
/// In this crate's tests it holds [`Plain::STRAY`], so that a number which nobody writes shows.
///
/// # Safety
/// Every number is written before it is read.
pub(crate) unsafe fn unwritten<T: Plain>(n: usize) -> Vec<T> {
    if cfg!(test) {
        return vec![T::STRAY; n];
    }
    let mut buffer = Vec::with_capacity(n);
    // SAFETY: the buffer has room for `n` numbers, and the caller writes each before it reads it.
    #[allow(clippy::uninit_vec)]
    unsafe {
        buffer.set_len(n);
    }
    buffer
}
