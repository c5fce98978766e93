//! Learning a unigram language model of pieces by expectation maximisation (Kudo 2018, section 3.2).
//!
//! A word may be split into pieces in many ways; a split's probability is the product of its pieces' probabilities.
//! Expectation counts each piece over all splits of all words, weighted by their probabilities (forward-backward);
//! maximisation makes the counts into probabilities, with the sparse prior of Liang, Jordan and Klein (2007): digamma
//! instead of the logarithm. Between the rounds the pieces that are missed least are dropped.
//! All sums run in one fixed order.

use std::collections::HashMap;

use crate::seeds::{Word, seeds};

/// Longer words are cut here for learning.
const LONGEST_WORD: usize = 256;
/// Rounds of expectation and maximisation between two prunings.
const ROUNDS: usize = 2;
/// The share of the pieces that a pruning keeps.
const KEPT: f64 = 0.75;
/// Pieces that are expected less often than this are dropped.
const LEAST_EXPECTED: f64 = 0.5;

/// Learns at most `size` pieces of at most `longest` characters, every single character among them, with the natural
/// logarithms of their probabilities, rounded to six decimals; the likeliest first.
pub(crate) fn learn(words: &[(String, u64)], size: usize, longest: usize) -> Vec<(String, f64)> {
    let words: Vec<Word> = words.iter().flat_map(|(word, count)| parts(word, *count)).collect();
    let (texts, covered): (Vec<_>, Vec<_>) = seeds(&words, longest).into_iter().unzip();
    let all = covered.iter().sum::<u64>() as f64;
    let scores = covered.iter().map(|&n| (n as f64 / all).ln()).collect();
    let pieces = Pieces { texts, scores };
    let index = pieces.index();
    let lattices = words.iter().map(|(word, count)| Lattice::new(word, *count, &index, longest)).collect();
    let mut learner = Learner { pieces, lattices };

    let enough = size + size / 10; // pruning is coarse: the last tenth goes by probability
    loop {
        for _ in 0..ROUNDS {
            learner.maximize(&learner.expect());
        }
        let now = learner.pieces.texts.len();
        if now <= enough {
            break;
        }
        learner.prune(enough.max((now as f64 * KEPT) as usize), longest);
    }
    learner.pieces.best(size)
}

fn parts(word: &str, count: u64) -> Vec<Word> {
    let characters: Vec<char> = word.chars().collect();
    characters.chunks(LONGEST_WORD).map(|part| (part.to_vec(), count)).collect()
}

struct Pieces {
    texts: Vec<Vec<char>>,
    /// Natural logarithms of probabilities.
    scores: Vec<f64>,
}

impl Pieces {
    fn index(&self) -> HashMap<&[char], u32> {
        self.texts.iter().map(Vec::as_slice).zip(0..).collect()
    }

    fn is_single(&self, piece: usize) -> bool {
        self.texts[piece].len() == 1
    }

    fn best(self, size: usize) -> Vec<(String, f64)> {
        let round = |score: f64| (score * 1e6).round() / 1e6;
        let mut pieces: Vec<(Vec<char>, f64)> =
            self.texts.into_iter().zip(self.scores.into_iter().map(round)).collect();
        let best_first = |(a, m): &(Vec<char>, f64), (b, n): &(Vec<char>, f64)| n.total_cmp(m).then_with(|| a.cmp(b));
        pieces.sort_by(best_first);
        let (mut kept, others): (Vec<_>, Vec<_>) = pieces.into_iter().partition(|(text, _)| text.len() == 1);
        let room = size.saturating_sub(kept.len());
        kept.extend(others.into_iter().take(room));
        kept.sort_by(best_first);
        kept.into_iter().map(|(text, score)| (text.into_iter().collect(), score)).collect()
    }
}

/// One piece at one place of a word: from character `from` up to `to`.
#[derive(Clone, Copy)]
struct Edge {
    from: u16,
    to: u16,
    piece: u32,
}

/// All pieces at all places of a word, sorted by where they begin.
struct Lattice {
    length: usize,
    count: f64,
    edges: Vec<Edge>,
}

impl Lattice {
    /// `word` must be shorter than 2^16.
    fn new(word: &[char], count: u64, index: &HashMap<&[char], u32>, longest: usize) -> Self {
        let mut edges = Vec::new();
        for from in 0..word.len() {
            for to in from + 1..=word.len().min(from + longest) {
                if let Some(&piece) = index.get(&word[from..to]) {
                    edges.push(Edge { from: from as u16, to: to as u16, piece });
                }
            }
        }
        Self { length: word.len(), count: count as f64, edges }
    }

