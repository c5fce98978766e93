//! Models small enough to be enumerated, whose answers depend on the source and on the whole prefix.

use std::sync::{Arc, Mutex};

use antiphon_core::random::Key;
use antiphon_core::{
    CtcOutput, Mask, PrefixOutput, Request, Result, Selection, Source, Special, StepModel, StepOutput, StepSession,
    TokenId, Want,
};
use antiphon_decode::{Hypothesis, LengthPenalty};

pub(crate) const PAD: TokenId = Special::Pad.id();
pub(crate) const UNKNOWN: TokenId = Special::Unknown.id();
pub(crate) const BEGIN: TokenId = Special::Begin.id();
pub(crate) const END: TokenId = Special::End.id();

/// The log-probabilities `[V]` of the next token, given source and prefix.
pub(crate) type Next = Box<dyn Fn(&[TokenId], &[TokenId]) -> Vec<f32> + Send + Sync>;

/// A model that is a function.
pub(crate) struct Toy {
    pub(crate) vocabulary: usize,
    pub(crate) next: Next,
    /// What its tokens are ranked by, if that is not their log-probability.
    pub(crate) scores: Option<Next>,
    /// The seed of what its sources say by themselves, if they do.
    pub(crate) ctc: Option<u64>,
    /// What was asked of it, step after step: rows and selection.
    pub(crate) asked: Mutex<Vec<(usize, Selection)>>,
    /// How often rows were selected.
    pub(crate) selects: Mutex<usize>,
}

impl Toy {
    pub(crate) fn new(
        vocabulary: usize,
        next: impl Fn(&[TokenId], &[TokenId]) -> Vec<f32> + Send + Sync + 'static,
    ) -> Arc<Self> {
        let (asked, selects) = (Mutex::default(), Mutex::default());
        Arc::new(Self { vocabulary, next: Box::new(next), scores: None, ctc: None, asked, selects })
    }

    /// A toy whose tokens are ranked by the log-probabilities of another.
    pub(crate) fn ranked_by(toy: Arc<Self>, other: Arc<Self>) -> Arc<Self> {
        let vocabulary = toy.vocabulary;
        let mut ranked =
            Arc::into_inner(Self::new(vocabulary, move |source, prefix| (toy.next)(source, prefix))).unwrap();
        ranked.scores = Some(Box::new(move |source, prefix| (other.next)(source, prefix)));
        Arc::new(ranked)
    }

    /// Probabilities by hand: `table(prefix)` lists `(token, probability)`; all others are impossible.
    pub(crate) fn table(
        vocabulary: usize,
        table: impl Fn(&[TokenId]) -> Vec<(TokenId, f64)> + Send + Sync + 'static,
    ) -> Arc<Self> {
        Self::new(vocabulary, move |_, prefix| {
            let mut row = vec![f32::NEG_INFINITY; vocabulary];
            for (token, probability) in table(prefix) {
                row[token as usize] = probability.ln() as f32;
            }
            row
        })
    }

    /// A softmax over normal numbers drawn under the hash of source and prefix; every fifth or so token is impossible
    /// if `holes`, and log-probabilities are rounded to quarters if `ties`.
    pub(crate) fn random(seed: u64, vocabulary: usize, holes: bool, ties: bool) -> Arc<Self> {
        Self::new(vocabulary, move |source, prefix| {
            let key = Key::from_seed(seed);
            let key = source.iter().fold(key, |key, &id| key.numbered(u64::from(id)));
            let key = prefix.iter().fold(key.named("prefix"), |key, &id| key.numbered(u64::from(id)));
            let hole = |v: usize| holes && key.named("hole").uniform(v as u64) < 0.2;
            let logits: Vec<f64> =
                (0..vocabulary).map(|v| if hole(v) { f64::NEG_INFINITY } else { 1.5 * key.normal(v as u64) }).collect();
            let total = logits.iter().map(|l| l.exp()).sum::<f64>().ln();
            let log_probs = logits.iter().map(|l| if l.is_finite() { l - total } else { f64::NEG_INFINITY });
            if ties {
                log_probs.map(|l| (l * 4.0).floor() as f32 / 4.0).collect()
            } else {
                log_probs.map(|l| l as f32).collect()
            }
        })
    }
}

