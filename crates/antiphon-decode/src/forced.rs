//! Forced decoding: the log-probabilities of given targets, a step at a time.

use antiphon_core::{Error, Result, Selection, SourceBatch, Special, StepModel, TokenBatch};

use crate::stepper::Stepper;

/// The natural logarithm of each target token's probability, given the source and the tokens before it.
///
/// `targets` must be closed by the end symbol where its probability counts. Row `b` of the result is as long as target
/// `b`; a token that is impossible gives minus infinity. Short targets leave the batch when they are through.
///
/// # Errors
/// If there are not as many targets as sources, if a target holds an id outside the vocabulary, or if the model fails.
pub fn score(model: &dyn StepModel, sources: &SourceBatch, targets: &TokenBatch) -> Result<Vec<Vec<f32>>> {
    if sources.rows() != targets.rows() {
        return Err(Error::new(format!("there are {} targets for {} sources", targets.rows(), sources.rows())));
    }
    let vocabulary = model.vocabulary();
    for row in 0..targets.rows() {
        if let Some(id) = targets.row(row).iter().find(|&&id| id as usize >= vocabulary) {
            let fault = format!("target token {id} is outside the model's vocabulary of {vocabulary}");
            return Err(Error::new(fault).at(format_args!("row {row}")));
        }
    }

    let mut scores: Vec<Vec<f32>> = targets.lengths.iter().map(|&n| Vec::with_capacity(n as usize)).collect();
    let mut stepper = Stepper::begin(model, sources, Selection::Given(Vec::new()), None)?;
    let mut open: Vec<usize> = (0..targets.rows()).collect();
    let (mut keep, mut next) = (Vec::new(), Vec::new());
    loop {
        // Rows that are through leave; an empty target leaves before the first step.
        let step = stepper.steps();
        keep.clear();
        next.clear();
        let mut place = 0;
        open.retain(|&row| {
            let stays = targets.row(row).len() > step;
            if stays {
                keep.push(place);
                next.push(if step == 0 { Special::Begin.id() } else { targets.row(row)[step - 1] });
            }
            place += 1;
            stays
        });
        stepper.keep(&keep, &next);
        if open.is_empty() {
            return Ok(scores);
        }
        stepper.give(open.iter().map(|&row| targets.row(row)[step]));
        stepper.step()?;
        for (place, &row) in open.iter().enumerate() {
            scores[row].extend_from_slice(stepper.row(place).1);
        }
    }
}
