//! What answers may copy of the texts of their sources.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use antiphon_core::{Copies, Error, Result, Special, TokenId, Tokenizer};

/// From which sources words are copied, and into which vocabulary.
///
/// A word is copied as the target tokenizer writes it: one that is part of several of its words, or of none, cannot be copied.
#[derive(Clone)]
pub struct Copying {
    from: Vec<bool>,
    target: Arc<dyn Tokenizer>,
}

impl Copying {
    /// `from`: for each source, in their order, whether it is copied from.
    pub fn new(from: Vec<bool>, target: Arc<dyn Tokenizer>) -> Self {
        Self { from, target }
    }

    /// Of sources with these tokenizers and texts, in their order.
    ///
    /// # Errors
    /// If the tokenizer of a source that is copied from, or that of the targets, has no words.
    pub fn copies<'t>(&self, sources: impl Iterator<Item = (&'t Arc<dyn Tokenizer>, &'t str)>) -> Result<Copies> {
        // The word of the targets that a word of a source is.
        let mut own: HashMap<String, Option<String>> = HashMap::new();
        let mut words = |tokenizer: &dyn Tokenizer, text: &str| -> Result<Vec<Option<String>>> {
            let wordless = || Error::new("words can be copied only where tokens are words: use `kind = \"word\"`");
            let words = tokenizer.words(text).ok_or_else(wordless)?;
            let mut own_of = |word: String| -> Result<Option<String>> {
                if let Some(own) = own.get(&word) {
                    return Ok(own.clone());
                }
                let mut found = self.target.words(&word).ok_or_else(wordless)?;
                let found = if found.len() == 1 { found.swap_remove(0) } else { None };
                own.insert(word, found.clone());
                Ok(found)
            };
            words.into_iter().map(|word| word.map_or(Ok(None), &mut own_of)).collect()
        };
        let sources = sources.zip(&self.from);
        let sources =
            sources.map(|((tokenizer, text), from)| from.then(|| words(tokenizer.as_ref(), text)).transpose());
        let sources = sources.collect::<Result<Vec<_>>>()?;
        let known = |word: &str| match self.target.encode(word).ok()?[..] {
            [id] if id != Special::Unknown.id() => Some(id),
            _ => None,
        };
        Ok(Copies::new(&sources, self.target.size(), known))
    }

    /// A target as ids, without its end symbol: a word that the vocabulary lacks, and that may be copied, is its slot.
    ///
    /// # Errors
    /// If the text cannot be represented.
    pub fn labels(&self, copies: &Copies, text: &str) -> Result<Vec<TokenId>> {
        let mut ids = self.target.encode(text)?;
        let unknown = Special::Unknown.id();
        if !copies.slots.is_empty() && ids.contains(&unknown) {
            let words = self.target.words(text).unwrap_or_default();
            for (id, word) in ids.iter_mut().zip(words).filter(|(id, _)| **id == unknown) {
                *id = word.map_or(unknown, |word| copies.slot(&word, self.target.size()));
            }
        }
        Ok(ids)
    }

    /// `V`: how many ids are no slots.
    pub fn vocabulary(&self) -> usize {
        self.target.size()
    }
}

impl fmt::Debug for Copying {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Copying").field("from", &self.from).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::corpus::{Corpus, CorpusConfig, Split};
    use crate::dataset::{Dataset, FurtherSource};
    use crate::{FurtherColumns, Histories, History};