impl Toy {
    /// A model that has learned one target for each source, of at most `longest` tokens, and gives each of its tokens a
    /// probability of at least `least`. Off that path it likes to end at once, as trained models do.
    pub(crate) fn peaked(seed: u64, vocabulary: usize, longest: u64, least: f64) -> Arc<Self> {
        Self::new(vocabulary, move |source, prefix| {
            let key = source.iter().fold(Key::from_seed(seed), |key, &id| key.numbered(u64::from(id)));
            let letters = vocabulary as u64 - 4;
            let length = key.named("length").below(0, longest) as usize;
            let target: Vec<TokenId> =
                (0..length).map(|t| 4 + key.named("target").below(t as u64, letters) as TokenId).collect();
            let on_path = target.starts_with(prefix);
            let here = prefix.iter().fold(key.named("prefix"), |key, &id| key.numbered(u64::from(id)));
            let best = if on_path { target.get(prefix.len()).copied().unwrap_or(END) } else { END };
            let peak = if on_path { least + (1.0 - least) * here.uniform(0) } else { 0.3 + 0.699 * here.uniform(0) };
            let mut others: Vec<f64> = (0..vocabulary).map(|v| (4.0 * here.normal(v as u64)).exp()).collect();
            others[best as usize] = 0.0;
            let total: f64 = others.iter().sum();
            let probability = |v: usize| if v == best as usize { peak } else { (1.0 - peak) * others[v] / total };
            (0..vocabulary).map(|v| probability(v).ln() as f32).collect()
        })
    }
}

/// What a source says by itself: probabilities drawn for each of its tokens.
pub(crate) fn ctc(seed: u64, source: &[TokenId], vocabulary: usize) -> CtcOutput {
    let key = source.iter().fold(Key::from_seed(seed).named("ctc"), |key, &id| key.numbered(u64::from(id)));
    let step = |t: usize| {
        let logits: Vec<f64> = (0..vocabulary).map(|v| key.numbered(t as u64).normal(v as u64)).collect();
        let total = logits.iter().map(|logit| logit.exp()).sum::<f64>().ln();
        logits.into_iter().map(move |logit| (logit - total) as f32)
    };
    CtcOutput { log_probs: (0..source.len()).flat_map(step).collect(), vocabulary, blank: PAD }
}

struct ToySession {
    toy: Arc<Toy>,
    width: usize,
    /// Source and what was fed so far, the begin symbol included.
    rows: Vec<(Vec<TokenId>, Vec<TokenId>)>,
    /// What each row must be fed first.
    first: Vec<TokenId>,
    prefixes: Vec<PrefixOutput>,
}

impl StepModel for Toy {
    fn begin(self: Arc<Self>, requests: &[Request]) -> Result<Box<dyn StepSession>> {
        let source = |request: &Request| match request.sources.as_slice() {
            [] => Vec::new(),
            [Source::Tokens(ids)] => ids.clone(),
            // A frame's first number is its id.
            [Source::Frames { values, features }] => values.iter().step_by(*features).map(|&v| v as TokenId).collect(),
            more => panic!("a toy reads one source, not {}", more.len()),
        };
        let (mut rows, mut prefixes) = (Vec::new(), Vec::new());
        for request in requests {
            let (source, prefix) = (source(request), &request.prefix);
            let worth = |next: &Next| -> Vec<f32> {
                (0..prefix.len()).map(|t| next(&source, &prefix[..t])[prefix[t] as usize]).collect()
            };
            let scores = self.scores.as_ref().map_or_else(Vec::new, worth);
            prefixes.push(PrefixOutput { log_probs: worth(&self.next), scores });
            let fed = [&[BEGIN], prefix.as_slice()].concat();
            rows.push((source, fed[..prefix.len()].to_vec()));
        }
        let width = rows.iter().map(|(source, _)| source.len()).max().unwrap_or(0);
        let first = requests.iter().map(|request| request.prefix.last().map_or(BEGIN, |&id| id)).collect();
        Ok(Box::new(ToySession { toy: self, width, rows, first, prefixes }))
    }

    fn vocabulary(&self) -> usize {
        self.vocabulary
    }
}

impl StepSession for ToySession {
    fn rows(&self) -> usize {
        self.rows.len()
    }

