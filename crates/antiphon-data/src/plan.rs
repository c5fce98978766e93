//! Which examples stand together in a batch.
//!
//! A batch costs what its longest rows cost, so examples of like length should meet; but training wants a random
//! order. [`plan()`] does both: it shuffles the examples, sorts each stretch of some batches' worth (a bucket) by
//! length, cuts batches to the budget and shuffles the batches. It is a pure function: the same lengths, settings and
//! key give the same plan on every machine.

use antiphon_core::random::Key;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Lengths;

/// `[batch]`: how large a batch is, chosen by `kind`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum BatchConfig {
    /// A fixed number of examples.
    Sentences(SentencesConfig),
    /// As many examples as fit a number of tokens.
    Tokens(TokensConfig),
}

impl Default for BatchConfig {
    fn default() -> Self {
        Self::Sentences(SentencesConfig::default())
    }
}

/// A fixed number of examples a batch; the last batch may hold fewer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SentencesConfig {
    /// Examples a batch.
    #[schemars(range(min = 1))]
    pub count: usize,
    /// How many batches' worth of shuffled examples are sorted by length together: 0 the whole epoch, 1 none.
    pub bucket: usize,
}

impl Default for SentencesConfig {
    fn default() -> Self {
        Self { count: 64, bucket: 50 }
    }
}

/// As many examples a batch as fit `count` tokens, end symbols included; an example longer than that stands alone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TokensConfig {
    /// Tokens a batch.
    #[schemars(range(min = 1))]
    pub count: usize,
    /// Whose tokens are counted.
    pub counted: Counted,
    /// Whether padding counts: then a batch is never wider than its budget, whatever its rows.
    pub padded: bool,
    /// How many batches' worth of shuffled examples are sorted by length together: 0 the whole epoch, 1 none.
    pub bucket: usize,
}

impl Default for TokensConfig {
    fn default() -> Self {
        Self { count: 4096, counted: Counted::Target, padded: true, bucket: 50 }
    }
}

/// The side whose tokens are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Counted {
    /// Those of the targets.
    Target,
    /// Those of the sources, of recordings their frames; further ones are not counted.
    Source,
    /// Those of sources and targets together; further sources are not counted.
    Both,
}

/// The batches of a training epoch, in order: indices into `lengths`, each exactly once.
///
/// No batch is over the budget unless a single example is.
pub fn plan(lengths: &[Lengths], config: &BatchConfig, key: Key) -> Vec<Vec<u32>> {
    let mut order = all(lengths);
    key.named("examples").shuffle(&mut order);
    match config.bucket() {
        0 => sort(&mut order, lengths, config),
        1 => {}
        bucket => {
            let worth = (bucket as u64).saturating_mul(config.budget());
            let mut rest = order.as_mut_slice();
            let mut rising = true;
            while !rest.is_empty() {
                let stretch;
                (stretch, rest) = rest.split_at_mut(stretch_of(rest, lengths, config, worth));
                sort(stretch, lengths, config);
                // Every second bucket falls, so that a batch across a border holds like lengths too.
                if !rising {
                    stretch.reverse();
                }
                rising = !rising;
            }
        }
    }
    let mut batches = cut(&order, lengths, config);
    key.named("batches").shuffle(&mut batches);
    batches
}

/// The batches of a validation or a test, shortest first: nothing in it is random.
pub fn plan_in_order(lengths: &[Lengths], config: &BatchConfig) -> Vec<Vec<u32>> {
    let mut order = all(lengths);
    sort(&mut order, lengths, config);
    cut(&order, lengths, config)
}

fn all(lengths: &[Lengths]) -> Vec<u32> {
    (0..u32::try_from(lengths.len()).expect("a dataset has fewer than 2^32 examples")).collect()
}

/// By the counted side, then by the other; equals stay in the order they are in.
fn sort(order: &mut [u32], lengths: &[Lengths], config: &BatchConfig) {
    let by_source = matches!(config, BatchConfig::Tokens(TokensConfig { counted: Counted::Source, .. }));
    order.sort_by_key(|&i| {
        let Lengths { source, target } = lengths[i as usize];
        if by_source { (source, target) } else { (target, source) }
    });
}

/// How many of the first examples are `worth` of the budget, without their padding; at least one.
fn stretch_of(order: &[u32], lengths: &[Lengths], config: &BatchConfig, worth: u64) -> usize {
    let mut load = Load::default();
    for (n, &i) in order.iter().enumerate() {
        load = load.with(lengths[i as usize]);
        if config.bare_cost(&load) >= worth {
            return n + 1;
        }
    }
    order.len()
}

