//! A tokenizer that someone else trained: a Hugging Face `tokenizer.json`, its ids moved behind our special symbols.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;

use antiphon_core::{Error, Problem, Result, Special, TokenId, Tokenizer};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Map, Value};

use crate::Normalization;
use crate::canonical::to_json;
use crate::normalization::normalize;
use crate::vocabulary::special;

/// Settings of a loaded tokenizer.
///
/// Its own special tokens are never produced; text that spells one out is unknown, or split as the model splits it.
/// Its post-processor, truncation, padding and dropout are not used: they belong to the model it was made for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FileConfig {
    /// A `tokenizer.json`.
    #[schemars(length(min = 1), example = &"mine/tokenizer.json")]
    pub path: PathBuf,
    /// Changes made to every text first, in this order; the file's own normalizer follows.
    #[serde(default)]
    pub normalization: Vec<Normalization>,
}

impl FileConfig {
    pub(crate) fn problems(&self) -> Vec<Problem> {
        let message = "must name a `tokenizer.json`, but is empty".to_string();
        self.path.as_os_str().is_empty().then(|| Problem { place: "path".into(), message }).into_iter().collect()
    }
}

/// All that is saved of a loaded tokenizer: the file itself.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FileModel {
    normalization: Vec<Normalization>,
    #[serde(serialize_with = "write_sorted")]
    tokenizer: Value,
}

/// Writes JSON with the keys of every object in order, whatever order the features of `serde_json` give them.
fn write_sorted<S: Serializer>(value: &Value, serializer: S) -> Result<S::Ok, S::Error> {
    struct Sorted<'v>(&'v Value);
    impl Serialize for Sorted<'_> {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            write_sorted(self.0, serializer)
        }
    }
    match value {
        Value::Object(map) => {
            serializer.collect_map(map.iter().map(|(key, value)| (key, Sorted(value))).collect::<BTreeMap<_, _>>())
        }
        Value::Array(values) => serializer.collect_seq(values.iter().map(Sorted)),
        plain => plain.serialize(serializer),
    }
}

#[derive(Debug)]
pub(crate) struct FileTokenizer {
    model: FileModel,
    tokenizer: tokenizers::Tokenizer,
    /// The file's ids in the order of ours, from 4 on.
    theirs: Vec<u32>,
    ours: HashMap<u32, TokenId>,
    their_unknown: u32,
}

impl FileTokenizer {
    pub(crate) fn load(config: &FileConfig) -> Result<Self> {
        let path = &config.path;
        let bytes = std::fs::read(path).map_err(|error| Error::io(path, "read the tokenizer", &error))?;
        let tokenizer = serde_json::from_slice(&bytes).map_err(|error| invalid(&error).in_file(path))?;
        Self::new(FileModel { normalization: config.normalization.clone(), tokenizer }).map_err(|e| e.in_file(path))
    }

    pub(crate) fn new(model: FileModel) -> Result<Self> {
        let prepared = Prepared::new(model.tokenizer.clone())?;
        let bytes = serde_json::to_vec(&prepared.tokenizer).map_err(|error| invalid(&error))?;
        let tokenizer = tokenizers::Tokenizer::from_bytes(bytes).map_err(|error| invalid(&error))?;

        let unknown = tokenizer.token_to_id(&prepared.unknown);
        let their_unknown = unknown.ok_or_else(|| invalid(&"its unknown token is not in its vocabulary"))?;
        let theirs: BTreeSet<u32> = tokenizer
            .get_vocab(true)
            .into_iter()
            .filter(|(token, id)| !prepared.hidden.contains(token) && *id != their_unknown)
            .map(|(_, id)| id)
            .collect();
        if theirs.is_empty() {
            return Err(invalid(&"its vocabulary is empty").at("model.vocab"));
        }
        let ours = theirs.iter().copied().zip(Special::COUNT as TokenId..).collect();
        Ok(Self { model, tokenizer, theirs: theirs.into_iter().collect(), ours, their_unknown })
    }

    fn their_id(&self, id: TokenId) -> Option<u32> {
        match special(id) {
            Some(Special::Unknown) => Some(self.their_unknown),
            Some(_) => None,
            None => self.theirs.get(id as usize - Special::COUNT).copied(),
        }
    }
}

impl Tokenizer for FileTokenizer {
    fn encode(&self, text: &str) -> Result<Vec<TokenId>> {
        let text = normalize(&self.model.normalization, text);
        let encoding = self.tokenizer.encode_fast(text.as_ref(), false);
        let encoding = encoding.map_err(|error| Error::new(format!("the loaded tokenizer fails: {error}")))?;
        let own = |id: &u32| self.ours.get(id).copied().unwrap_or(Special::Unknown.id());
        Ok(encoding.get_ids().iter().map(own).collect())
    }

    fn decode(&self, ids: &[TokenId]) -> String {
        let theirs: Vec<u32> = ids.iter().filter_map(|&id| self.their_id(id)).collect();
        self.tokenizer.decode(&theirs, false).unwrap_or_else(|_| {
            let tokens: Vec<String> = theirs.iter().filter_map(|&id| self.tokenizer.id_to_token(id)).collect();
            tokens.join(" ")
        })
    }

    fn size(&self) -> usize {
        Special::COUNT + self.theirs.len()
    }

