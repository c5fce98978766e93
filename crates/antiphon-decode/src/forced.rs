//! Forced decoding: the log-probabilities of given targets, a step at a time.

use std::sync::Arc;

use antiphon_core::{Error, Place, Request, Result, Selection, Special, StepModel, TokenId};

use crate::stepper::{Stepper, slots};

/// The natural logarithm of each target token's probability, given the request's sources and the tokens before it.
///
/// `targets` must be closed by the end symbol where its probability counts. Row `b` of the result is as long as target
/// `b`; a token that is impossible gives minus infinity. Short targets leave the batch when they are through. Prefixes and limits
/// of the requests have no effect: nothing is chosen.
///
/// # Errors
/// If there are not as many targets as requests, if a target holds an id outside the vocabulary, or if the model fails.
pub fn score<T: AsRef<[TokenId]>>(
    model: Arc<dyn StepModel>,
    requests: &[Request],
    targets: &[T],
) -> Result<Vec<Vec<f32>>> {
    if requests.len() != targets.len() {
        return Err(Error::new(format!("there are {} targets for {} requests", targets.len(), requests.len())));
    }
    let vocabulary = model.vocabulary();
    for (row, (target, request)) in targets.iter().zip(requests).enumerate() {
        let ids = vocabulary + slots(&*model, request);
        if let Some(step) = target.as_ref().iter().position(|&id| id as usize >= ids) {
            let id = target.as_ref()[step];
            let slots = if ids > vocabulary { format!(" and {} slots", ids - vocabulary) } else { String::new() };
            let fault = format!("target token {id} is outside the model's vocabulary of {vocabulary}{slots}");
            return Err(Error::new(fault).at(Place::Row { row, step }));
        }
    }

    let mut scores: Vec<Vec<f32>> = targets.iter().map(|target| Vec::with_capacity(target.as_ref().len())).collect();
    let mut stepper = Stepper::begin(model, requests, Selection::Given(Vec::new()), None)?;
    let mut open: Vec<usize> = (0..targets.len()).collect();
    let (mut keep, mut next) = (Vec::new(), Vec::new());
    loop {
        // Rows that are through leave; an empty target leaves before the first step.
        let step = stepper.steps();
        keep.clear();
        next.clear();
        let mut place = 0;
        open.retain(|&row| {
            let stays = targets[row].as_ref().len() > step;
            if stays {
                keep.push(place);
                next.push(if step == 0 { Special::Begin.id() } else { targets[row].as_ref()[step - 1] });
            }
            place += 1;
            stays
        });
        stepper.keep(&keep, &next);
        if open.is_empty() {
            return Ok(scores);
        }
        stepper.give(open.iter().map(|&row| targets[row].as_ref()[step]));
        stepper.step()?;
        for (place, &row) in open.iter().enumerate() {
            scores[row].extend_from_slice(stepper.row(place).log_probs);
        }
    }
}
