//! What a training begins with: parameters that are drawn, or those of another model by `[train.start_from]`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use antiphon_core::random::Key;
use antiphon_core::{Error, Problem, Result, Special, TokenId, Tokenizer};
use antiphon_lab::{Run, Share, Start, sha256_file};
use antiphon_model::Model;
use antiphon_train::{
    Inherited, Rows, Slices, StartTokenizers, TrainConfig, Weight, no_such_part, save_weights, shapes,
};
use burn::tensor::Device;

use super::data::named;
use super::saved::{NAME_A_MODEL, digest_of_model, file_of_run, model_file};
use super::shape::{Block, Shape, Table, rows_of_blocks};
use super::vectors::{no_table, vectors_of};
use super::{Experiment, ExperimentConfig, SavedModel, Tokenizers};
use crate::console::RunObserver;

impl ExperimentConfig {
    /// What of the model is named by its path and is not there, with places from the root of the settings.
    ///
    /// # Errors
    /// If the model cannot be built.
    pub(crate) fn problems_of_parts(&self) -> Result<Vec<Problem>> {
        let TrainConfig { start_from: start, parameters, .. } = &self.train;
        let listed = [("parts", &start.parts), ("leave_out", &start.leave_out)].into_iter().flat_map(|(key, parts)| {
            parts.iter().enumerate().map(move |(i, part)| (format!("start_from.{key}.{i}"), part.as_str(), false))
        });
        let named: Vec<_> = listed.chain(parameters.parts()).collect();
        if named.is_empty() && start.vectors.is_empty() {
            return Ok(Vec::new());
        }
        let Shape { paths, tables, .. } = self.shape()?;
        let untabled = start.vectors.keys().filter(|path| !tables.contains_key(*path));
        let untabled = untabled.flat_map(|path| no_table(path, &tables).at(vectors_of(path)).problems);
        let trained: Vec<String> = paths.iter().filter(|path| parameters.trains(path)).cloned().collect();
        let problem = |(key, part, is_to_train): (String, &str, bool)| {
            let idle = || "has no effect: all of it is frozen; remove it, or take it out of `frozen`".to_owned();
            let is_frozen = is_to_train && !trained.is_empty() && no_such_part(part, &trained).is_some();
            let message = no_such_part(part, &paths).or(is_frozen.then(idle))?;
            Some(Problem { place: format!("train.{key}").into(), message })
        };
        let nothing = trained.is_empty().then(|| Problem {
            place: "train.parameters.frozen".into(),
            message: "every parameter is frozen, and nothing is left to train; take a part out".into(),
        });
        Ok(named.into_iter().filter_map(problem).chain(nothing).chain(untabled).collect())
    }

    /// The file of the model that is started from, if there is one.
    fn start_file(&self) -> Option<PathBuf> {
        self.train.start_from.model.as_deref().map(model_file)
    }

    /// The files that a training starts from: the setting, and where each lies.
    pub(crate) fn files_of_start(&self, data_dir: &Path) -> Vec<(String, PathBuf)> {
        let model = self.start_file().map(|path| ("train.start_from.model".to_owned(), path));
        let vectors = self.vector_files(data_dir).map(|(table, file)| (vectors_of(table), file));
        model.into_iter().chain(vectors).collect()
    }

    /// What manifests call the files that a training has started from, wherever they are now: a model by its file, or by a run's
    /// folder.
    pub(super) fn names_of_start(&self, data_dir: &Path) -> Vec<String> {
        let model = self.train.start_from.model.iter().flat_map(|path| [path.clone(), file_of_run(path)]);
        let vectors = self.vector_files(data_dir).map(|(_, file)| file);
        model.chain(vectors).map(|path| named(&path, data_dir)).collect()
    }

    /// The same files with their SHA-256.
    pub(super) fn digests_of_start(&self, data_dir: &Path) -> Result<BTreeMap<String, String>> {
        let digest = |(key, path): (String, PathBuf)| {
            let below = format!("name a file below the data folder `{}`", data_dir.display());
            let remedy = if key.ends_with(".model") { NAME_A_MODEL } else { below.as_str() };
            digest_of_model(&key, &path, data_dir, remedy)
        };
        self.files_of_start(data_dir).into_iter().map(digest).collect()
    }

