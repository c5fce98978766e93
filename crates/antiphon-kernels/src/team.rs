//! Threads that take the steps of one sequence together.

use std::marker::PhantomData;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::packed::Columns;

/// How often a thread looks for another one before it does that one's part itself, or lets other processes run: some
/// microseconds.
const PATIENCE: usize = 200;

/// Calls `part(step, share)` for all steps and shares. No part of a step begins before all parts of the step before have
/// ended, and what these have written can be read. The parts of one share follow each other, whichever threads take them.
///
/// With several shares each has a thread of its own, as long as the pool has idle ones, so that what a share reads at every
/// step stays in the caches of one core. Nobody waits for a thread that has not come: who is ready with its own part takes one
/// that nobody has begun. So this ends on a pool of any size, however many sequences run at once, and whatever becomes of the
/// cores; and the number of threads that do come changes no result.
pub(crate) fn in_step(steps: usize, shares: usize, part: impl Fn(usize, usize) + Sync) {
    if shares == 1 {
        return (0..steps).for_each(|step| part(step, 0));
    }
    let team = Team {
        steps,
        shares: (0..shares).map(|_| Share::default()).collect(),
        broken: AtomicBool::new(false),
    };
    rayon::scope(|scope| {
        let (team, part) = (&team, &part);
        for own in 1..shares {
            scope.spawn(move |_| team.walk(own, part));
        }
        team.walk(0, part);
    });
}

struct Team {
    steps: usize,
    shares: Vec<Share>,
    /// Whether a part has panicked.
    broken: AtomicBool,
}

/// How far a share is. Each has lines of the caches for itself.
#[derive(Default)]
#[repr(align(128))]
struct Share {
    /// Whether its own thread has come.
    attended: AtomicBool,
    /// How many of its parts were begun.
    begun: AtomicUsize,
    /// How many of its parts have ended.
    ended: AtomicUsize,
}

impl Share {
    /// Begins the part of a step, if nobody else has.
    fn begin(&self, step: usize) -> bool {
        self.begun.compare_exchange(step, step + 1, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    fn has_ended(&self, step: usize) -> bool {
        self.ended.load(Ordering::Acquire) > step
    }
}

/// Tells the others, should a part panic.
struct Alarm<'a>(&'a AtomicBool);

impl Drop for Alarm<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.store(true, Ordering::Relaxed);
        }
    }
}

impl Team {
    /// Takes the parts of a share, and whatever else is left undone.
    fn walk(&self, own: usize, part: &(impl Fn(usize, usize) + Sync)) {
        let _alarm = Alarm(&self.broken);
        self.shares[own].attended.store(true, Ordering::Relaxed);
        // A thread that comes late goes on where the others are.
        let reached = self.shares.iter().map(|share| share.ended.load(Ordering::Acquire)).min();
        for step in reached.unwrap_or(0)..self.steps {
            self.take(step, own, part);
            // Its own part too may be with somebody else.
            for any in (own..self.shares.len()).chain(0..own) {
                let share = &self.shares[any];
                let mut looks = 0;
                while !share.has_ended(step) {
                    if self.broken.load(Ordering::Relaxed) {
                        return;
                    }
                    if looks >= PATIENCE || !share.attended.load(Ordering::Relaxed) {
                        self.take(step, any, part);
                    }
                    looks += 1;
                    if looks > PATIENCE {
                        std::thread::yield_now();
                    } else {
                        std::hint::spin_loop();
                    }
                }
            }
        }
    }

    /// Does the part of a share, if nobody has begun it.
    fn take(&self, step: usize, share: usize, part: &(impl Fn(usize, usize) + Sync)) {
        let state = &self.shares[share];
        if state.begin(step) {
            part(step, share);
            state.ended.store(step + 1, Ordering::Release);
        }
    }
}

/// A buffer of which the threads of a team write different parts.
pub(crate) struct Divided<'a, T> {
    at: *mut T,
    len: usize,
    buffer: PhantomData<&'a mut [T]>,
}

// SAFETY: whoever takes a part answers for it that nobody else has it.
unsafe impl<T: Send> Send for Divided<'_, T> {}
// SAFETY: the same.
unsafe impl<T: Send> Sync for Divided<'_, T> {}

impl<'a, T> Divided<'a, T> {
    pub(crate) fn new(buffer: &'a mut [T]) -> Self {
        Self { at: buffer.as_mut_ptr(), len: buffer.len(), buffer: PhantomData }
    }

    /// `len` numbers from `from` on, to read.
    ///
    /// # Safety
    /// Nobody writes them meanwhile.
    pub(crate) unsafe fn read(&self, from: usize, len: usize) -> &[T] {
        assert!(from + len <= self.len);
        // SAFETY: they lie in the buffer, and the caller answers for the rest.
        unsafe { std::slice::from_raw_parts(self.at.add(from), len) }
    }

    /// `len` numbers from `from` on, to write.
    ///
    /// # Safety
    /// Nobody else reads or writes them meanwhile.
    #[allow(clippy::mut_from_ref)]
    pub(crate) unsafe fn write(&self, from: usize, len: usize) -> &mut [T] {
        assert!(from + len <= self.len);
        // SAFETY: they lie in the buffer, and the caller answers for the rest.
        unsafe { std::slice::from_raw_parts_mut(self.at.add(from), len) }
    }
}

impl Divided<'_, f32> {
    /// `width` columns from `first` on, of rows that lie `stride` apart, to write.
    ///
    /// # Safety
    /// Nobody else reads or writes them meanwhile.
    pub(crate) unsafe fn columns(&self, rows: usize, stride: usize, first: usize, width: usize) -> Columns<'_> {
        assert!(rows * stride <= self.len && first + width <= stride);
        // SAFETY: they lie in the buffer, and the caller answers for the rest.
        unsafe { Columns::from_parts(self.at.cast(), rows, stride, first, width) }
    }
}