    /// Adds to `expected` how often each piece is expected in this word, times the word's count.
    fn add_expected(&self, scores: &[f64], (forward, backward): &mut (Vec<f64>, Vec<f64>), expected: &mut [f64]) {
        for (sums, start) in [(&mut *forward, 0), (&mut *backward, self.length)] {
            sums.clear();
            sums.resize(self.length + 1, f64::NEG_INFINITY);
            sums[start] = 0.0;
        }
        for &Edge { from, to, piece } in &self.edges {
            let through = forward[from as usize] + scores[piece as usize];
            forward[to as usize] = log_of_sum(forward[to as usize], through);
        }
        for &Edge { from, to, piece } in self.edges.iter().rev() {
            let through = backward[to as usize] + scores[piece as usize];
            backward[from as usize] = log_of_sum(backward[from as usize], through);
        }
        let whole = forward[self.length];
        for &Edge { from, to, piece } in &self.edges {
            let path = forward[from as usize] + scores[piece as usize] + backward[to as usize];
            expected[piece as usize] += self.count * (path - whole).exp();
        }
    }

    /// The pieces of the likeliest split that `allowed` lets pass, last piece first; none if there is no split.
    fn best_split(&self, scores: &[f64], allowed: impl Fn(&Edge) -> bool) -> Vec<u32> {
        let mut best: Vec<(f64, Option<Edge>)> = vec![(f64::NEG_INFINITY, None); self.length + 1];
        best[0].0 = 0.0;
        for &edge in self.edges.iter().filter(|edge| allowed(edge)) {
            let score = best[edge.from as usize].0 + scores[edge.piece as usize];
            if score > best[edge.to as usize].0 {
                best[edge.to as usize] = (score, Some(edge));
            }
        }
        std::iter::successors(best[self.length].1, |edge| best[edge.from as usize].1).map(|edge| edge.piece).collect()
    }
}

/// `ln(e^a + e^b)`.
fn log_of_sum(a: f64, b: f64) -> f64 {
    let (low, high) = if a < b { (a, b) } else { (b, a) };
    if low == f64::NEG_INFINITY { high } else { high + (low - high).exp().ln_1p() }
}

/// The derivative of `ln Γ`, for `x > 0`: the recurrence up to 6, then the asymptotic series (Abramowitz and Stegun
/// 6.3.5 and 6.3.18).
fn digamma(mut x: f64) -> f64 {
    let mut sum = 0.0;
    while x < 6.0 {
        sum -= 1.0 / x;
        x += 1.0;
    }
    let square = 1.0 / (x * x);
    sum + x.ln() - 0.5 / x - square * (1.0 / 12.0 - square * (1.0 / 120.0 - square / 252.0))
}

struct Learner {
    pieces: Pieces,
    lattices: Vec<Lattice>,
}

impl Learner {
    /// How often each piece is expected in the corpus.
    fn expect(&self) -> Vec<f64> {
        let (mut expected, mut sums) = (vec![0.0; self.pieces.texts.len()], (Vec::new(), Vec::new()));
        for lattice in &self.lattices {
            lattice.add_expected(&self.pieces.scores, &mut sums, &mut expected);
        }
        expected
    }

    /// Makes expected counts into probabilities and drops what is hardly expected; single characters stay.
    fn maximize(&mut self, expected: &[f64]) {
        let all = digamma(expected.iter().sum::<f64>().max(LEAST_EXPECTED));
        let keep: Vec<bool> =
            expected.iter().enumerate().map(|(i, &n)| n >= LEAST_EXPECTED || self.pieces.is_single(i)).collect();
        self.pieces.scores = expected.iter().map(|&n| digamma(n.max(LEAST_EXPECTED)) - all).collect();
        self.retain(&keep);
    }

    /// Keeps `target` pieces (or all single characters, if those are more): the ones whose loss would lower the
    /// likelihood of the best splits the most, if the best split of the rest took their place.
    fn prune(&mut self, target: usize, longest: usize) {
        let scores = &self.pieces.scores;
        let (mut used, mut words) = (vec![0.0; scores.len()], 0.0);
        for lattice in &self.lattices {
            words += lattice.count;
            for piece in lattice.best_split(scores, |_| true) {
                used[piece as usize] += lattice.count;
            }
        }
        let all: f64 = used.iter().sum();
        let index = self.pieces.index();
        let mut keep = vec![false; scores.len()];
        let mut losses = Vec::new();
        for (piece, text) in self.pieces.texts.iter().enumerate() {
            if text.len() == 1 {
                keep[piece] = true;
            } else if used[piece] > 0.0 {
                let lattice = Lattice::new(text, 1, &index, longest);
                let instead = lattice.best_split(scores, |edge| edge.piece as usize != piece);
                let all_then = (all + used[piece] * (instead.len() as f64 - 1.0)).ln();
                let then: f64 = instead.iter().map(|&i| (used[i as usize] + used[piece]).ln() - all_then).sum();
                losses.push((used[piece] / words * (used[piece].ln() - all.ln() - then), piece));
            }
        }
        losses.sort_by(|(a, i), (b, j)| b.total_cmp(a).then(i.cmp(j)));
        let singles = keep.iter().filter(|&&kept| kept).count();
        for (_, piece) in losses.into_iter().take(target.saturating_sub(singles)) {
            keep[piece] = true;
        }
        self.retain(&keep);
    }

