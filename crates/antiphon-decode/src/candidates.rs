//! The answers that a request may have, as a tree: what may follow on what has been said.

use antiphon_core::{Special, TokenId};

/// Where one is in the tree: at a node, or beside it.
pub(crate) type Node = Option<u32>;

/// The tree of some answers: each is a way from its root to a node that ends.
#[derive(Debug)]
pub(crate) struct Candidates {
    nodes: Vec<Branch>,
    /// The tokens of the longest, its end symbol included.
    longest: usize,
}

#[derive(Debug, Default)]
struct Branch {
    /// What may follow, each with its node.
    next: Vec<(TokenId, u32)>,
    /// Whether an answer ends here.
    ends: bool,
}

impl Candidates {
    /// The tree of these answers, without end symbols; `None` if there are none.
    pub(crate) fn of(answers: &[Vec<TokenId>]) -> Option<Self> {
        let longest = answers.iter().map(Vec::len).max()? + 1;
        let mut tree = Self { nodes: vec![Branch::default()], longest };
        for answer in answers {
            let end = answer.iter().fold(0, |node, &token| tree.grow(node, token));
            tree.nodes[end as usize].ends = true;
        }
        Some(tree)
    }

    fn grow(&mut self, node: u32, token: TokenId) -> u32 {
        if let Some(next) = self.follow(Some(node), token) {
            return next;
        }
        let next = self.nodes.len() as u32;
        self.nodes.push(Branch::default());
        self.nodes[node as usize].next.push((token, next));
        next
    }

    /// The tokens of the longest answer, its end symbol included.
    pub(crate) fn longest(&self) -> usize {
        self.longest
    }

    /// Where these tokens lead from the root.
    pub(crate) fn begin(&self, tokens: &[TokenId]) -> Node {
        tokens.iter().try_fold(0, |node, &token| self.follow(Some(node), token))
    }

    /// Where a token leads.
    pub(crate) fn follow(&self, node: Node, token: TokenId) -> Node {
        self.nodes[node? as usize].next.iter().find(|(next, _)| *next == token).map(|&(_, node)| node)
    }

    /// What may be said next; nothing beside the tree.
    pub(crate) fn allowed(&self, node: Node) -> Vec<TokenId> {
        let Some(node) = node else { return Vec::new() };
        let Branch { next, ends } = &self.nodes[node as usize];
        next.iter().map(|&(token, _)| token).chain(ends.then_some(Special::End.id())).collect()
    }
}