    fn take_prefixes(&mut self) -> Vec<PrefixOutput> {
        std::mem::take(&mut self.prefixes)
    }

    fn take_ctc(&mut self) -> Vec<CtcOutput> {
        let of = |seed| self.rows.iter().map(|(source, _)| ctc(seed, source, self.toy.vocabulary)).collect();
        self.toy.ctc.map_or_else(Vec::new, of)
    }

    fn step(&mut self, last: &[TokenId], want: &Want, out: &mut StepOutput) -> Result<()> {
        assert_eq!(last.len(), self.rows.len(), "each row is fed one token");
        assert!(!self.rows.is_empty(), "an empty batch is not stepped");
        for (b, (_, fed)) in self.rows.iter_mut().enumerate() {
            let first = self.first.get(b).copied().unwrap_or(last[b]);
            assert_eq!(last[b], first, "a row goes on with the last token of its prefix");
            assert_eq!(fed.is_empty(), last[b] == BEGIN, "a row begins with the begin symbol, once");
            fed.push(last[b]);
        }
        self.first.clear();
        let rows: Vec<u32> = (0..self.rows.len() as u32).collect();
        self.tell(&rows, want, out);
        Ok(())
    }

    fn again(&mut self, rows: &[u32], want: &Want, out: &mut StepOutput) -> Result<()> {
        assert!(self.rows.iter().all(|(_, fed)| !fed.is_empty()), "a step was taken");
        assert!(!want.attention, "attention is told once");
        self.tell(rows, want, out);
        Ok(())
    }

    fn select(&mut self, rows: &[u32]) {
        *self.toy.selects.lock().unwrap() += 1;
        self.rows = rows.iter().map(|&r| self.rows[r as usize].clone()).collect();
        if !self.first.is_empty() {
            self.first = rows.iter().map(|&r| self.first[r as usize]).collect();
        }
    }
}

impl ToySession {
    /// What `want` asks for of some rows, as they stand.
    fn tell(&self, rows: &[u32], want: &Want, out: &mut StepOutput) {
        self.toy.asked.lock().unwrap().push((rows.len(), want.selection.clone()));
        out.tokens.clear();
        out.log_probs.clear();
        out.attention.clear();
        out.scores.clear();
        assert!(want.masks.is_empty() || want.masks.len() == rows.len(), "a mask for each row, or none");
        for (b, &row) in rows.iter().enumerate() {
            let (source, fed) = &self.rows[row as usize];
            let mut log_probs = (self.toy.next)(source, &fed[1..]);
            let mask = want.masks.get(b).unwrap_or(&Mask::Free);
            let may = |id: TokenId| !want.banned.contains(&id) && mask.allows(id);
            (0..).zip(&mut log_probs).filter(|(id, _)| !may(*id)).for_each(|(_, p)| *p = f32::NEG_INFINITY);
            let scores = self.toy.scores.as_ref().map(|scores| scores(source, &fed[1..]));
            let score = |id: usize| match &scores {
                Some(scores) if log_probs[id] > f32::NEG_INFINITY => scores[id],
                _ => log_probs[id],
            };
            let mut entries: Vec<(TokenId, f32, f32)> =
                (0..log_probs.len()).map(|id| (id as TokenId, score(id), log_probs[id])).collect();
            match &want.selection {
                Selection::All => {}
                Selection::Given(tokens) => {
                    let each = tokens.len() / rows.len();
                    entries = tokens[b * each..][..each].iter().map(|&id| entries[id as usize]).collect();
                }
                Selection::Top(k) => {
                    assert!(*k <= self.toy.vocabulary, "not more than there are");
                    entries.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
                    entries.truncate(*k);
                }
            }
            out.per_row = entries.len();
            for (token, score, log_prob) in entries {
                out.tokens.push(token);
                out.log_probs.push(log_prob);
                out.scores.extend(scores.is_some().then_some(score));
            }
            if want.attention {
                let weights = attention(source, &fed[1..]);
                out.attention.extend((0..self.width).map(|s| weights.get(s).copied().unwrap_or(0.0)));
            }
        }
    }
}

/// The toys' attention over a source when they choose what follows `prefix`: a mark that only this prefix leaves.
pub(crate) fn attention(source: &[TokenId], prefix: &[TokenId]) -> Vec<f32> {
    let key = prefix.iter().fold(Key::from_seed(99), |key, &id| key.numbered(u64::from(id)));
    (0..source.len()).map(|s| key.uniform(s as u64) as f32).collect()
}