    fn token(&self, id: TokenId) -> Option<String> {
        match special(id) {
            Some(special) => Some(special.text().to_string()),
            None => self.their_id(id).and_then(|id| self.tokenizer.id_to_token(id)),
        }
    }

    fn to_json(&self) -> String {
        to_json("file", &self.model)
    }
}

fn invalid(error: &dyn std::fmt::Display) -> Error {
    let remedy = "write it with `save` of Hugging Face's tokenizers, or train one here";
    Error::new(format!("not a usable `tokenizer.json`: {error}; {remedy}"))
}

/// A `tokenizer.json` without what belongs to its own model, checked for what the `tokenizers` crate takes on trust.
struct Prepared {
    tokenizer: Value,
    /// The text of the unknown token.
    unknown: String,
    /// The texts of tokens that are never produced.
    hidden: BTreeSet<String>,
}

impl Prepared {
    fn new(mut tokenizer: Value) -> Result<Self> {
        let Some(fields) = tokenizer.as_object_mut() else { return Err(invalid(&"it is not a JSON object")) };
        for unused in ["post_processor", "truncation", "padding"] {
            fields.insert(unused.into(), Value::Null);
        }
        let mut hidden: BTreeSet<String> = Special::ALL.iter().map(|special| special.text().to_string()).collect();
        if let Some(Value::Array(added)) = fields.get_mut("added_tokens") {
            added.retain(|token| match (token["special"].as_bool(), token["content"].as_str()) {
                (Some(true), Some(text)) => {
                    hidden.insert(text.to_string());
                    false
                }
                _ => true,
            });
        }
        let Some(Value::Object(model)) = fields.get_mut("model") else {
            return Err(invalid(&"an object is missing").at("model"));
        };
        let unknown = match model.get("type").and_then(Value::as_str) {
            Some("BPE") => {
                model.insert("dropout".into(), Value::Null);
                let unknown = named_unknown(model, "<unk>")?;
                check_merges(model)?;
                unknown
            }
            Some("WordPiece") => named_unknown(model, "[UNK]")?,
            Some("WordLevel") => named_unknown(model, "<unk>")?,
            Some("Unigram") => unigram_unknown(model)?,
            Some(other) => {
                let message = format!("unknown model {other:?}; it must be BPE, WordPiece, WordLevel or Unigram");
                return Err(invalid(&message).at("model.type"));
            }
            None => return Err(invalid(&"the model's type is missing").at("model.type")),
        };
        Ok(Self { tokenizer, unknown, hidden })
    }
}

/// The unknown token of a model that names it. A model without one gets one, so that nothing is dropped in silence.
fn named_unknown(model: &mut Map<String, Value>, default: &str) -> Result<String> {
    let unknown = model.get("unk_token").and_then(Value::as_str).unwrap_or(default).to_string();
    model.insert("unk_token".into(), unknown.clone().into());
    let Some(Value::Object(vocab)) = model.get_mut("vocab") else {
        return Err(invalid(&"an object of tokens and ids is missing").at("model.vocab"));
    };
    let mut next = 0;
    for (token, id) in vocab.iter() {
        let message = || format!("the id of {token:?} is not a number below 2^31");
        let id = id.as_u64().filter(|&id| id < 1 << 31).ok_or_else(|| invalid(&message()).at("model.vocab"))?;
        next = next.max(id + 1);
    }
    vocab.entry(unknown.as_str()).or_insert_with(|| next.into());
    Ok(unknown)
}

fn unigram_unknown(model: &Map<String, Value>) -> Result<String> {
    let Some(Value::Array(vocab)) = model.get("vocab") else {
        return Err(invalid(&"an array of pieces and scores is missing").at("model.vocab"));
    };
    let text = |entry: &Value| entry[0].as_str().filter(|text| !text.is_empty()).map(str::to_string);
    if let Some(place) = vocab.iter().position(|entry| text(entry).is_none()) {
        return Err(invalid(&"a piece has no text").at(format!("model.vocab[{place}]")));
    }
    let unknown = model.get("unk_id").and_then(Value::as_u64).and_then(|id| vocab.get(id as usize)).and_then(text);
    unknown.ok_or_else(|| invalid(&"it must name the place of the unknown piece in the vocabulary").at("model.unk_id"))
}

/// Every merge must be made of known tokens and make one.
fn check_merges(model: &Map<String, Value>) -> Result<()> {
    let known = |token: &str| model["vocab"].get(token).is_some();
    let prefix = model.get("continuing_subword_prefix").and_then(Value::as_str).unwrap_or_default();
    let Some(Value::Array(merges)) = model.get("merges") else {
        return Err(invalid(&"an array of merges is missing").at("model.merges"));
    };
    let sound = |merge: &Value| {
        let (left, right) = match merge {
            Value::String(pair) => pair.split_once(' ')?,
            pair => (pair[0].as_str()?, pair[1].as_str()?),
        };
        let rest = right.strip_prefix(prefix)?;
        (known(left) && known(right) && known(&format!("{left}{rest}"))).then_some(())
    };
    match merges.iter().position(|merge| sound(merge).is_none()) {
        Some(place) => {
            let message = format!("{} does not join two tokens of the vocabulary to a third", merges[place]);
            Err(invalid(&message).at(format!("model.merges[{place}]")))
        }
        None => Ok(()),
    }
}
