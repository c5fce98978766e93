//! Asynchronous successive halving: which cell trains next, and how far.
//!
//! Li et al. 2020, *A System for Massively Parallel Hyperparameter Tuning* (ASHA), algorithm 2. Whenever there is room for
//! another job, the highest rung is looked for at which a cell is among the best `1/eta` of those that have come so far
//! and has not gone on yet; that cell goes on. If there is none, a new cell begins. Nothing waits for a rung to be full.

use std::collections::{BTreeMap, BTreeSet};

/// A cell on its way to a rung.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Climb {
    /// The cell, counted from 0.
    pub cell: usize,
    /// The rung, counted from 0.
    pub rung: usize,
}

/// The ladder. A function of what was reported, in its order: with one job at a time everything is determined.
#[derive(Debug)]
pub struct Halving {
    cells: usize,
    eta: usize,
    /// The cells that have come to each rung, with their figures; the smaller, the better.
    come: Vec<BTreeMap<usize, f64>>,
    /// The cells that have set out for each rung.
    out: Vec<BTreeSet<usize>>,
    climbing: BTreeSet<Climb>,
}

impl Halving {
    /// A ladder of `rungs` for `cells`, of which one in `eta` goes on.
    pub fn new(cells: usize, rungs: usize, eta: usize) -> Self {
        let (come, out) = (vec![BTreeMap::new(); rungs], vec![BTreeSet::new(); rungs]);
        Self { cells, eta, come, out, climbing: BTreeSet::new() }
    }

    /// How far a run is at each rung: `least · eta^k` below `most`, then `most`.
    pub fn budgets(least: u64, eta: u64, most: u64) -> Vec<u64> {
        let below = std::iter::successors(Some(least), |far| far.checked_mul(eta)).take_while(|&far| far < most);
        below.chain([most]).collect()
    }

    /// Who climbs next; `None` if nobody can before another report, or all is done.
    pub fn next_climb(&mut self) -> Option<Climb> {
        let top = self.come.len() - 1;
        let promoted = (0..top).rev().find_map(|rung| self.promotable(rung, self.come[rung].len() / self.eta));
        let next = promoted.or_else(|| self.newcomer()).or_else(|| self.last_resort())?;
        self.out[next.rung].insert(next.cell);
        self.climbing.insert(next);
        Some(next)
    }

    /// A cell has come to its rung, with a figure; or never will.
    pub fn report(&mut self, climb: Climb, figure: Option<f64>) {
        self.climbing.remove(&climb);
        self.out[climb.rung].insert(climb.cell);
        if let Some(figure) = figure {
            self.come[climb.rung].insert(climb.cell, figure);
        }
    }

    /// The best of the `among` best at a rung that has not set out for the next.
    fn promotable(&self, rung: usize, among: usize) -> Option<Climb> {
        let mut ranked: Vec<(usize, f64)> = self.come[rung].iter().map(|(&cell, &figure)| (cell, figure)).collect();
        ranked.sort_by(|a, b| a.1.total_cmp(&b.1).then(a.0.cmp(&b.0)));
        let waits = |(cell, _): &&(usize, f64)| !self.out[rung + 1].contains(cell);
        ranked.iter().take(among).find(waits).map(|&(cell, _)| Climb { cell, rung: rung + 1 })
    }

    fn newcomer(&self) -> Option<Climb> {
        (0..self.cells).find(|cell| !self.out[0].contains(cell)).map(|cell| Climb { cell, rung: 0 })
    }

