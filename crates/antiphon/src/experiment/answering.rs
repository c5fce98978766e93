//! Who answers and is judged: a model, or several together.

use std::sync::Arc;

use antiphon_core::{Batch, Result, SourceBatch, StepModel, Tokenizer};
use antiphon_kernels::Carry;
use antiphon_model::{Judgement, Model, SourceLooks};

/// Who answers sources, and says how probable given answers are.
pub trait Answering: Sync {
    /// What a search needs of it.
    fn for_search(&self) -> Arc<dyn StepModel>;

    /// The tokenizers of the sources, a list for each way beside the first in which somebody reads them; none of a single model.
    fn readings(&self) -> Vec<Vec<Arc<dyn Tokenizer>>>;

    /// How probable each real target token of a batch is, row after row, with the logits divided by each of some temperatures, and
    /// what else is lost, of a single model that says it.
    ///
    /// `batches`: the batch, and the same as each of the other [`readings`](Self::readings) has it. `carries`: what the batch
    /// before has left; none before the first.
    ///
    /// # Errors
    /// If the batch cannot be read, or a row goes on and nothing was carried.
    fn judge(&self, batches: &[Batch], carries: &mut Vec<Carry>, temperatures: &[f64]) -> Result<Judgement>;

    /// Where an encoder looks that reads a question; `None` of several models, and of one that has no such encoder.
    ///
    /// # Errors
    /// If it cannot read these sources.
    fn looks(&self, sources: &[SourceBatch]) -> Result<Option<SourceLooks>>;
}

impl Answering for Model {
    fn for_search(&self) -> Arc<dyn StepModel> {
        self.for_search()
    }

    fn readings(&self) -> Vec<Vec<Arc<dyn Tokenizer>>> {
        Vec::new()
    }

    fn judge(&self, batches: &[Batch], carries: &mut Vec<Carry>, temperatures: &[f64]) -> Result<Judgement> {
        carries.resize_with(1, Carry::default);
        self.judge(&batches[0], &mut carries[0], temperatures)
    }

    fn looks(&self, sources: &[SourceBatch]) -> Result<Option<SourceLooks>> {
        self.looks(sources)
    }
}