/// What a search may do.
#[derive(Debug, Clone)]
pub(crate) struct Limits {
    pub(crate) max_length: usize,
    pub(crate) min_length: usize,
    pub(crate) forbid_unknown: bool,
}

impl Limits {
    pub(crate) fn allows(&self, token: TokenId, length: usize) -> bool {
        match token {
            PAD | BEGIN => false,
            UNKNOWN => !self.forbid_unknown,
            END => length >= self.min_length,
            _ => true,
        }
    }
}

/// A beginning or an end: its tokens with the end symbol, and its log-probability.
type Path = (Vec<TokenId>, f64);

fn hypothesis((mut tokens, log_prob): Path, penalty: &LengthPenalty) -> Hypothesis {
    let score = penalty.score(log_prob, tokens.len());
    let finished = tokens.last() == Some(&END);
    if finished {
        tokens.pop();
    }
    Hypothesis { tokens, log_prob, prefix_log_prob: 0.0, score, finished, stopped: false, attention: Vec::new() }
}

fn ranked(paths: Vec<Path>, penalty: &LengthPenalty) -> Vec<Hypothesis> {
    let mut all: Vec<_> = paths.into_iter().map(|p| hypothesis(p, penalty)).collect();
    all.sort_by(|a, b| b.score.total_cmp(&a.score)); // stable: of equals the earlier found
    all
}

/// All continuations of `live` that are possible, in the order parent, then best, then smallest token.
fn continuations(toy: &Toy, source: &[TokenId], live: &[Path], limits: &Limits) -> Vec<Path> {
    let mut all = Vec::new();
    for (prefix, log_prob) in live {
        let mut row: Vec<(TokenId, f32)> = (0..).zip((toy.next)(source, prefix)).collect();
        row.retain(|&(token, p)| p > f32::NEG_INFINITY && limits.allows(token, prefix.len()));
        row.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        all.extend(row.into_iter().map(|(t, p)| ([&prefix[..], &[t]].concat(), log_prob + f64::from(p))));
    }
    all
}

/// Exhaustive search: every target there is, best first. If none ends, the longest beginnings.
pub(crate) fn exhaustive(toy: &Toy, source: &[TokenId], limits: &Limits, penalty: &LengthPenalty) -> Vec<Hypothesis> {
    let (mut live, mut ended) = (vec![(Vec::new(), 0.0)], Vec::new());
    for _ in 0..limits.max_length {
        let (ends, grown): (Vec<_>, Vec<_>) =
            continuations(toy, source, &live, limits).into_iter().partition(|(tokens, _)| tokens.last() == Some(&END));
        ended.extend(ends);
        if grown.is_empty() {
            break;
        }
        live = grown;
    }
    ranked(if ended.is_empty() { live } else { ended }, penalty)
}

/// A beam written the slow and obvious way: it copies prefixes, looks at every token, and never stops before the
/// length limit unless `enough` have ended, one of them no less probable than anything that lives.
pub(crate) fn naive_beam(
    toy: &Toy,
    source: &[TokenId],
    limits: &Limits,
    penalty: &LengthPenalty,
    width: usize,
    enough: usize,
) -> Vec<Hypothesis> {
    let (mut live, mut ended): (Vec<Path>, Vec<Path>) = (vec![(Vec::new(), 0.0)], Vec::new());
    for _ in 0..limits.max_length {
        let mut all = continuations(toy, source, &live, limits);
        all.sort_by(|a, b| b.1.total_cmp(&a.1)); // stable
        let ends = |path: &Path| path.0.last() == Some(&END);
        ended.extend(all.iter().take(width).filter(|p| ends(p)).cloned());
        let grown: Vec<_> = all.into_iter().filter(|p| !ends(p)).take(width).collect();
        if !grown.is_empty() {
            live = grown;
        } else {
            break;
        }
        let most = |paths: &[Path]| paths.iter().map(|(_, p)| *p).fold(f64::NEG_INFINITY, f64::max);
        if ended.len() >= enough && most(&live) <= most(&ended) {
            break;
        }
    }
    ranked(if ended.is_empty() { live } else { ended }, penalty)
}