    fn retain(&mut self, keep: &[bool]) {
        let places = keep.iter().scan(0, |next, &kept| {
            *next += u32::from(kept);
            Some(kept.then(|| *next - 1))
        });
        let renumbered: Vec<Option<u32>> = places.collect();
        let mut kept = keep.iter();
        self.pieces.texts.retain(|_| *kept.next().expect("one flag a piece"));
        let mut kept = keep.iter();
        self.pieces.scores.retain(|_| *kept.next().expect("one flag a piece"));
        for lattice in &mut self.lattices {
            lattice.edges.retain_mut(|edge| match renumbered[edge.piece as usize] {
                Some(piece) => {
                    edge.piece = piece;
                    true
                }
                None => false,
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chars(text: &str) -> Vec<char> {
        text.chars().collect()
    }

    /// Every split of `word` into known pieces, with the product of their probabilities.
    fn splits(word: &[char], pieces: &[(&str, f64)]) -> Vec<(Vec<usize>, f64)> {
        if word.is_empty() {
            return vec![(Vec::new(), 1.0)];
        }
        let mut all = Vec::new();
        for (piece, (text, probability)) in pieces.iter().enumerate() {
            if let Some(rest) = word.strip_prefix(chars(text).as_slice()) {
                for (mut split, product) in splits(rest, pieces) {
                    split.push(piece); // last piece first, as `best_split` gives them
                    all.push((split, product * probability));
                }
            }
        }
        all
    }

    #[test]
    fn expectation_and_the_best_split_equal_enumeration() {
        let pieces = [("a", 0.3), ("b", 0.2), ("ab", 0.15), ("ba", 0.1), ("aba", 0.2), ("bab", 0.05)];
        let texts: Vec<Vec<char>> = pieces.iter().map(|(text, _)| chars(text)).collect();
        let scores: Vec<f64> = pieces.iter().map(|(_, p)| f64::ln(*p)).collect();
        let index: HashMap<&[char], u32> = texts.iter().map(Vec::as_slice).zip(0..).collect();
        for word in ["a", "ab", "aba", "babab", "abbaabab"] {
            let lattice = Lattice::new(&chars(word), 3, &index, 3);
            let mut expected = vec![0.0; pieces.len()];
            lattice.add_expected(&scores, &mut (Vec::new(), Vec::new()), &mut expected);

            let all = splits(&chars(word), &pieces);
            let total: f64 = all.iter().map(|(_, product)| product).sum();
            for (piece, &got) in expected.iter().enumerate() {
                let count = |split: &[usize]| split.iter().filter(|&&i| i == piece).count() as f64;
                let by_hand: f64 = all.iter().map(|(split, product)| 3.0 * count(split) * product / total).sum();
                assert!((got - by_hand).abs() < 1e-12, "{word}: {got} is not {by_hand}");
            }

            let best = lattice.best_split(&scores, |_| true);
            let product: f64 = best.iter().map(|&piece| pieces[piece as usize].1).product();
            let highest = all.iter().map(|(_, product)| *product).fold(0.0, f64::max);
            assert!((product - highest).abs() < 1e-15, "{word}");
            assert_eq!(best.iter().rev().map(|&i| pieces[i as usize].0).collect::<String>(), word);
        }
    }

    #[test]
    fn digamma_is_digamma() {
        // scipy.special.digamma 1.11 at these points; -γ at 1.
        for (x, expected) in
            [(1.0, -0.577_215_664_901_532_9), (0.5, -1.963_510_026_021_423_5), (10.0, 2.251_752_589_066_721)]
        {
            assert!((digamma(x) - expected).abs() < 1e-6, "{x}: {}", digamma(x));
        }
    }

    #[test]
    fn what_repeats_becomes_a_piece_and_every_character_stays() {
        let words = [("walking ", 4), ("talking ", 3), ("walked ", 2), ("talked ", 5), ("sq ", 1)];
        let words: Vec<(String, u64)> = words.iter().map(|&(word, n)| (word.to_string(), n)).collect();
        let learned = learn(&words, 16, 16);
        assert_eq!(learned.len(), 16);
        let has = |piece: &str| learned.iter().any(|(text, _)| text == piece);
        assert!(" adegiklnqstw".chars().all(|character| has(&character.to_string())));
        assert!(learned.iter().filter(|(text, _)| text.len() > 3).count() >= 3, "{learned:?}");
        assert!(learned.is_sorted_by(|a, b| a.1 >= b.1));
    }
}