    /// The tokenizers of the model that is started from, if they are to be kept.
    ///
    /// # Errors
    /// If the model cannot be read, or was made with tokenizers of other settings.
    pub(super) fn kept_tokenizers(&self) -> Result<Option<Tokenizers>> {
        let file = self.start_file().filter(|_| self.train.start_from.tokenizers == StartTokenizers::Keep);
        let Some(file) = file else { return Ok(None) };
        let saved = SavedModel::read(&file, &Device::flex())?;
        let sides = |config: &Self| {
            let of_streams =
                config.streams.iter().map(|(name, stream)| (name.clone(), stream.own_tokenizer().cloned()));
            let (sides, of_streams) = (config.tokenizer.clone(), of_streams.collect::<Vec<_>>());
            ([sides.shared, sides.source.filter(|_| config.reads_text()), sides.target], of_streams)
        };
        if sides(&saved.config) != sides(self) {
            let message = "`keep`: that model was made with other settings in `[tokenizer]` or of its streams' tokenizers; give \
                           the same here, or set `learn`";
            return Err(Error::new(message).in_file(file).at("train.start_from.tokenizers"));
        }
        Ok(Some(saved.tokenizers))
    }
}

/// The vocabularies of a model, in the order of their sides.
pub(super) fn sides(tokenizers: &Tokenizers) -> Vec<(&str, &Arc<dyn Tokenizer>)> {
    let source = tokenizers.source().map(|tokenizer| ("source", tokenizer));
    let streams = tokenizers.streams().map(|(name, tokenizer)| (name.as_str(), tokenizer));
    source.into_iter().chain(streams).chain([("target", tokenizers.target())]).collect()
}

/// The row of each token in a table of other tokens: that of its text, if there is one.
pub(super) fn rows_of(own: &dyn Tokenizer, old: &dyn Tokenizer) -> Rows {
    let ids = |tokenizer: &dyn Tokenizer| Special::COUNT as TokenId..tokenizer.size() as TokenId;
    let mut known = BTreeMap::new();
    for id in ids(old) {
        if let Some(token) = old.token(id) {
            known.entry(token).or_insert(id as usize);
        }
    }
    let specials = (0..Special::COUNT).map(Some);
    specials.chain(ids(own).map(|id| known.get(&own.token(id)?).copied())).collect()
}

/// Another model, its parameters called as they are in this one.
struct Old {
    tokenizers: Tokenizers,
    weights: Vec<Weight>,
    /// Those that have something for each token of a vocabulary: the name of its side, and along which dimension.
    tables: BTreeMap<String, (String, usize)>,
    /// Those that have rows for each of several sources.
    blocks: BTreeMap<String, Vec<Block>>,
}

impl Old {
    /// Reads the model of a file for one with these tokenizers.
    fn read(file: &Path, own: &Tokenizers) -> Result<Self> {
        let SavedModel { config, tokenizers, model, .. } = SavedModel::read(file, &Device::flex())?;
        let streams = |tokenizers: &Tokenizers| tokenizers.streams().map(|(name, _)| name.clone()).collect::<Vec<_>>();
        let (theirs, own) = (streams(&tokenizers), streams(own));
        let weights = save_weights(&model).into_iter();
        let weights = weights.filter_map(|w| Some(Weight { path: renamed(&w.path, &theirs, &own)?, ..w })).collect();
        let names: Vec<String> = sides(&tokenizers).into_iter().map(|(name, _)| name.to_owned()).collect();
        let Shape { tables, blocks, .. } = config.shape()?;
        let table = |(path, Table { side, along }): (String, Table)| {
            Some((renamed(&path, &theirs, &own)?, (names[side].clone(), along)))
        };
        let blocks = blocks.into_iter().filter_map(|(path, blocks)| Some((renamed(&path, &theirs, &own)?, blocks)));
        Ok(Self {
            weights,
            tables: tables.into_iter().filter_map(table).collect(),
            blocks: blocks.collect(),
            tokenizers,
        })
    }

    /// The rows of a parameter of the shape `here` that it has for the sources of another model, whose rows these `blocks` are;
    /// `None` where it has them all in the same places, or has them not at all.
    fn rows_of_sources(&self, path: &str, blocks: Option<&Vec<Block>>, here: &[usize]) -> Result<Option<Rows>, String> {
        let weight = self.weights.iter().find(|weight| weight.path == path);
        let (Some(weight), there) = (weight, self.blocks.get(path)) else { return Ok(None) };
        if there == blocks {
            return Ok(None);
        }
        let alone = |dims: &[usize]| vec![Block::of_source(dims[0])];
        let there = there.cloned().unwrap_or_else(|| alone(&weight.dims));
        rows_of_blocks(&blocks.cloned().unwrap_or_else(|| alone(here)), &there).map(Some)
    }
}