    /// With too few cells for the ladder nobody would come to its top: the best of the highest rung then goes on.
    fn last_resort(&self) -> Option<Climb> {
        let top = self.come.len() - 1;
        if !self.climbing.is_empty() || !self.come[top].is_empty() {
            return None;
        }
        (0..top).rev().find_map(|rung| self.promotable(rung, usize::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Plays a sweep with one job at a time: who climbed, in order.
    fn play(ladder: &mut Halving, figure: impl Fn(Climb) -> Option<f64>) -> Vec<Climb> {
        let mut climbed = Vec::new();
        while let Some(climb) = ladder.next_climb() {
            ladder.report(climb, figure(climb));
            climbed.push(climb);
        }
        climbed
    }

    /// Cell 5 is the best, then 6 and 4, 7 and 3, …
    fn figure(climb: Climb) -> Option<f64> {
        Some((climb.cell as f64 - 5.2).abs() - climb.rung as f64)
    }

    fn at(climbed: &[Climb], rung: usize) -> Vec<usize> {
        let mut cells: Vec<usize> = climbed.iter().filter(|c| c.rung == rung).map(|c| c.cell).collect();
        cells.sort_unstable();
        cells
    }

    #[test]
    fn rungs_lie_eta_apart_up_to_the_end() {
        assert_eq!(Halving::budgets(1, 3, 9), [1, 3, 9]);
        assert_eq!(Halving::budgets(2, 3, 10), [2, 6, 10]);
        assert_eq!(Halving::budgets(4, 2, 4), [4]);
        assert_eq!(Halving::budgets(9, 2, 4), [4]);
    }

    #[test]
    fn the_best_go_on_and_the_very_best_comes_to_the_top() {
        let climbed = play(&mut Halving::new(9, 3, 3), figure);
        assert_eq!(at(&climbed, 0), (0..9).collect::<Vec<_>>());
        // By hand: 2 is the best when three have come, then 3, 4 and 5 in turn; 6 is among the best three of nine. At rung 1,
        // 4 is the best of three, before 5 comes.
        assert_eq!(at(&climbed, 1), [2, 3, 4, 5, 6]);
        assert_eq!(at(&climbed, 2), [4, 5]);
        // A climb begins after the rung below it, and never twice.
        for (i, climb) in climbed.iter().enumerate() {
            let before = &climbed[..i];
            assert!(climb.rung == 0 || before.contains(&Climb { rung: climb.rung - 1, ..*climb }));
            assert!(!before.contains(climb));
        }
    }

    #[test]
    fn whoever_is_promoted_was_among_the_best_at_that_moment() {
        let mut ladder = Halving::new(30, 4, 2);
        let scattered = |c: Climb| ((c.cell * 7919 + c.rung * 31) % 101) as f64;
        let mut come: Vec<Vec<f64>> = vec![Vec::new(); 4];
        while let Some(climb) = ladder.next_climb() {
            if climb.rung > 0 {
                let own = scattered(Climb { rung: climb.rung - 1, ..climb });
                let better = come[climb.rung - 1].iter().filter(|&&f| f < own).count();
                assert!(better < come[climb.rung - 1].len() / 2 || come[3].is_empty(), "{climb:?}");
            }
            come[climb.rung].push(scattered(climb));
            ladder.report(climb, Some(scattered(climb)));
        }
        assert_eq!(come[0].len(), 30);
        for rung in 1..4 {
            assert!(come[rung].len() >= come[rung - 1].len() / 2, "no promotion is left over");
        }
    }

    #[test]
    fn a_ladder_that_is_told_the_same_goes_on_the_same_way() {
        let whole = play(&mut Halving::new(9, 3, 3), figure);
        for cut in 0..whole.len() {
            let mut ladder = Halving::new(9, 3, 3);
            whole[..cut].iter().for_each(|&climb| ladder.report(climb, figure(climb)));
            assert_eq!(play(&mut ladder, figure), whole[cut..], "cut at {cut}");
        }
    }

    #[test]
    fn few_cells_still_come_to_the_top() {
        let climbed = play(&mut Halving::new(2, 3, 4), figure);
        assert_eq!((at(&climbed, 1), at(&climbed, 2)), (vec![1], vec![1]));
    }

    #[test]
    fn who_fails_is_out() {
        let climbed = play(&mut Halving::new(9, 2, 3), |c| figure(c).filter(|_| c.cell != 5));
        assert!(at(&climbed, 1).contains(&6) && !at(&climbed, 1).contains(&5));
        assert_eq!(play(&mut Halving::new(3, 2, 3), |_| None).len(), 3);
    }

    #[test]
    fn several_at_once_are_never_the_same() {
        let mut ladder = Halving::new(4, 2, 2);
        let begun: Vec<Climb> = std::iter::from_fn(|| ladder.next_climb()).collect();
        assert_eq!(at(&begun, 0), [0, 1, 2, 3]);
        for &climb in &begun[..2] {
            ladder.report(climb, figure(climb));
        }
        assert_eq!(ladder.next_climb(), Some(Climb { cell: 1, rung: 1 }));
        assert_eq!(ladder.next_climb(), None);
    }
}