    /// Words, of which it knows some, in lower case or as they are.
    struct Words(&'static [&'static str], bool);

    impl Words {
        fn split(&self, text: &str) -> Vec<String> {
            let text = if self.1 { text.to_lowercase() } else { text.to_owned() };
            text.split_whitespace().map(str::to_owned).collect()
        }
    }

    impl Tokenizer for Words {
        fn encode(&self, text: &str) -> Result<Vec<TokenId>> {
            let id = |word: String| self.0.iter().position(|known| *known == word).map_or(1, |i| i as TokenId + 4);
            Ok(self.split(text).into_iter().map(id).collect())
        }

        fn decode(&self, ids: &[TokenId]) -> String {
            self.decode_slots(ids, &[])
        }

        fn words(&self, text: &str) -> Option<Vec<Option<String>>> {
            Some(self.split(text).into_iter().map(Some).collect())
        }

        fn decode_slots(&self, ids: &[TokenId], slots: &[String]) -> String {
            let word = |&id: &TokenId| match id as usize {
                id if id < 4 => ["", "<unk>", "", ""][id].to_owned(),
                id if id < self.size() => self.0[id - 4].to_owned(),
                id => slots[id - self.size()].clone(),
            };
            ids.iter().map(word).filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
        }

        fn size(&self) -> usize {
            self.0.len() + 4
        }

        fn token(&self, _: TokenId) -> Option<String> {
            None
        }

        fn to_json(&self) -> String {
            "{}".into()
        }
    }

    const SAID: &[&str] = &["call", "in", "rome"];

    fn copying(from: [bool; 2]) -> Copying {
        Copying::new(from.into(), Arc::new(Words(SAID, true)))
    }

    #[test]
    fn words_are_copied_as_the_targets_write_them() {
        let source: Arc<dyn Tokenizer> = Arc::new(Words(&[], false));
        let copies = |from, texts: [&'static str; 2]| {
            copying(from).copies(texts.into_iter().map(|text| (&source, text))).unwrap()
        };
        let both = copies([true, true], ["Zug in ROME", "pim zug"]);
        assert_eq!(both.says, [vec![7, 5, 6, 0], vec![8, 7, 0]]);
        assert_eq!(both.slots, ["zug", "pim"]);
        let labels = |copies: &Copies, text| copying([true; 2]).labels(copies, text).unwrap();
        assert_eq!(labels(&both, "call PIM in Bern"), [4, 8, 5, 1]);
        let one = copies([false, true], ["Zug in ROME", "pim zug"]);
        assert_eq!((one.says.clone(), one.slots.len()), (vec![vec![], vec![7, 8, 0]], 2));
        assert_eq!(labels(&one, "zug"), [8]);
        assert_eq!(labels(&copies([false, false], ["zug", "zug"]), "zug"), [1]);
        let bytes: Arc<dyn Tokenizer> = Arc::new(crate::bytes_tokenizer::Bytes);
        let error = copying([true, true]).copies([(&bytes, "zug")].into_iter()).unwrap_err();
        assert!(error.to_string().contains("use `kind = \"word\"`"), "{error}");
    }

    #[test]
    fn labels_and_what_is_copied_say_the_targets() {
        let rows = [
            (
                r#"["Zug calls", "in rome"]"#,
                r#"["pim R_phone 12", "pim R_place Rome"]"#,
                r#"["call pim 12", "in ROME 13"]"#,
            ),
            (r#"["well", "a much longer turn"]"#, "[]", r#""call zug""#),
            (r#"["12"]"#, r#"["12 12"]"#, r#""12 12 12""#),
        ];
        let line = |(source, facts, target): (&str, &str, &str)| {
            format!("{{\"a\": {source}, \"facts\": {facts}, \"b\": {target}}}\n")
        };
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a.jsonl"), rows.map(line).concat()).unwrap();
        let config = "kind = 'table'\ntrain = 'a.jsonl'\nsource = 'a'\ntarget = 'b'\nmax_source = 4\nhistory = {}";
        let config: CorpusConfig = toml::from_str(config).unwrap();
        let columns = FurtherColumns { sources: vec![("facts".into(), "facts".into())], kept: Vec::new() };
        let open = || Arc::new(Corpus::open_with(&config, &columns, Split::Train, folder.path()).unwrap());
        let words = || Arc::new(Words(&["zug"], true)) as Arc<dyn Tokenizer>;
        let source: Arc<dyn Tokenizer> = Arc::new(Histories::new(History::default(), words(), 4));
        let further = || vec![FurtherSource { name: "facts".into(), tokenizer: words() }];
        let dataset = |from| {
            let (source, target) = (Some(Arc::clone(&source)), Arc::new(Words(SAID, true)));
            let limits = config.limits();
            Dataset::for_readers(open(), source, further(), target, Some(copying(from)), &limits, &[]).unwrap()
        };
        let data = dataset([true, true]);
        // Each of several references is an example.
        assert_eq!((data.len(), data.cut()), (4, 1));
        let unknown = data.unknown();
        assert_eq!((unknown.target, unknown.copied), (2, 5));
        let all: Vec<u32> = (0..4).collect();
        let batch = data.batch(&all).unwrap();
        batch.check().unwrap();
        assert_eq!(batch.examples, [0, 1, 2, 3]);
        let copies = batch.copies.as_ref().unwrap();
        assert_eq!((copies.slots, copies.says.len()), (6, 2));
        let text = |example: usize| data.corpus().get(example).unwrap().targets[0].to_lowercase();
        for row in 0..4 {
            let example = data.corpus().get(row).unwrap();
            let sources = [(&source, example.source.as_deref().unwrap()), (&words(), example.further[0].as_str())];
            let own = copying([true, true]).copies(sources.into_iter()).unwrap();
            assert_eq!([copies.says[0].row(row), copies.says[1].row(row)], [&own.says[0][..], &own.says[1][..]]);
            let (width, length) = (batch.target.width, batch.target.lengths[row] as usize);
            let labels = &batch.target.labels[row * width..][..length];
            let said = Words(SAID, true).decode_slots(labels, &own.slots);
            let heard =
                text(row).replace("13", "<unk>").replace("call zug", if row == 2 { "call <unk>" } else { "call zug" });
            assert_eq!(said, heard);
            // Whatever is copied is fed back as the unknown symbol.
            let fed = &batch.target.inputs[row * width..][1..length];
            let known = labels[..length - 1].iter().map(|&id| if id < 7 { id } else { 1 });
            assert!(fed.iter().copied().eq(known));
            assert_eq!(data.target(row).unwrap()[..length - 1], *fed);
        }
        // So it is where text is encoded anew, and what is copied comes from these sources alone.
        assert_eq!(data.anew().batch(&all).unwrap(), batch);
        let facts = dataset([false, true]).batch(&all).unwrap().copies.unwrap();
        assert_eq!((facts.slots, facts.says[0].tokens()), (4, 0));
    }
}