/// What a parameter of another model is called in a model with these streams, which are numbered by their names; `None` if it
/// belongs to a stream that this one lacks.
fn renamed(path: &str, theirs: &[String], own: &[String]) -> Option<String> {
    for prefix in ["streams.", "decoder.streams."] {
        let numbered = path.strip_prefix(prefix).and_then(|rest| rest.split_once('.'));
        if let Some((Ok(number), rest)) = numbered.map(|(number, rest)| (number.parse::<usize>(), rest)) {
            let name = theirs.get(number)?;
            let number = own.iter().position(|own| own == name)?;
            return Some(format!("{prefix}{number}.{rest}"));
        }
    }
    Some(path.to_owned())
}

impl Experiment {
    /// The model before its first step, drawn by the seed but for what it starts from, which is told.
    ///
    /// # Errors
    /// If it cannot be built, or what it starts from cannot be read or does not fit.
    pub(super) fn begin(
        &self,
        run: &Run,
        observer: &mut RunObserver<'_>,
        tokenizers: &Tokenizers,
        device: &Device,
    ) -> Result<Model> {
        let key = Key::from_seed(self.config.seed).named("parameters");
        let model = self.config.init_model(&tokenizers.vocabularies(), key, device)?;
        if !self.config.train.start_from.is_used() {
            return Ok(model);
        }
        let (inherited, mut start) = self.inherited(&model, tokenizers)?;
        let model = inherited.map_or(Ok(model.clone()), |inherited| inherited.give(model))?;
        let (model, vectors) = self.with_vectors(model, tokenizers)?;
        self.check_files(self.config.files_of_start(&self.data_dir))?;
        start.vectors = vectors;
        observer.note(&format!("start    {start}"));
        run.update_manifest(|manifest| manifest.start = Some(start))?;
        Ok(model)
    }

    /// Checks that what the training starts from fits, before a run begins.
    ///
    /// # Errors
    /// If it does not, or cannot be read.
    pub(crate) fn check_start(&self) -> Result<()> {
        if !self.config.train.start_from.is_used() {
            return Ok(());
        }
        let tokenizers = self.learned()?;
        let model = self.config.outline_model(&tokenizers.vocabularies(), Key::from_seed(0), &Device::flex())?;
        self.inherited(&model, tokenizers)?;
        self.check_vectors(&model)?;
        self.check_files(self.config.files_of_start(&self.data_dir))
    }

    /// Checks that files that were read are those of the identity, which are named by their SHA-256; for each the setting, and where
    /// it lies.
    pub(super) fn check_files(&self, files: Vec<(String, PathBuf)>) -> Result<()> {
        for (key, path) in files {
            if self.identity.data.get(&named(&path, &self.data_dir)) != Some(&sha256_file(&path)?) {
                let message = "has been changed since this began, and with another file it is another experiment: give the same \
                               command again";
                return Err(Error::new(message).in_file(path).at(key));
            }
        }
        Ok(())
    }

    /// What a model takes from that which it starts from, if there is one; and what is to be told of that.
    fn inherited(&self, model: &Model, tokenizers: &Tokenizers) -> Result<(Option<Inherited>, Start)> {
        let config = &self.config.train.start_from;
        let Some(file) = self.config.start_file() else {
            let taken = Share { known: 0, of: shapes(model).len() };
            let (tokens, vectors) = (BTreeMap::new(), BTreeMap::new());
            return Ok((None, Start { model: None, taken, tokens, vectors, unused: Vec::new() }));
        };
        let (old, shape) = (Old::read(&file, tokenizers)?, self.config.shape()?);
        let old_sides: BTreeMap<&str, _> = sides(&old.tokenizers).into_iter().collect();
        let own_sides = sides(tokenizers);
        let (mut slices, mut of_side, mut problems) = (BTreeMap::new(), BTreeMap::new(), Vec::new());
        let dims = shapes(model);
        for path in shape.paths.iter().filter(|path| config.takes(path)) {
            let here = shape.tables.get(path).map(|table| (own_sides[table.side], table.along));
            let there = old.tables.get(path).map(|(side, along)| (side.as_str(), *along));
            match (here, there) {
                (None, None) => {
                    let blocks = shape.blocks.get(path);
                    match old.rows_of_sources(path, blocks, &dims[path]) {
                        Ok(rows) => slices.extend(rows.map(|rows| (path.clone(), Slices { along: 0, rows }))),
                        Err(message) => problems.push(Problem { place: path.as_str().into(), message }),
                    }
                }
                (Some(((side, own), along)), Some(there)) if (side, along) == there => {
                    let of_tokens = || rows_of(own.as_ref(), old_sides[side].as_ref());
                    let rows = of_side.entry(side).or_insert_with(of_tokens).clone();
                    slices.insert(path.clone(), Slices { along, rows });
                }
                (here, there) => {
                    let named =
                        |side: Option<&str>| side.map_or("none".into(), |side| format!("each token of `{side}`"));
                    let (there, here) = (named(there.map(|(side, _)| side)), named(here.map(|((side, _), _)| side)));
                    let message = format!("has rows for {there} there, and for {here} here");
                    problems.push(Problem { place: path.as_str().into(), message });
                }
            }
        }
        let is_unlike = |weight: &Weight| problems.iter().any(|p: &Problem| p.place.as_key() == Some(&weight.path));
        let weights = old.weights.into_iter().filter(|weight| !is_unlike(weight)).collect();
        let inherited = match Inherited::of(model, weights, config, slices) {
            Ok(inherited) if problems.is_empty() => inherited,
            fits => return Err(unfit(&file, problems, fits.err())),
        };
        let share = |(side, rows): (&str, Rows)| {
            (side.to_owned(), Share { known: rows.iter().flatten().count(), of: rows.len() })
        };
        let start = Start {
            model: config.model.as_ref().map(|model| model.display().to_string()),
            taken: Share { known: inherited.count(), of: shape.paths.len() },
            tokens: of_side.into_iter().map(share).collect(),
            vectors: BTreeMap::new(),
            unused: inherited.unused().to_vec(),
        };
        Ok((Some(inherited), start))
    }
}

