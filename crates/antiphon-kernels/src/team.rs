//! Threads that take the steps of one sequence together.

use std::cell::Cell;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

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
///
/// A part must not hand anything to the pool: while it waited, its thread could take up another share of this very sequence,
/// and wait there for the part beneath.
pub(crate) fn in_step(steps: usize, shares: usize, part: impl Fn(usize, usize) + Sync) {
    if shares == 1 {
        return (0..steps).for_each(|step| part(step, 0));
    }
    let team = Team { steps, shares: (0..shares).map(|_| Share::default()).collect(), broken: AtomicBool::new(false) };
    rayon::scope(|scope| {
        let (team, part) = (&team, &part);
        for own in 1..shares {
            scope.spawn(move |_| team.walk(own, part));
        }
        team.walk(0, part);
    });
}

/// Runs `work` while the other threads of the pool stay awake for what it hands out.
///
/// A search of few rows, or a step of training, hands out parts of some microseconds, between parts of its own. A thread that has
/// gone to sleep takes longer to wake. Who finds nothing for a while goes to sleep nevertheless: so nobody is kept from its own
/// work for good, wherever it was when it took this up. It waits in the end for all threads of the pool, as a broadcast does, and
/// for ever if one of them waits for the caller: it is for the one who has the pool for itself.
pub fn attentively<R>(work: impl FnOnce() -> R) -> R {
    /// Each costs a little at every step, and such parts are small. How many pay was not measured.
    const MOST: usize = 16;
    const IDLE: Duration = Duration::from_millis(1);
    if rayon::current_num_threads() == 1 {
        return work();
    }
    let ended = AtomicBool::new(false);
    rayon::in_place_scope(|scope| {
        let (ended, caller) = (&ended, rayon::current_thread_index());
        scope.spawn_broadcast(move |_, thread| {
            let (mut busy, mut looks) = (Instant::now(), 0);
            let stays = Some(thread.index()) != caller && thread.index() < MOST;
            while stays && !ended.load(Ordering::Relaxed) && busy.elapsed() < IDLE {
                match rayon::yield_now() {
                    Some(rayon::Yield::Executed) => (busy, looks) = (Instant::now(), 0),
                    // There may be more threads than cores.
                    _ if looks > PATIENCE => std::thread::yield_now(),
                    _ => {
                        looks += 1;
                        std::hint::spin_loop();
                    }
                }
            }
        });
        let _end = Ended(ended);
        work()
    })
}

/// Raises a flag when it goes, by a panic too.
struct Ended<'a>(&'a AtomicBool);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

thread_local! {
    /// Whether this thread is within a part.
    static IN_PART: Cell<bool> = const { Cell::new(false) };
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
        // What the part before left is seen by who has seen that it ended: this only counts.
        let (now, next) = (Ordering::Relaxed, step + 1);
        self.begun.load(now) == step && self.begun.compare_exchange(step, next, now, now).is_ok()
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
            IN_PART.set(false);
            self.0.store(true, Ordering::Relaxed);
        }
    }
}

impl Team {
    /// Takes the parts of a share, and whatever else is left undone.
    fn walk(&self, own: usize, part: &(impl Fn(usize, usize) + Sync)) {
        assert!(!IN_PART.get(), "a part of a step hands nothing to the pool");
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
            IN_PART.set(true);
            part(step, share);
            IN_PART.set(false);
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
// SAFETY: the same; what is read, several may read.
unsafe impl<T: Send + Sync> Sync for Divided<'_, T> {}

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
    /// Nobody else reads or writes them meanwhile, and whoever gets them leaves numbers wherever they write.
    pub(crate) unsafe fn columns(&self, rows: usize, stride: usize, first: usize, width: usize) -> Columns<'_> {
        assert!(rows * stride <= self.len && first + width <= stride);
        // SAFETY: they lie in the buffer, and the caller answers for the rest.
        unsafe { Columns::from_parts(self.at.cast(), rows, stride, first, width) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    use rayon::prelude::*;

    fn pool(threads: usize) -> rayon::ThreadPool {
        rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap()
    }

    /// Each part adds up what all parts of the step before left; → the last step's.
    fn sums(steps: usize, shares: usize, dawdle: impl Fn(usize, usize) + Sync) -> Vec<u64> {
        let mut states = [vec![1; shares], vec![0; shares]];
        let divided = states.each_mut().map(|states| Divided::new(states));
        in_step(steps, shares, |step, share| {
            dawdle(step, share);
            // SAFETY: what is read was written at the step before, and the share's own place is written.
            let (before, own) = unsafe { (divided[step % 2].read(0, shares), divided[(step + 1) % 2].write(share, 1)) };
            own[0] = before.iter().fold(share as u64, |sum, &x| sum.wrapping_mul(31).wrapping_add(x));
        });
        states[steps % 2].clone()
    }

    #[test]
    fn all_parts_of_a_step_end_before_the_next_one_begins_on_any_number_of_threads() {
        for shares in [1, 2, 3, 8] {
            let alone = pool(1).install(|| sums(300, shares, |_, _| ()));
            for threads in [2, 3, 9] {
                for _ in 0..20 {
                    assert_eq!(pool(threads).install(|| sums(300, shares, |_, _| ())), alone, "{shares} {threads}");
                }
            }
        }
    }

    #[test]
    fn nobody_waits_for_a_thread_that_sleeps_or_never_comes() {
        let sleepy = |step: usize, share: usize| {
            if (step + share).is_multiple_of(7) {
                std::thread::sleep(Duration::from_micros(300));
            }
        };
        let expected = pool(1).install(|| sums(60, 4, |_, _| ()));
        assert_eq!(pool(4).install(|| sums(60, 4, sleepy)), expected);
        // Several teams at once, in a pool that is smaller than one of them.
        let many = pool(2).install(|| {
            let teams: Vec<usize> = (0..6).collect();
            teams.par_iter().map(|_| sums(60, 4, sleepy)).collect::<Vec<_>>()
        });
        assert!(many.iter().all(|sums| *sums == expected));
    }

    #[test]
    fn the_parts_of_a_share_follow_each_other() {
        let seen: Vec<Mutex<Vec<usize>>> = (0..3).map(|_| Mutex::default()).collect();
        pool(3).install(|| in_step(500, 3, |step, share| seen[share].try_lock().expect("one at a time").push(step)));
        for seen in seen {
            assert!(seen.into_inner().unwrap().into_iter().eq(0..500));
        }
    }

    #[test]
    fn attentive_threads_do_what_is_handed_out_and_end_with_it() {
        for threads in [1, 2, 5] {
            // Nested, and several at once: nobody may wait for good for a thread that is attentive elsewhere.
            let sum = |n: usize| attentively(|| (0..n).into_par_iter().with_max_len(1).map(|i| i as u64).sum::<u64>());
            let all: Vec<u64> = pool(threads).install(|| {
                attentively(|| (0..40_usize).into_par_iter().with_max_len(1).map(|n| sum(n + 50)).collect())
            });
            assert!(all.into_iter().zip(0_u64..).all(|(sum, n)| sum == (n + 50) * (n + 49) / 2));
            let panic = std::panic::catch_unwind(|| pool(threads).install(|| attentively(|| panic!("work fails"))));
            assert!(panic.is_err());
        }
    }

    #[test]
    fn a_panic_of_a_part_ends_the_sequence_for_all() {
        for bad in 0..2 {
            let run = || in_step(50, 2, |step, share| assert!(step < 20 || share != bad, "a part fails"));
            let panic = pool(2).install(|| std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)));
            assert!(panic.is_err(), "share {bad}");
        }
    }
}
