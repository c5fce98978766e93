//! The seam of search: a model that answers one token at a time.

use std::sync::Arc;

use crate::random::Key;
use crate::{Copies, CtcOutput, Error, FrameBatch, Result, SourceBatch, TokenBatch, TokenId};

/// A model that can be searched: it begins a session over requests.
pub trait StepModel: Send + Sync {
    /// Reads sources and prefixes once; row `b` of the session answers request `b`, and stands behind its prefix: the first step
    /// is fed the last token of that, or the begin symbol where there is none.
    ///
    /// # Errors
    /// If the model cannot read these sources, or a prefix holds an id outside the vocabulary.
    fn begin(self: Arc<Self>, requests: &[Request]) -> Result<Box<dyn StepSession>>;

    /// `V`: the number of token ids the model can give, slots of requests not counted.
    fn vocabulary(&self) -> usize;

    /// Whether it can say words of a source that its vocabulary lacks: requests must then bring [`Request::copies`], and ids of
    /// answers may be slots, from `V` on.
    fn copies(&self) -> bool {
        false
    }

    /// How many times the usual number of requests a batch should hold.
    fn batch_factor(&self) -> usize {
        1
    }
}

/// What is asked of a search: one answer, whatever stands beside it in a batch.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// What all random numbers of the answer are drawn under, so that draws do not depend on the batch: below the seed, by the
    /// request's own place.
    pub key: Key,
    /// The sources, one a stream, in the order of the model's streams; none for a language model.
    pub sources: Vec<Source>,
    /// The same sources as further models of an ensemble read them whose tokenizers differ: a list each; as a rule none.
    pub readings: Vec<Vec<Source>>,
    /// The tokens that the answer begins with: they are scored, not chosen.
    pub prefix: Vec<TokenId>,
    /// Limits of its own.
    pub limits: LengthLimits,
    /// The answers that it may have, each without its end symbol: the search says one of them, whatever its limits of length and
    /// whether it may say the unknown symbol. Empty: it may say anything.
    pub candidates: Vec<Vec<TokenId>>,
    /// What it may copy from its sources, as the first model reads them; `None` of a model that copies nothing.
    pub copies: Option<Arc<Copies>>,
}

impl Request {
    /// An answer to these sources, whatever it is, without prefix or limits of its own.
    pub fn new(sources: Vec<Source>) -> Self {
        let (key, limits) = (Key::from_seed(0), LengthLimits::default());
        Self { key, sources, readings: Vec::new(), prefix: Vec::new(), limits, candidates: Vec::new(), copies: None }
    }

    /// The steps of all its sources together, as the first model reads them: what `max_length.ratio` counts.
    pub fn length(&self) -> usize {
        self.sources.iter().map(Source::len).sum()
    }
}

/// The limits of one answer, where they are not those of the search.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LengthLimits {
    /// The most tokens, prefix and end symbol included; at least 1.
    pub max_length: Option<usize>,
    /// The fewest tokens before the end symbol, the prefix included.
    pub min_length: Option<usize>,
    /// Whether the end symbol is a token like any other, behind which the answer goes on, so that `max_length` alone ends it: in
    /// a text that was read as one stream, the symbol closes a line.
    pub endless: bool,
}

/// One source: one stream of one request.
#[derive(Debug, Clone, PartialEq)]
pub enum Source {
    /// Text: ids, closed by [`Special::End`](crate::Special::End).
    Tokens(Vec<TokenId>),
    /// A signal: `[S, F]` numbers, row-major.
    Frames {
        /// `[S, F]`.
        values: Vec<f32>,
        /// `F`, at least 1.
        features: usize,
    },
}

impl Source {
    /// Its steps.
    pub fn len(&self) -> usize {
        match self {
            Source::Tokens(ids) => ids.len(),
            Source::Frames { values, features } => values.len() / features,
        }
    }

