//! Bags of n-grams and what they share.
//!
//! A bag is the sorted list of its n-grams: equal ones stand together, and two bags are compared by walking both.

use std::cmp::Ordering;

/// All n-grams of `tokens`, sorted.
pub(crate) fn bag<T: Ord>(tokens: &[T], n: usize) -> Vec<&[T]> {
    let mut grams: Vec<&[T]> = tokens.windows(n).collect();
    grams.sort_unstable();
    grams
}

/// The bag that holds each n-gram as often as the richer of the two.
pub(crate) fn union<G: Ord + Copy>(a: &[G], b: &[G]) -> Vec<G> {
    let mut union = Vec::with_capacity(a.len().max(b.len()));
    walk(a, b, |gram, _| union.push(gram));
    union
}

/// How many n-grams the two have in common, each as often as in the poorer.
pub(crate) fn overlap<G: Ord + Copy>(a: &[G], b: &[G]) -> usize {
    let mut common = 0;
    walk(a, b, |_, both| common += usize::from(both));
    common
}

/// Tells every n-gram of either bag, and whether it was in both.
fn walk<G: Ord + Copy>(mut a: &[G], mut b: &[G], mut tell: impl FnMut(G, bool)) {
    while let (Some((&x, rest_a)), Some((&y, rest_b))) = (a.split_first(), b.split_first()) {
        match x.cmp(&y) {
            Ordering::Less => {
                tell(x, false);
                a = rest_a;
            }
            Ordering::Greater => {
                tell(y, false);
                b = rest_b;
            }
            Ordering::Equal => {
                tell(x, true);
                (a, b) = (rest_a, rest_b);
            }
        }
    }
    a.iter().chain(b).for_each(|&gram| tell(gram, false));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bags_by_hand() {
        let (a, b) = ("abab".as_bytes(), "babb".as_bytes());
        assert_eq!(bag(a, 2), [b"ab", b"ab", b"ba"]);
        assert_eq!(overlap(&bag(a, 1), &bag(b, 1)), 3);
        assert_eq!(overlap(&bag(a, 2), &bag(b, 2)), 2);
        assert_eq!(union(&bag(a, 2), &bag(b, 2)), [&b"ab"[..], b"ab", b"ba", b"bb"]);
        assert!(bag(a, 5).is_empty());
    }
}
