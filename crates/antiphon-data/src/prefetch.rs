//! Batches prepared ahead of the model.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::JoinHandle;

use antiphon_core::{Batch, Result};

use crate::stream::{Step, Stream};
use crate::{Dataset, Steps};

/// The batches of a plan, in its order, prepared on a thread of their own while the model works on an earlier one.
///
/// It ends after the last batch or after the first error. Dropping it stops the thread and waits for it.
#[derive(Debug)]
pub struct Prefetch {
    /// `None` once it has ended.
    ready: Option<Receiver<Result<Batch>>>,
    producer: Option<JoinHandle<()>>,
}

impl Prefetch {
    /// Starts to prepare `plan`, at most `ahead` batches beyond the one in preparation.
    pub fn new(dataset: Arc<Dataset>, plan: Vec<Vec<u32>>, ahead: usize) -> Self {
        Self::produce(plan, ahead, move |indices: Vec<u32>| dataset.batch(&indices))
    }

    /// The same of the steps of a stream.
    pub fn of_stream(stream: Arc<Stream>, steps: Steps, ahead: usize) -> Self {
        Self::produce(steps, ahead, move |step: Step| stream.batch(&step))
    }

    fn produce<T>(
        plan: impl IntoIterator<Item = T> + Send + 'static,
        ahead: usize,
        mut prepare: impl FnMut(T) -> Result<Batch> + Send + 'static,
    ) -> Self {
        let (sender, ready) = sync_channel(ahead);
        let producer = std::thread::spawn(move || {
            for part in plan {
                let batch = prepare(part);
                let failed = batch.is_err();
                if sender.send(batch).is_err() || failed {
                    return;
                }
            }
        });
        Self { ready: Some(ready), producer: Some(producer) }
    }
}

impl Iterator for Prefetch {
    type Item = Result<Batch>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Ok(batch) = self.ready.as_ref()?.recv() {
            return Some(batch);
        }
        self.ready = None;
        // A broken invariant in the producer must not look like the end of the plan.
        if let Some(Err(panic)) = self.producer.take().map(JoinHandle::join) {
            std::panic::resume_unwind(panic);
        }
        None
    }
}

impl Drop for Prefetch {
    fn drop(&mut self) {
        // Without a receiver the producer's next send fails.
        self.ready = None;
        if let Some(producer) = self.producer.take() {
            // A panic was either passed on by `next` or belongs to a batch that nobody wants.
            let _ = producer.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use antiphon_core::{Error, Target};

    use super::*;

    fn batch(indices: &[u32]) -> Batch {
        let examples = indices.iter().map(|&i| i as usize).collect();
        Batch { sources: Vec::new(), target: Target::whole(&[indices]), continues: Vec::new(), examples, copies: None }
    }

    fn plan(n: u32) -> Vec<Vec<u32>> {
        (0..n).map(|i| vec![i, i + 1]).collect()
    }

    #[test]
    fn batches_come_in_the_order_of_the_plan() {
        for ahead in [0, 1, 7] {
            let slow_now_and_then = |indices: Vec<u32>| {
                if indices[0].is_multiple_of(5) {
                    std::thread::sleep(Duration::from_millis(1));
                }
                Ok(batch(&indices))
            };
            let got: Vec<usize> =
                Prefetch::produce(plan(40), ahead, slow_now_and_then).map(|b| b.unwrap().examples[0]).collect();
            assert!(got.into_iter().eq(0..40));
        }
    }

    #[test]
    fn an_error_is_passed_on_and_is_the_last() {
        let fails = |indices: Vec<u32>| if indices[0] == 3 { Err(Error::new("damaged")) } else { Ok(batch(&indices)) };
        let mut prefetch = Prefetch::produce(plan(10), 2, fails);
        assert_eq!(prefetch.by_ref().filter(Result::is_ok).count(), 3);
        assert!(prefetch.next().is_none());
        let last = Prefetch::produce(plan(10), 2, fails).last().unwrap();
        assert_eq!(last.unwrap_err().to_string(), "damaged");
    }

    #[test]
    fn dropping_stops_the_producer() {
        let prepared = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&prepared);
        let mut prefetch = Prefetch::produce(plan(1000), 2, move |indices: Vec<u32>| {
            counter.fetch_add(1, Ordering::SeqCst);
            Ok(batch(&indices))
        });
        prefetch.next().unwrap().unwrap();
        drop(prefetch);
        // One taken, two ahead, one in preparation, and one more if a place fell free just before the drop. The thread
        // is gone: it held the only other handle.
        assert!(prepared.load(Ordering::SeqCst) <= 5);
        assert_eq!(Arc::strong_count(&prepared), 1);
    }

    #[test]
    #[should_panic(expected = "broken invariant")]
    fn a_panic_is_not_the_end_of_the_plan() {
        let panics = |indices: Vec<u32>| if indices[0] == 2 { panic!("broken invariant") } else { Ok(batch(&indices)) };
        Prefetch::produce(plan(5), 1, panics).for_each(drop);
    }
}
