//! What the parameters of a model have something for: each token of a vocabulary, or each of its sources.

use std::collections::BTreeMap;

use antiphon_core::random::Key;
use antiphon_core::{Result, Special};
use antiphon_model::Vocabularies;
use antiphon_train::{Rows, shapes};
use burn::tensor::Device;

use super::ExperimentConfig;

/// A model as its settings make it, whatever its vocabularies are.
pub(super) struct Shape {
    /// The paths of all parameters.
    pub(super) paths: Vec<String>,
    /// Those that have something for each token of a vocabulary.
    pub(super) tables: BTreeMap<String, Table>,
    /// Those that have rows for each of several sources, in the order of the sources.
    pub(super) blocks: BTreeMap<String, Vec<Block>>,
}

/// A parameter that has something for each token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Table {
    /// The number of the vocabulary's side: sources that have one, then the target.
    pub(super) side: usize,
    /// Along which dimension tokens stand: an embedding has rows `[V, E]`, and the layer of CTC has columns `[M, V]`.
    pub(super) along: usize,
}

impl Table {
    /// How many numbers a token has in a parameter of this shape.
    pub(super) fn width(self, dims: &[usize]) -> usize {
        dims.iter().enumerate().filter(|&(d, _)| d != self.along).map(|(_, &size)| size).product()
    }

    /// The numbers of each token, one token behind another, of a parameter.
    pub(super) fn vectors(self, values: &[f32], dims: &[usize]) -> Vec<f32> {
        let mut vectors = Vec::with_capacity(values.len());
        self.walk(dims, |from| vectors.push(values[from]));
        vectors
    }

    /// The reverse: what [`vectors`](Self::vectors) has as a parameter of this shape has it.
    pub(super) fn laid_out(self, vectors: &[f32], dims: &[usize]) -> Vec<f32> {
        let (mut values, mut next) = (vec![0.0; vectors.len()], vectors.iter());
        self.walk(dims, |to| values[to] = *next.next().expect("as many as the shape has"));
        values
    }

    /// The places of a parameter's numbers in the order of the tokens.
    fn walk(self, dims: &[usize], mut each: impl FnMut(usize)) {
        let outer: usize = dims[..self.along].iter().product();
        let inner: usize = dims[self.along + 1..].iter().product();
        for token in 0..dims[self.along] {
            for block in 0..outer {
                let first = (block * dims[self.along] + token) * inner;
                (first..first + inner).for_each(&mut each);
            }
        }
    }
}

/// The rows of a parameter that are for one source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Block {
    /// The name of its stream; `source`, which none may be called, of the first.
    source: String,
    rows: usize,
}

impl Block {
    /// Those of the first source.
    pub(super) fn of_source(rows: usize) -> Self {
        Self { source: "source".into(), rows }
    }
}

impl ExperimentConfig {
    /// Whether the first source is text, which has a vocabulary: recordings have none.
    pub(super) fn reads_text(&self) -> bool {
        self.data.has_source() && self.data.as_manifest().is_none()
    }

    /// The model of these settings. What has something for each token is what grows with the vocabulary, and what has rows for each
    /// source grows with the streams.
    pub(super) fn shape(&self) -> Result<Shape> {
        const SIZE: usize = Special::COUNT;
        let sources = usize::from(self.reads_text()) + self.streams.len();
        let plain = self.dims(&self.vocabularies_of(SIZE))?;
        let mut tables = BTreeMap::new();
        for side in 0..=sources {
            let mut larger = self.vocabularies_of(SIZE);
            *larger.sources.get_mut(side).unwrap_or(&mut larger.target) += 1;
            for (path, dims) in self.dims(&larger)? {
                let grown = plain[&path].iter().zip(&dims).position(|(plain, grown)| plain != grown);
                tables.extend(grown.map(|along| (path, Table { side, along })));
            }
        }
        let mut blocks: BTreeMap<String, Vec<Block>> = BTreeMap::new();
        // With the first so many of its streams.
        for count in 0..=self.streams.len() {
            let streams =
                self.streams.iter().take(count).map(|(name, stream)| (name.clone(), stream.clone())).collect();
            let fewer = Self { streams, ..self.clone() };
            let last = fewer.streams.keys().next_back().map_or("source", String::as_str);
            // An encoder may read a stream that is not among these: then its rows are told with those of the next.
            let Ok(dims) = fewer.dims(&fewer.vocabularies_of(SIZE)) else { continue };
            for (path, dims) in dims {
                let blocks = blocks.entry(path).or_default();
                let before: usize = blocks.iter().map(|block| block.rows).sum();
                let rows = dims.first().map_or(0, |&rows| rows.saturating_sub(before));
                blocks.extend((rows > 0).then(|| Block { source: last.to_owned(), rows }));
            }
        }
        // What came with a stream is all its own.
        blocks.retain(|_, blocks| blocks.len() > 1);
        Ok(Shape { paths: plain.into_keys().collect(), tables, blocks })
    }