fn cut(order: &[u32], lengths: &[Lengths], config: &BatchConfig) -> Vec<Vec<u32>> {
    let mut batches: Vec<Vec<u32>> = Vec::new();
    let mut batch = Vec::new();
    let mut load = Load::default();
    for &i in order {
        let length = lengths[i as usize];
        load = load.with(length);
        if !batch.is_empty() && config.cost(&load) > config.budget() {
            batches.push(std::mem::take(&mut batch));
            load = Load::default().with(length);
        }
        batch.push(i);
    }
    if !batch.is_empty() {
        batches.push(batch);
    }
    batches
}

/// What a batch holds so far.
#[derive(Default, Clone, Copy)]
struct Load {
    rows: u64,
    source: u64,
    target: u64,
    widest_source: u64,
    widest_target: u64,
}

impl Load {
    fn with(self, Lengths { source, target }: Lengths) -> Self {
        let (source, target) = (u64::from(source), u64::from(target));
        Self {
            rows: self.rows + 1,
            source: self.source + source,
            target: self.target + target,
            widest_source: self.widest_source.max(source),
            widest_target: self.widest_target.max(target),
        }
    }
}

impl BatchConfig {
    /// How many batches so many examples make, where that does not depend on their order.
    pub fn batches(&self, examples: usize) -> Option<usize> {
        match self {
            Self::Sentences(config) => Some(examples.div_ceil(config.count.max(1))),
            Self::Tokens(_) => None,
        }
    }

    fn bucket(&self) -> usize {
        match self {
            Self::Sentences(c) => c.bucket,
            Self::Tokens(c) => c.bucket,
        }
    }

    fn budget(&self) -> u64 {
        match self {
            Self::Sentences(c) => c.count as u64,
            Self::Tokens(c) => c.count as u64,
        }
    }

    /// What is held against the budget.
    fn cost(&self, load: &Load) -> u64 {
        match self {
            Self::Tokens(TokensConfig { counted, padded: true, .. }) => {
                load.rows * counted.of(load.widest_source, load.widest_target)
            }
            _ => self.bare_cost(load),
        }
    }

    fn bare_cost(&self, load: &Load) -> u64 {
        match self {
            Self::Sentences(_) => load.rows,
            Self::Tokens(c) => c.counted.of(load.source, load.target),
        }
    }
}

