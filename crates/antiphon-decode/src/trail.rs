//! The beginnings that a beam has followed, as a tree: a hypothesis is a leaf, and is spelled out once, at the end.

use antiphon_core::TokenId;

/// The parent of first tokens.
pub(crate) const ROOT: u32 = u32::MAX;

/// Where the attention of a token would stand that was not chosen: nowhere.
pub(crate) const UNSEEN: u32 = u32::MAX;

/// A tree of tokens, each pointing back at the one before.
#[derive(Debug, Default)]
pub(crate) struct Trail {
    nodes: Vec<Node>,
    /// Weights shared by all tokens that grew from one row in one step.
    attention: Vec<Vec<f32>>,
}

#[derive(Debug)]
struct Node {
    parent: u32,
    token: TokenId,
    attention: u32,
}

impl Trail {
    /// Adds a token behind `parent`; `attention` is where the weights of its row stand.
    pub(crate) fn push(&mut self, parent: u32, token: TokenId, attention: u32) -> u32 {
        self.nodes.push(Node { parent, token, attention });
        self.nodes.len() as u32 - 1
    }

    /// Where the next row's attention will stand.
    pub(crate) fn next_attention(&self) -> u32 {
        self.attention.len() as u32
    }

    /// Adds the attention of one row in one step.
    pub(crate) fn attend(&mut self, weights: Vec<f32>) {
        self.attention.push(weights);
    }

    /// A node's token.
    pub(crate) fn token(&self, node: u32) -> TokenId {
        self.nodes[node as usize].token
    }

    /// The node before this one.
    pub(crate) fn parent(&self, node: u32) -> u32 {
        self.nodes[node as usize].parent
    }

    /// The tokens from the first to `node`, and their attention: empty if there is none, and of tokens that were not chosen.
    pub(crate) fn spell(&self, node: u32) -> (Vec<TokenId>, Vec<Vec<f32>>) {
        let path = || std::iter::successors(self.nodes.get(node as usize), |n| self.nodes.get(n.parent as usize));
        let mut tokens: Vec<TokenId> = path().map(|n| n.token).collect();
        tokens.reverse();
        if self.attention.is_empty() {
            return (tokens, Vec::new());
        }
        let weights = |n: &Node| self.attention.get(n.attention as usize).cloned().unwrap_or_default();
        let mut attention: Vec<_> = path().map(weights).collect();
        attention.reverse();
        (tokens, attention)
    }

    /// The tokens with which all of these nodes begin.
    pub(crate) fn shared(&self, nodes: impl Iterator<Item = u32>) -> Vec<TokenId> {
        let shared = |a: Vec<TokenId>, b: Vec<TokenId>| {
            let same = a.iter().zip(&b).take_while(|(x, y)| x == y).count();
            a[..same].to_vec()
        };
        nodes.map(|node| self.spell(node).0).reduce(shared).unwrap_or_default()
    }
}