    fn dims(&self, vocabularies: &Vocabularies) -> Result<BTreeMap<String, Vec<usize>>> {
        Ok(shapes(&self.outline_model(vocabularies, Key::from_seed(0), &Device::flex())?))
    }

    /// Vocabularies of so many tokens.
    fn vocabularies_of(&self, size: usize) -> Vocabularies {
        let sources = usize::from(self.reads_text()) + self.streams.len();
        Vocabularies { sources: vec![size; sources], target: size, shared: self.tokenizer.shared.is_some() }
    }
}

/// For each row of a parameter with these blocks the row of another one, in which they may stand elsewhere; none where that one has
/// nothing for a source.
///
/// # Errors
/// If both have something for a source, and not the same number of rows: tells which.
pub(super) fn rows_of_blocks(own: &[Block], there: &[Block]) -> Result<Rows, String> {
    let mut rows = Rows::new();
    for Block { source, rows: count } in own {
        let before: usize = there.iter().take_while(|block| block.source != *source).map(|block| block.rows).sum();
        match there.iter().find(|block| block.source == *source) {
            Some(block) if block.rows != *count => {
                return Err(format!("has {} rows for `{source}` there, and {count} here", block.rows));
            }
            Some(_) => rows.extend((before..before + count).map(Some)),
            None => rows.extend(std::iter::repeat_n(None, *count)),
        }
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(text: &str) -> Shape {
        let config: ExperimentConfig = serde_json::from_str(text).unwrap();
        let shape = config.shape().unwrap();
        assert!(shape.tables.keys().chain(shape.blocks.keys()).all(|path| shape.paths.contains(path)));
        shape
    }

    #[test]
    fn what_has_a_row_for_each_token_is_found_by_its_shape() {
        let tables = |data: &str, beside: &str| {
            shape(&format!(r#"{{"data": {data}, {beside}}}"#)).tables.into_iter().collect::<Vec<_>>()
        };
        let table = |path: &str, side: usize| (path.to_owned(), Table { side, along: 0 });
        let pairs = r#"{"kind": "pairs", "train": "a"}"#;
        assert_eq!(
            tables(pairs, r#""model": {}"#),
            [table("output.bias", 1), table("output.weight", 1), table("source.table", 0), table("target.table", 1)]
        );
        // A layer that looks up one-hot tokens has a row for each.
        let one_hot = r#""model": {"source": {"kind": "one_hot"}, "target": {"kind": "one_hot"}, "encoder": {"kind": "stack",
            "stages": [{"kind": "gru", "bidirectional": true}, {"kind": "lstm"}]}}"#;
        assert_eq!(
            tables(pairs, one_hot),
            [
                table("decoder.layers.0.input", 1),
                table("encoder.stages.0.layers.0.backward.input", 0),
                table("encoder.stages.0.layers.0.forward.input", 0),
                table("output.bias", 1),
                table("output.weight", 1)
            ]
        );
        let text = r#"{"kind": "text", "train": "a"}"#;
        let tied =
            r#""model": {"kind": "language_model", "tied": "output", "target": {"kind": "embedding", "size": 256}}"#;
        assert_eq!(tables(text, tied), [table("output.bias", 0), table("target.table", 0)]);
        // Recordings have no vocabulary, and CTC has a column for each token.
        let manifest = r#"{"kind": "manifest", "train": "a"}"#;
        let ctc =
            r#""features": {"kind": "log_mel", "rate": 8000}, "model": {"source": {"kind": "frames"}, "ctc": {}}"#;
        let columns = ("ctc.weight".to_owned(), Table { side: 0, along: 1 });
        let expected = [
            table("ctc.bias", 0),
            columns,
            table("output.bias", 0),
            table("output.weight", 0),
            table("target.table", 0),
        ];
        assert_eq!(tables(manifest, ctc), expected);
    }

    #[test]
    fn vectors_are_laid_out_as_they_were() {
        for along in 0..3 {
            let (table, dims) = (Table { side: 0, along }, [2, 3, 4]);
            let values: Vec<f32> = (0..24).map(|i| i as f32).collect();
            let vectors = table.vectors(&values, &dims);
            assert_eq!(table.laid_out(&vectors, &dims), values);
            // Those of the first token are those whose place along it is 0.
            let inner: usize = dims[along + 1..].iter().product();
            let first: Vec<f32> =
                (0..24).filter(|i| (i / inner).is_multiple_of(dims[along])).map(|i| i as f32).collect();
            assert_eq!((vectors[..table.width(&dims)].to_vec(), table.width(&dims)), (first, 24 / dims[along]));
        }
    }

    #[test]
    fn what_has_rows_for_each_source_is_found_by_its_shape() {
        let of = |memories: &str, streams: &str| {
            shape(&format!(
                r#"{{"data": {{"kind": "table", "train": "a", "source": "s", "target": "t"}}, "streams": {{{streams}}},
                "model": {{"encoder": {{"kind": "gru", "hidden": 3}}, "bridge": {{"kind": "linear"}},
                "decoder": {{"kind": "gru", "hidden": 5, "attention": {{"kind": "general"}}}}, "memories": {{"kind": "{memories}"}}}}}}"#
            ))
            .blocks
        };
        let stream =
            |name: &str, hidden: usize| format!(r#""{name}": {{"encoder": {{"kind": "gru", "hidden": {hidden}}}}}"#);
        let blocks = |of: &[(&str, usize)]| {
            of.iter().map(|&(source, rows)| Block { source: source.into(), rows }).collect::<Vec<_>>()
        };
        let both = [stream("a", 2), stream("b", 7)].join(",");
        let found = of("each", &both);
        assert_eq!(found.keys().collect::<Vec<_>>(), ["bridge.Linear.layers.0.weight", "decoder.readout.context"]);
        assert!(found.values().all(|found| *found == blocks(&[("source", 6), ("a", 4), ("b", 14)])), "{found:?}");
        let equal = [stream("a", 3), stream("b", 3)].join(",");
        let found = of("concatenated", &equal);
        assert_eq!(found.keys().collect::<Vec<_>>(), ["bridge.Linear.layers.0.weight"]);
        assert!(of("concatenated", "").is_empty());
    }

    #[test]
    fn rows_follow_their_sources() {
        let blocks = |of: &[(&str, usize)]| {
            of.iter().map(|&(source, rows)| Block { source: source.into(), rows }).collect::<Vec<_>>()
        };
        let there = blocks(&[("source", 2), ("b", 1), ("c", 3)]);
        let rows = |own: &[(&str, usize)]| rows_of_blocks(&blocks(own), &there);
        assert_eq!(rows(&[("source", 2)]).unwrap(), [Some(0), Some(1)]);
        assert_eq!(rows(&[("source", 2), ("c", 3)]).unwrap(), [0, 1, 3, 4, 5].map(Some));
        assert_eq!(rows(&[("source", 2), ("a", 1), ("b", 1)]).unwrap(), [Some(0), Some(1), None, Some(2)]);
        assert_eq!(rows(&[("source", 2), ("b", 2)]).unwrap_err(), "has 1 rows for `b` there, and 2 here");
    }
}
