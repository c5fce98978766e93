//! Inflected forms: tables of lemma, form and features.

use antiphon_core::{Place, Problem, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::copy::Copy;
use super::preparation::Preparation;
use crate::recipe::files::Output;
use crate::recipe::inputs::Inputs;

/// Files of `lemma<TAB>form<TAB>FEATURE;FEATURE;…`, in the format of the shared tasks of SIGMORPHON. Each becomes a table with the
/// header `lemma`, `form`, `features`, `symbols`, in the order of its lines. The last column has lemma and features as one text of
/// words: each character of the lemma (`␣` is a space), then each feature behind a `+`, as in `d e v e +N +ACC +PL`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Inflections {
    /// Each file with its new name.
    pub copies: Vec<Copy>,
}

impl Preparation for Inflections {
    fn inputs(&self) -> Vec<(String, &str)> {
        Copy::inputs(&self.copies)
    }

    fn outputs(&self) -> Vec<(String, String)> {
        Copy::outputs(&self.copies)
    }

    fn problems(&self) -> Vec<Problem> {
        Copy::problems(&self.copies)
    }

    fn run(&self, inputs: &Inputs<'_>, log: &mut dyn FnMut(&str)) -> Result<Vec<Output>> {
        let table = |copy: &Copy| {
            let mut text = "lemma\tform\tfeatures\tsymbols\n".to_owned();
            for (i, line) in inputs.text(&copy.from)?.lines().enumerate() {
                let cells: Vec<&str> = line.split('\t').collect();
                let [lemma, form, features] = cells[..] else {
                    let message = format!("{} cells, where a lemma, a form and its features should be", cells.len());
                    return Err(inputs.error(&copy.from, message).at(Place::line(i + 1)));
                };
                text += &format!("{lemma}\t{form}\t{features}\t{}\n", symbols(lemma, features));
            }
            log(&format!("{}: {} forms", copy.to, text.lines().count() - 1));
            Ok(Output { name: copy.to.clone(), bytes: text.into_bytes() })
        };
        self.copies.iter().map(table).collect()
    }
}

/// A lemma and its features as words.
fn symbols(lemma: &str, features: &str) -> String {
    let letters = lemma.chars().map(|letter| if letter == ' ' { "␣".to_owned() } else { letter.into() });
    let features = features.split(';').map(|feature| format!("+{feature}"));
    letters.chain(features).collect::<Vec<_>>().join(" ")
}
