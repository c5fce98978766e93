//! Searching a whole corpus: sentences of similar length together, answers in the given order.

use std::sync::Arc;

use antiphon_core::{Error, Request, Result, StepModel};

use crate::search::{Finished, Strategy};
use crate::stepper::name_sources;

/// The places of `lengths` from the longest to the shortest; of equals the earlier first.
///
/// The longest first, so that a batch that does not fit into memory fails at once.
pub fn order_by_length(lengths: &[usize]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..lengths.len()).collect();
    order.sort_by_key(|&i| std::cmp::Reverse(lengths[i]));
    order
}

/// Undoes an order: item `i` of `items` goes back to place `order[i]`.
///
/// # Panics
/// If `order` is not a permutation of the items' places.
pub fn restore<T>(order: &[usize], items: Vec<T>) -> Vec<T> {
    assert_eq!(order.len(), items.len(), "an order needs as many items");
    let mut places: Vec<Option<T>> = items.iter().map(|_| None).collect();
    for (&place, item) in order.iter().zip(items) {
        places[place] = Some(item);
    }
    places.into_iter().map(|item| item.expect("an order names each place once")).collect()
}

/// Answers `requests` in batches of at most `rows`: what was found for each, in their order, [`Finished::row`] being the place
/// there. `progress` is told how many have been answered so far.
///
/// # Errors
/// If `rows` is 0, and those of [`Strategy::run`], which then name the place in `requests`, as that of a source.
pub fn search_all(
    strategy: &dyn Strategy,
    model: Arc<dyn StepModel>,
    requests: &[Request],
    rows: usize,
    progress: &mut dyn FnMut(usize),
) -> Result<Vec<Finished>> {
    if rows == 0 {
        return Err(Error::new("sentences cannot be searched in batches of 0; use at least 1"));
    }
    let order = order_by_length(&requests.iter().map(Request::length).collect::<Vec<_>>());
    let mut answers: Vec<Finished> = Vec::with_capacity(requests.len());
    for places in order.chunks(rows) {
        let batch: Vec<Request> = places.iter().map(|&i| requests[i].clone()).collect();
        let named = |error| name_sources(error, places);
        let mut search = strategy.begin(Arc::clone(&model), &batch).map_err(named)?;
        while !search.is_done() {
            let finished = search.advance().map_err(named)?;
            if !finished.is_empty() {
                answers.extend(finished.into_iter().map(|found| Finished { row: places[found.row], ..found }));
                progress(answers.len());
            }
        }
    }
    answers.sort_unstable_by_key(|found| found.row);
    Ok(answers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_come_first_and_every_item_returns() {
        let lengths = [3, 9, 1, 9, 0, 3];
        let order = order_by_length(&lengths);
        assert_eq!(order, [1, 3, 0, 5, 2, 4]);
        assert_eq!(restore(&order, order.iter().map(|&i| lengths[i]).collect()), lengths);
        assert!(restore::<u8>(&[], Vec::new()).is_empty());
    }
}