/// All that does not fit, and what helps.
fn unfit(file: &Path, mut problems: Vec<Problem>, others: Option<Error>) -> Error {
    let known: Vec<_> = problems.iter().map(|problem| problem.place.clone()).collect();
    problems.extend(others.into_iter().flat_map(|error| error.problems).filter(|p| !known.contains(&p.place)));
    let message = "name here the parts that are to be drawn all the same".into();
    problems.push(Problem { place: "train.start_from.leave_out".into(), message });
    Error::many(file, problems)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiment::Loaded;

    #[test]
    fn what_a_training_starts_from_is_what_its_identity_names() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        write("a.tsv", "ab\tA B\nba\tB A\n");
        write("vectors.txt", "a 1 2\nb 3 4\n");
        write(
            "a.toml",
            "data = { kind = 'pairs', train = 'a.tsv' }\nmodel.source = { kind = 'embedding', size = 2 }\n\
             train = { epochs = 1, start_from.vectors = { 'source.table' = 'vectors.txt' } }\n",
        );
        let open =
            || Experiment::open(Loaded::read(&folder.path().join("a.toml"), &[]).unwrap(), folder.path()).unwrap();
        let experiment = open();
        assert_eq!(experiment.check_start(), Ok(()));
        write("vectors.txt", "a 1 2\nb 3 5\n");
        let error = experiment.check_start().unwrap_err().to_string();
        assert!(error.contains("vectors.txt: train.start_from.vectors.\"source.table\": has been changed"), "{error}");
        assert_eq!(open().check_start(), Ok(()));
    }

    #[test]
    fn a_streams_parameters_are_found_by_its_name() {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let (theirs, own) = (names(&["case", "features"]), names(&["features", "number"]));
        let renamed = |path| renamed(path, &theirs, &own);
        assert_eq!(renamed("streams.1.input.table").as_deref(), Some("streams.0.input.table"));
        assert_eq!(renamed("decoder.streams.1.General.keys").as_deref(), Some("decoder.streams.0.General.keys"));
        assert_eq!(renamed("streams.0.input.table"), None);
        assert_eq!(renamed("encoder.stages.1.bias").as_deref(), Some("encoder.stages.1.bias"));
    }

    #[test]
    fn tokens_are_known_by_their_texts() {
        let learn = |kind: &str, text: &str| {
            let config: antiphon_text::TokenizerConfig =
                serde_json::from_str(&format!(r#"{{"kind": "{kind}"}}"#)).unwrap();
            config.train(&mut [Ok(text.to_owned())].into_iter()).unwrap()
        };
        let (own, old) = (learn("word", "c a d"), learn("word", "a b c <s>"));
        let rows = rows_of(own.as_ref(), old.as_ref());
        assert_eq!(rows.len(), own.size());
        assert_eq!(rows[..4], [0, 1, 2, 3].map(Some));
        for (id, row) in rows.iter().enumerate().skip(4) {
            let token = own.token(id as TokenId).unwrap();
            assert_eq!(row.map(|row| old.token(row as TokenId).unwrap()), Some(token).filter(|token| token != "d"));
        }
    }
}
