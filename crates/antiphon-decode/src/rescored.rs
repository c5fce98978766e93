//! What models have in common that score the tokens of another one anew.

use antiphon_core::{Selection, StepOutput, TokenId, Want};

/// What the other model is asked: the best by score may be anywhere.
pub(crate) fn wider(want: &Want) -> Want {
    let selection = match &want.selection {
        Selection::Top(_) => Selection::All,
        other => other.clone(),
    };
    Want { selection, ..want.clone() }
}

/// A score without what rounding has added above 0. What is no number stays none, which a search refuses.
pub(crate) fn at_most_zero(score: f32) -> f32 {
    if score > 0.0 { 0.0 } else { score }
}

/// How many of so many tokens a row keeps, if not all.
pub(crate) fn kept(want: &Want, per_row: usize) -> Option<usize> {
    match want.selection {
        Selection::Top(k) => Some(k.min(per_row)),
        Selection::Given(_) | Selection::All => None,
    }
}

/// Adds a row: of its tokens the `kept` best by score, best first, or all as they stand.
pub(crate) fn push(tokens: &[TokenId], log_probs: &[f32], scores: &[f32], kept: Option<usize>, out: &mut StepOutput) {
    let mut order: Vec<usize> = (0..tokens.len()).collect();
    if let Some(kept) = kept {
        let best_first = |i: &usize, j: &usize| scores[*j].total_cmp(&scores[*i]).then(tokens[*i].cmp(&tokens[*j]));
        if kept < order.len() {
            order.select_nth_unstable_by(kept, best_first);
            order.truncate(kept);
        }
        order.sort_unstable_by(best_first);
    }
    out.tokens.extend(order.iter().map(|&i| tokens[i]));
    out.log_probs.extend(order.iter().map(|&i| log_probs[i]));
    out.scores.extend(order.iter().map(|&i| scores[i]));
}
