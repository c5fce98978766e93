//! What a stage may know beside what it reads: the tokens that its steps once were, and what was read of other sources.

use antiphon_core::{Problem, TokenBatch};
use burn::tensor::Tensor;

use super::one_hot;

/// What is known around a source, in numbers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Beside<'b> {
    /// Whether it is text, whose tokens tell where a sentence ends.
    pub(crate) is_text: bool,
    /// The other sources, each with the width of its final state; `None` where it reads the state of another one itself.
    pub(crate) states: &'b [(&'b str, Option<usize>)],
}

impl Beside<'_> {
    /// What hinders a stage of this kind from reading the final state of the source that `query` names, beside steps of width
    /// `input`.
    pub(super) fn problems(&self, query: &str, input: Option<usize>, kind: &str) -> Vec<Problem> {
        let named = |name: &str| format!("`{name}`");
        let message = match self.states.iter().find(|(name, _)| *name == query) {
            None if self.states.is_empty() => Some(format!(
                "`{query}` is no source beside this one, and there is none; a question is one in `[streams.question]`"
            )),
            None => {
                let there: Vec<String> = self.states.iter().map(|(name, _)| named(name)).collect();
                Some(format!("`{query}` is no source beside this one; there is {}", there.join(", ")))
            }
            Some((_, None)) => Some(format!(
                "the encoder of `{query}` reads the state of another source itself, and only that of one that reads alone can be \
                 read"
            )),
            Some((_, Some(state))) => input.filter(|input| input != state).map(|input| {
                format!(
                    "the state of `{query}` is {state} wide, and what this stage reads {input}; they must agree: a `projection` \
                     before it changes the one, the encoder of `{query}` the other"
                )
            }),
        };
        let problem = |message| Problem { place: "query".into(), message };
        one_hot(input, kind).into_iter().chain(message.map(problem)).collect()
    }
}

/// The same of a batch.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Around<'b> {
    /// The tokens of the source, if it is text.
    pub(crate) tokens: Option<&'b TokenBatch>,
    /// The final states of other sources, `[B, N·W]` of each one's last layer.
    pub(crate) states: &'b [(&'b str, Tensor<2>)],
    /// Whether it is to be told where was looked.
    pub(crate) watch: bool,
}

impl Around<'_> {
    /// `[B, width]`: the state `h` of a source that was read before.
    pub(super) fn state(&self, name: &str, width: usize) -> Tensor<2> {
        let (_, state) = self.states.iter().find(|(of, _)| *of == name).expect("who asks is read after those it asks");
        if state.dims()[1] == width { state.clone() } else { state.clone().narrow(1, 0, width) }
    }
}
