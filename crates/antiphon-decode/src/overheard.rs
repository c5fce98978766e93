//! A search beside which it is kept what the sources say by themselves.

use std::sync::{Arc, Mutex, PoisonError};

use antiphon_core::{CtcOutput, PrefixOutput, Request, Result, StepModel, StepOutput, StepSession, TokenId, Want};

use crate::search::{Finished, Strategy};

/// Searches one batch: what was found for each request, in their order, and what its source says by itself; `None` of a model
/// whose sources say nothing. What is found is what the search alone finds.
///
/// # Errors
/// Those of [`Strategy::run`].
pub fn search_overheard(
    strategy: &dyn Strategy,
    model: Arc<dyn StepModel>,
    requests: &[Request],
) -> Result<Vec<(Finished, Option<CtcOutput>)>> {
    let model = Arc::new(Overheard { model, said: Mutex::default() });
    let mut search = strategy.begin(Arc::clone(&model) as Arc<dyn StepModel>, requests)?;
    let mut found = Vec::with_capacity(requests.len());
    while !search.is_done() {
        found.extend(search.advance()?);
    }
    found.sort_unstable_by_key(|found| found.row);
    let mut said = std::mem::take(&mut *model.said.lock().unwrap_or_else(PoisonError::into_inner)).into_iter();
    Ok(found.into_iter().map(|found| (found, said.next())).collect())
}

/// A model that keeps a copy of what the sources of its one session say by themselves, in the order of the requests.
struct Overheard {
    model: Arc<dyn StepModel>,
    said: Mutex<Vec<CtcOutput>>,
}

impl StepModel for Overheard {
    fn begin(self: Arc<Self>, requests: &[Request]) -> Result<Box<dyn StepSession>> {
        let mut session = Arc::clone(&self.model).begin(requests)?;
        let said = session.take_ctc();
        self.said.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&said);
        Ok(Box::new(OverheardSession { session, said }))
    }

    fn vocabulary(&self) -> usize {
        self.model.vocabulary()
    }

    fn copies(&self) -> bool {
        self.model.copies()
    }
}

struct OverheardSession {
    session: Box<dyn StepSession>,
    said: Vec<CtcOutput>,
}

impl StepSession for OverheardSession {
    fn rows(&self) -> usize {
        self.session.rows()
    }

    fn take_prefixes(&mut self) -> Vec<PrefixOutput> {
        self.session.take_prefixes()
    }

    fn take_ctc(&mut self) -> Vec<CtcOutput> {
        std::mem::take(&mut self.said)
    }

    fn step(&mut self, last: &[TokenId], want: &Want, out: &mut StepOutput) -> Result<()> {
        self.session.step(last, want, out)
    }

    fn again(&mut self, rows: &[u32], want: &Want, out: &mut StepOutput) -> Result<()> {
        self.session.again(rows, want, out)
    }

    fn select(&mut self, rows: &[u32]) {
        self.session.select(rows);
    }
}