    /// Its ids; none of a signal.
    pub fn ids(&self) -> &[TokenId] {
        match self {
            Source::Tokens(ids) => ids,
            Source::Frames { .. } => &[],
        }
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The sources of requests, padded: a batch for each stream.
///
/// # Errors
/// If the requests have not the same streams.
pub fn source_batches(requests: &[Request]) -> Result<Vec<SourceBatch>> {
    let streams = requests.first().map_or(0, |request| request.sources.len());
    if let Some(odd) = requests.iter().find(|request| request.sources.len() != streams) {
        return Err(Error::new(format!("one request has {streams} sources, another {}", odd.sources.len())));
    }
    let unlike = || Error::new("the sources of one stream are of different kinds, or their frames of different widths");
    fn of(request: &Request, stream: usize) -> &Source {
        &request.sources[stream]
    }
    let batch = |s: usize| match of(&requests[0], s) {
        Source::Tokens(_) => {
            let ids = |request| match of(request, s) {
                Source::Tokens(ids) => Some(ids.as_slice()),
                Source::Frames { .. } => None,
            };
            let rows: Option<Vec<&[TokenId]>> = requests.iter().map(ids).collect();
            rows.map(|rows| SourceBatch::Tokens(TokenBatch::from_rows(&rows)))
        }
        Source::Frames { features: width, .. } => {
            let frames = |request| match of(request, s) {
                Source::Frames { values, features } if features == width => Some(values.as_slice()),
                Source::Frames { .. } | Source::Tokens(_) => None,
            };
            let rows: Option<Vec<&[f32]>> = requests.iter().map(frames).collect();
            rows.map(|rows| SourceBatch::Frames(FrameBatch::from_rows(&rows, *width)))
        }
    };
    (0..streams).map(|s| batch(s).ok_or_else(unlike)).collect()
}

/// Rows in flight. Their state and their memory stay on the device.
pub trait StepSession: Send {
    /// How many rows are in flight.
    fn rows(&self) -> usize;

    /// What the prefixes were worth that the session has read, row by row as it began; they are handed over once.
    fn take_prefixes(&mut self) -> Vec<PrefixOutput>;

    /// What each source says by itself, row by row as the session began, where the model was trained to say so; they are handed
    /// over once. Empty where it was not.
    fn take_ctc(&mut self) -> Vec<CtcOutput> {
        Vec::new()
    }

    /// Feeds each row its last token and writes what `want` asks for into `out`.
    ///
    /// # Errors
    /// If `last` or `want` holds an id outside the vocabulary.
    fn step(&mut self, last: &[TokenId], want: &Want, out: &mut StepOutput) -> Result<()>;

    /// Tells more of the step just taken: what `want` asks for of `rows`, in this order, whose masks and given tokens are those of
    /// these rows. Nothing is fed, and attention is not told again.
    ///
    /// # Errors
    /// If `want` holds an id outside the vocabulary.
    ///
    /// # Panics
    /// If no step has been taken, or rows were selected since.
    fn again(&mut self, rows: &[u32], want: &Want, out: &mut StepOutput) -> Result<()>;

    /// Keeps `rows`, in this order; a row may be repeated or dropped.
    fn select(&mut self, rows: &[u32]);
}

/// Which scores a step must return.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selection {
    /// The `k` best tokens of each row, best first; of equal scores the smaller id first.
    Top(usize),
    /// The scores of given tokens, `[rows, N]`: as many of each row, in the given order.
    Given(Vec<TokenId>),
    /// Every token's score, in the order of the ids.
    All,
}

/// Which tokens one row may choose, beside what is banned for all rows. A masked token's log-probability reads minus
/// infinity; the others are not renormalised.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Mask {
    /// All of them.
    #[default]
    Free,
    /// All but these.
    Banned(Vec<TokenId>),
    /// These alone.
    Allowed(Vec<TokenId>),
}