impl Counted {
    fn of(self, source: u64, target: u64) -> u64 {
        match self {
            Counted::Target => target,
            Counted::Source => source,
            Counted::Both => source + target,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn lengths() -> impl Strategy<Value = Vec<Lengths>> {
        prop::collection::vec((1_u32..60, 1_u32..60).prop_map(|(source, target)| Lengths { source, target }), 0..300)
    }

    fn config() -> impl Strategy<Value = BatchConfig> {
        let counted = prop_oneof![Just(Counted::Target), Just(Counted::Source), Just(Counted::Both)];
        let tokens = (1_usize..400, counted, any::<bool>(), 0_usize..6)
            .prop_map(|(count, counted, padded, bucket)| TokensConfig { count, counted, padded, bucket });
        prop_oneof![
            (1_usize..40, 0_usize..6)
                .prop_map(|(count, bucket)| BatchConfig::Sentences(SentencesConfig { count, bucket })),
            tokens.prop_map(BatchConfig::Tokens),
        ]
    }

    /// Written apart from the code under test.
    fn cost(batch: &[u32], lengths: &[Lengths], config: &BatchConfig) -> usize {
        let sides = |l: &Lengths, counted| match counted {
            Counted::Target => [l.target as usize, 0],
            Counted::Source => [l.source as usize, 0],
            Counted::Both => [l.target as usize, l.source as usize],
        };
        match config {
            BatchConfig::Sentences(_) => batch.len(),
            BatchConfig::Tokens(c) => (0..2)
                .map(|side| {
                    let lengths = batch.iter().map(|&i| sides(&lengths[i as usize], c.counted)[side]);
                    if c.padded { lengths.max().unwrap() * batch.len() } else { lengths.sum() }
                })
                .sum(),
        }
    }

    fn padding(plan: &[Vec<u32>], lengths: &[Lengths]) -> u32 {
        plan.iter()
            .flat_map(|batch| {
                let widest = batch.iter().map(|&i| lengths[i as usize].target).max().unwrap();
                batch.iter().map(move |&i| widest - lengths[i as usize].target)
            })
            .sum()
    }

    proptest! {
        #[test]
        fn every_example_once_and_no_batch_over_the_budget(lengths in lengths(), config in config(), seed: u64) {
            let key = Key::from_seed(seed);
            let random = plan(&lengths, &config, key);
            prop_assert_eq!(&random, &plan(&lengths, &config, key));
            prop_assert!(config.batches(lengths.len()).is_none_or(|count| count == random.len()));
            for batches in [random, plan_in_order(&lengths, &config)] {
                let mut seen: Vec<u32> = batches.concat();
                seen.sort_unstable();
                prop_assert!(seen.into_iter().eq(0..lengths.len() as u32));
                for batch in &batches {
                    prop_assert!(!batch.is_empty());
                    prop_assert!(batch.len() == 1 || cost(batch, &lengths, &config) as u64 <= config.budget());
                }
            }
        }

        #[test]
        fn sorting_the_whole_epoch_never_pads_more(lengths in lengths(), count in 1_usize..20, seed: u64) {
            // Without a last short batch, which may fall luckily, a sorted order is the best there is.
            let lengths = &lengths[..lengths.len() / count * count];
            let with = |bucket| {
                let config = BatchConfig::Sentences(SentencesConfig { count, bucket });
                padding(&plan(lengths, &config, Key::from_seed(seed)), lengths)
            };
            prop_assert!(with(0) <= with(1));
            prop_assert!(with(0) <= with(3));
        }

        #[test]
        fn an_order_without_chance_rises(lengths in lengths(), config in config()) {
            let order = plan_in_order(&lengths, &config).concat();
            let by_source = matches!(&config, BatchConfig::Tokens(c) if c.counted == Counted::Source);
            let length = |i: u32| {
                let l = lengths[i as usize];
                if by_source { l.source } else { l.target }
            };
            prop_assert!(order.windows(2).all(|w| length(w[0]) <= length(w[1])));
        }
    }

    /// 5,000 examples with lengths like those of sentences: a few short, many middling, a tail.
    fn like_sentences() -> Vec<Lengths> {
        let key = Key::from_seed(3);
        (0..5000)
            .map(|i| {
                let target = 5.0 + 8.0 * key.normal(i).abs() + 4.0 * key.uniform(2 * i + 20_000);
                Lengths { source: (target * (0.8 + 0.4 * key.uniform(i))) as u32 + 1, target: target as u32 }
            })
            .collect()
    }

    #[test]
    fn buckets_save_most_of_the_padding() {
        let lengths = like_sentences();
        let with = |bucket| {
            let sentences = BatchConfig::Sentences(SentencesConfig { count: 32, bucket });
            let tokens = BatchConfig::Tokens(TokensConfig { count: 500, bucket, ..TokensConfig::default() });
            [sentences, tokens].map(|config| {
                let batches = plan(&lengths, &config, Key::from_seed(1));
                (padding(&batches, &lengths), batches.len())
            })
        };
        for ((few, fewer_batches), (many, batches)) in with(20).into_iter().zip(with(1)) {
            assert!(few * 5 < many, "{few} against {many}");
            assert!(fewer_batches <= batches);
        }
    }

    #[test]
    fn a_key_is_an_order() {
        let (lengths, config) = (like_sentences(), BatchConfig::default());
        let of = |epoch| plan(&lengths, &config, Key::from_seed(17).numbered(epoch));
        assert_ne!(of(0), of(1));
        // Batches do not come sorted by length.
        let widths: Vec<u32> =
            of(0).iter().map(|b| b.iter().map(|&i| lengths[i as usize].target).max().unwrap()).collect();
        let rises = widths.windows(2).filter(|w| w[0] <= w[1]).count();
        assert!(rises * 3 > widths.len() && rises * 3 < widths.len() * 2, "{rises} of {}", widths.len());
    }

    #[test]
    fn a_plan_is_fixed_for_all_time() {
        // Changing this breaks the repetition of every run that was ever made.
        let lengths: Vec<Lengths> = (0..9).map(|i| Lengths { source: 1, target: 1 + i * 7 % 5 }).collect();
        let config = BatchConfig::Sentences(SentencesConfig { count: 2, bucket: 2 });
        assert_eq!(
            plan(&lengths, &config, Key::from_seed(17)),
            [vec![2, 4], vec![6, 7], vec![5], vec![3, 1], vec![8, 0]]
        );
    }

    #[test]
    fn a_table_reads_as_it_is_written() {
        let of = |text: &str| toml::from_str::<BatchConfig>(text).map_err(|e| e.message().to_string());
        let tokens = TokensConfig { count: 2000, counted: Counted::Both, padded: false, bucket: 0 };
        assert_eq!(
            of("kind = 'tokens'\ncount = 2000\ncounted = 'both'\npadded = false\nbucket = 0"),
            Ok(BatchConfig::Tokens(tokens))
        );
        assert_eq!(of("kind = 'sentences'"), Ok(BatchConfig::default()));
        assert_eq!(
            of("kind = 'sentences'\ncounted = 'both'").unwrap_err(),
            "unknown field `counted`, expected `count` or `bucket`"
        );
    }
}
