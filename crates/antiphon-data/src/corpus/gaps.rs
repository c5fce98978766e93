//! Numbering what is left when a few of many are left out.

/// Maps the index among those kept to the index among all. Memory is spent on the gaps only.
#[derive(Debug, Clone, Default)]
pub(crate) struct Gaps {
    /// For each one left out, in order: how many were kept before it.
    kept_before: Vec<u64>,
}

impl Gaps {
    /// `left_out` in ascending order, without repetitions.
    pub(crate) fn new(left_out: impl IntoIterator<Item = u64>) -> Self {
        Self { kept_before: left_out.into_iter().enumerate().map(|(k, index)| index - k as u64).collect() }
    }

    /// Where the `kept`-th of those kept stood among all.
    pub(crate) fn position(&self, kept: usize) -> usize {
        kept + self.kept_before.partition_point(|&before| before <= kept as u64)
    }

    /// Those left out, in ascending order.
    pub(crate) fn left_out(&self) -> impl Iterator<Item = u64> + '_ {
        self.kept_before.iter().enumerate().map(|(k, before)| before + k as u64)
    }

    /// How many are left out.
    pub(crate) fn len(&self) -> usize {
        self.kept_before.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_pass_over_every_set_of_gaps() {
        for mask in 0_u32..1 << 10 {
            let (out, kept): (Vec<u64>, Vec<u64>) = (0..10).partition(|i| mask >> i & 1 == 1);
            let gaps = Gaps::new(out.iter().copied());
            assert_eq!((gaps.len(), gaps.left_out().collect::<Vec<_>>()), (out.len(), out.clone()));
            assert!((0..kept.len()).all(|k| gaps.position(k) as u64 == kept[k]), "{out:?}");
        }
    }
}