impl Mask {
    /// The ids that it names.
    pub fn ids(&self) -> &[TokenId] {
        match self {
            Mask::Free => &[],
            Mask::Banned(ids) | Mask::Allowed(ids) => ids,
        }
    }

    /// Whether a row may choose this token.
    pub fn allows(&self, id: TokenId) -> bool {
        match self {
            Mask::Free => true,
            Mask::Banned(ids) => !ids.contains(&id),
            Mask::Allowed(ids) => ids.contains(&id),
        }
    }

    /// Takes what it masks out of a row of all tokens' log-probabilities.
    pub fn apply(&self, log_probs: &mut [f32]) {
        match self {
            Mask::Free => {}
            Mask::Banned(ids) => ids.iter().for_each(|&id| log_probs[id as usize] = f32::NEG_INFINITY),
            Mask::Allowed(ids) => {
                let kept: Vec<(TokenId, f32)> = ids.iter().map(|&id| (id, log_probs[id as usize])).collect();
                log_probs.fill(f32::NEG_INFINITY);
                kept.into_iter().for_each(|(id, log_prob)| log_probs[id as usize] = log_prob);
            }
        }
    }
}

/// What a step must return.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Want {
    /// Which scores.
    pub selection: Selection,
    /// Ids that no row may choose: their log-probability reads minus infinity (the others are not renormalised).
    pub banned: Vec<TokenId>,
    /// What each row may choose beside that; empty if all rows are free.
    pub masks: Vec<Mask>,
    /// Whether the attention weights are wanted too.
    pub attention: bool,
}

/// What the tokens of a prefix are worth, one after the other, each behind those before it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct PrefixOutput {
    /// Natural logarithms of their probabilities.
    pub log_probs: Vec<f32>,
    /// What answers are ranked by; empty where that is the log-probability.
    pub scores: Vec<f32>,
}

/// What a step returned. The buffers are reused from step to step.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct StepOutput {
    /// How many entries each row has in `tokens` and `log_probs`.
    pub per_row: usize,
    /// `[rows, per_row]`: token ids.
    pub tokens: Vec<TokenId>,
    /// `[rows, per_row]`: natural logarithms of their probabilities.
    pub log_probs: Vec<f32>,
    /// `[rows, per_row]`: what answers are ranked by, each at most 0; empty where that is the log-probability. The best are
    /// the best by score.
    pub scores: Vec<f32>,
    /// `[rows, S']`: attention weights, if wanted and if the model attends; else empty. Those of several sources stand one behind
    /// another, in the order of the sources, without padding between; of several heads they are the mean.
    pub attention: Vec<f32>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_padded_stream_by_stream() {
        let request = |ids: &[TokenId], frames: &[f32]| {
            Request::new(vec![Source::Tokens(ids.to_vec()), Source::Frames { values: frames.to_vec(), features: 2 }])
        };
        let two = [request(&[5, 3], &[1.0, 2.0]), request(&[3], &[3.0, 4.0, 5.0, 6.0])];
        assert_eq!(two[1].length(), 3);
        // However long it is for others.
        assert_eq!(Request { readings: vec![vec![Source::Tokens(vec![3; 7])]], ..two[1].clone() }.length(), 3);
        let [SourceBatch::Tokens(tokens), SourceBatch::Frames(frames)] = &source_batches(&two).unwrap()[..] else {
            panic!("two streams")
        };
        assert_eq!(tokens.ids, [5, 3, 3, 0]);
        assert_eq!((frames.values.as_slice(), frames.width), (&[1.0, 2.0, 0.0, 0.0, 3.0, 4.0, 5.0, 6.0][..], 2));
        assert_eq!(source_batches(&[Request::new(vec![]), Request::new(vec![])]), Ok(vec![]));
        assert!(source_batches(&[two[0].clone(), Request::new(vec![])]).is_err());
        let mut odd = two.clone();
        odd[1].sources.swap(0, 1);
        assert!(source_batches(&odd).is_err());
    }
}
