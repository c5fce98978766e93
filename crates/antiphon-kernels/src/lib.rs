//! The operations that Antiphon's speed comes from, as Burn backend extensions with handwritten gradients.
//!
//! - [`recurrent`](recurrent::recurrent): a whole RNN, LSTM or GRU layer over a whole sequence, in one node of the graph;
//! - [`attend`](attention::attend): attention over a memory, with nothing of queries × keys × width kept, and [`attend_in_turn`],
//!   whose looks hear where those before them have looked;
//! - [`fed_decoder`](feeding::fed_decoder): a whole decoder with attention and input feeding, in one node;
//! - [`cross_entropy`](loss::cross_entropy): output projection, softmax, label smoothing and loss, in chunks;
//! - [`taught_cross_entropy`]: the same, with a share for what a teacher holds of all tokens;
//! - [`point`] and [`copied_cross_entropy`]: what a query copies of its sources, and the loss of a vocabulary beside it;
//! - [`ctc_loss`]: connectionist temporal classification, forward and backward over all paths;
//! - [`dropout`](dropout::dropout), [`locked_dropout`], [`word_dropout`]: masks from counter-based random numbers;
//! - [`activation_penalty`], [`temporal_penalty`]: penalties on what a layer puts out;
//! - [`linear()`]: a sequence times a weight;
//! - [`convolve`]: a convolution along time; [`convolve_2d`]: one across bands as well; [`gated_linear_unit`], [`layer_norm`] and [`average_steps`] beside it;
//! - [`sentence_sums`]: a vector of each sentence of a text; [`reduce_query`]: what is asked of them, reduced by one after the other;
//! - [`PackedWeight`], [`recurrent_step`] and [`OutputLayer`]: a step of search;
//! - [`select_rows`], [`first_rows`], [`concat`]: what only moves numbers;
//! - [`tanh()`]: the hyperbolic tangent, vectorised;
//! - [`update`]: an optimizer's step over one parameter or several, the norm of their gradients, and running averages.
//!
//! Each has a body for the Flex CPU backend on plain slices, which is chosen for `f32`; some have kernels for GPUs (`cube`). What serves
//! every other device and number type, and is the oracle of the tests, depends on whether a gradient by hand pays there:
//!
//! - recurrent layers, the losses over a vocabulary, tanh and the optimizers have a *portable* body made of backend operations, the default of
//!   their traits' methods, in one node of the graph with a gradient by hand;
//! - attention, a sequence times a weight, convolutions and what stands beside them, sentences and what they make of a query, dropout,
//!   penalties and the steps of a search are tensor operations there, a few of them, whose gradient autodiff makes as well; their traits
//!   exist where there are slices or kernels, and the public function asks whether these serve;
//! - [`fed_decoder`](feeding::fed_decoder) has no other body: see its module.
//!
//! Nothing here knows modules.

pub mod attention;
mod average;
mod blocks;
mod convolution;
mod convolution_2d;
mod ctc;
#[cfg(feature = "wgpu")]
mod cube;
mod distillation;
pub mod dropout;
pub mod feeding;
mod flex;
mod gate;
mod linear;
pub mod loss;
mod memory;
mod norm;
mod output;
mod packed;
mod penalty;
mod pointer;
mod product;
pub mod recurrent;
mod reduction;
mod rows;
mod sentences;
mod tanh;
mod team;
mod term;
pub mod update;
mod vector;
mod weight;

pub use attention::{Over, Past, attend, attend_in_turn, attend_with_weights};
pub use average::average_steps;
pub use convolution::{Convolution, convolve, zero_beyond};
pub use convolution_2d::{Convolution2d, convolve_2d};
pub use ctc::{Transcripts, ctc_loss};
pub use distillation::{TaughtLoss, Teacher, Teaching, taught_cross_entropy};
pub use dropout::{dropout, locked_dropout, word_dropout};
pub use feeding::{FedDecoder, Feeding, fed_decoder, serves_fed_decoder};
pub use gate::gated_linear_unit;
pub use linear::linear;
pub use loss::{Projection, TokenScores, cross_entropy, token_scores};
pub use memory::keep_freed_memory;
pub use norm::layer_norm;
pub use output::OutputLayer;
pub use penalty::{activation_penalty, temporal_penalty};
pub use pointer::{IMPOSSIBLE, Pointing, copied_cross_entropy, dot_products, log_add, point};
pub use recurrent::{Cell, Recurrence, Recurrent, Shared, recurrent, recurrent_step};
pub use reduction::{QueryReduction, Reduced, Reduction, query_gates, reduce_query};
pub use rows::{concat, first_rows, select_rows};
pub use sentences::{Sentence, Sentences, WordOrder, sentence_sums};
pub use tanh::tanh;
pub use team::attentively;
pub use term::{Carry, Term, choose_rows};
pub use weight::{PackedWeight, host};
