mod download;
mod preparations;
mod server;

use std::path::{Path, PathBuf};

use antiphon_core::random::stable_hash;
use tempfile::TempDir;

use super::*;
use crate::digest::sha256;
use crate::{Corpus, CorpusConfig, Split};

/// `recipes/<name>` with a recipe, `from` with its files, and a data folder.
struct Kitchen {
    root: TempDir,
    name: &'static str,
}

const PAIRS: &str = "[[preparation]]\nkind = 'pairs_by_lines'\nfile = 'p/pairs.txt'\ntrain = 2\nvalidation = 1\n";
const LOCAL: &str = "kind = 'local'\nsource = 'https://example.org/'";

impl Kitchen {
    fn new(name: &'static str, origin: &str, files: &[(&str, &str)], rest: &str) -> Self {
        let kitchen = Self { root: tempfile::tempdir().unwrap(), name };
        let mut recipe = format!(
            "title = 'Pairs of a test'\nlicence = {{ name = 'CC0', source = 'https://example.org/licence' }}\n[origin]\n{origin}\n"
        );
        for (name, text) in files {
            write(&kitchen.from().join(name), text);
            recipe += &format!("[[files]]\nname = '{name}'\nsha256 = '{}'\n", sha256(text.as_bytes()));
        }
        write(&kitchen.recipe(), &(recipe + rest));
        kitchen
    }

    fn at(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn recipe(&self) -> PathBuf {
        self.at("recipes").join(self.name).join("recipe.toml")
    }

    fn from(&self) -> PathBuf {
        self.at("from")
    }

    fn data(&self) -> PathBuf {
        self.at("data")
    }

    fn prepare(&self, from: Option<&Path>, cargo: &str) -> (Result<Prepared>, Vec<String>) {
        let recipe = Recipe::load(&self.recipe()).unwrap();
        let mut heard = Heard::default();
        let folder = self.recipe();
        let tools = Tools { cargo: cargo.as_ref(), patience: impatient() };
        let prepared = recipe.prepare_with(&tools, folder.parent().unwrap(), from, &self.data(), &mut heard);
        (prepared, heard.lines.iter().map(|line| self.short(line)).collect())
    }

    fn local(&self) -> Result<Prepared> {
        self.prepare(Some(&self.from()), "no-cargo").0
    }

    /// With the random folder written as `R`.
    fn short(&self, text: &str) -> String {
        text.replace(self.root.path().to_str().unwrap(), "R")
    }

    fn refused(&self, from: Option<&Path>) -> String {
        self.short(&self.prepare(from, "no-such-cargo").0.unwrap_err().to_string())
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.data().join(self.name).join(name)).unwrap()
    }

    fn listing(&self, folder: &str) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(self.at(folder))
            .map(|entries| entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect())
            .unwrap_or_default();
        names.sort();
        names
    }
}

/// What an audience has heard.
#[derive(Default)]
struct Heard {
    lines: Vec<String>,
    /// Name, bytes and bytes in all of every progress.
    progress: Vec<(String, u64, Option<u64>)>,
}

impl Audience for Heard {
    fn line(&mut self, line: &str) {
        self.lines.push(line.into());
    }

    fn progress(&mut self, progress: &Progress<'_>) {
        self.progress.push((progress.name.into(), progress.done, progress.total));
    }

    fn progress_ends(&mut self) {}
}

/// Three attempts, one soon after the other.
fn impatient() -> Patience {
    let soon = std::time::Duration::from_millis;
    Patience { connect: soon(2000), stall: soon(300), pauses: vec![soon(1), soon(1)] }
}

fn write(path: &Path, text: &str) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

fn pairs() -> Kitchen {
    Kitchen::new("tiny", LOCAL, &[("p/pairs.txt", "a\tA\nb\tB\r\na\tC\nd\tD\n")], PAIRS)
}

#[test]
fn no_step_writes_over_what_another_has_written() {
    let steps = "[[preparation]]\nkind = 'text_by_share'\nfile = 'd.txt'\ntrain_percent = 50\n".repeat(2);
    let kitchen = Kitchen::new("twice", LOCAL, &[("d.txt", "some text\n")], &steps);
    let error = kitchen.prepare(Some(&kitchen.from()), "cargo").0.unwrap_err().to_string();
    let expected = "preparation[1]: writes `train.txt`, as a step before it does: set another `into`, or make it a recipe of its own";
    assert!(error.ends_with(expected), "{error}");
    assert!(!kitchen.data().join("twice").exists());
}

#[test]
fn a_local_recipe_prepares_once() {
    let kitchen = pairs();
    let (first, log) = kitchen.prepare(Some(&kitchen.from()), "no-cargo");
    assert_eq!(
        log,
        [
            "tiny: Pairs of a test",
            "licence: CC0 (https://example.org/licence)",
            "train: 2 pairs of 2 sources",
            "validation: 1 pairs of 1 sources",
            "tiny: prepared in `R/data/tiny`"
        ]
    );
    let first = first.unwrap();
    assert_eq!((kitchen.read("train.tsv"), kitchen.read("validation.tsv")), ("a\tA\nb\tB\n".into(), "a\tC\n".into()));
    assert!(first.fresh && first.folder == kitchen.data().join("tiny"));
    assert_eq!(
        first.files.iter().map(|f| (f.name.as_str(), f.lines)).collect::<Vec<_>>(),
        [("train.tsv", 2), ("validation.tsv", 1)]
    );
    assert_eq!(first.files[0].sha256, sha256(b"a\tA\nb\tB\n"));

    // The second time needs neither the files nor cargo.
    let (second, log) = kitchen.prepare(None, "no-cargo");
    assert_eq!(second.unwrap(), Prepared { fresh: false, ..first });
    assert_eq!(log, ["tiny: already prepared in `R/data/tiny`"]);
    assert_eq!(kitchen.listing("data"), ["tiny"]);
}

#[test]
fn what_somebody_changed_is_not_overwritten() {
    let kitchen = pairs();
    kitchen.local().unwrap();
    write(&kitchen.data().join("tiny/train.tsv"), "mine\tyours\n");
    assert_eq!(
        kitchen.refused(Some(&kitchen.from())),
        "R/data/tiny/train.tsv: the file is not what the recipe wrote: remove or move away `R/data/tiny` to prepare it again"
    );
    std::fs::remove_file(kitchen.data().join("tiny/train.tsv")).unwrap();
    assert!(kitchen.refused(None).starts_with("R/data/tiny/train.tsv: cannot read what the recipe wrote: "));
    std::fs::remove_file(kitchen.data().join("tiny/recipe.json")).unwrap();
    assert_eq!(
        kitchen.refused(None),
        "R/data/tiny: the folder is there, but no recipe wrote it: move it away, or use another data folder"
    );
}

#[test]
fn a_changed_recipe_prepares_again() {
    let kitchen = pairs();
    kitchen.local().unwrap();
    let recipe = std::fs::read_to_string(kitchen.recipe()).unwrap();
    write(&kitchen.recipe(), &recipe.replace("train = 2", "train = 3"));
    assert!(kitchen.local().unwrap().fresh);
    assert_eq!(kitchen.read("validation.tsv"), "d\tD\n");
    // A version that fails leaves what was there.
    write(&kitchen.recipe(), &recipe.replace("train = 2", "train = 4"));
    assert_eq!(kitchen.refused(Some(&kitchen.from())), "R/from/p/pairs.txt: 4 lines, but the recipe takes 5");
    assert_eq!(kitchen.read("validation.tsv"), "d\tD\n");
    assert_eq!(kitchen.listing("data"), ["tiny"]);
}

#[test]
fn files_that_are_missing_or_others_are_named_at_once() {
    let kitchen = Kitchen::new("tiny", LOCAL, &[("p/pairs.txt", "a\tA\n"), ("x", "x"), ("y", "y")], PAIRS);
    write(&kitchen.from().join("x"), "other");
    std::fs::remove_file(kitchen.from().join("y")).unwrap();
    assert_eq!(
        kitchen.refused(Some(&kitchen.from())),
        format!(
            "R/from: 2 problems\n  x: not the file that the recipe means: its SHA-256 is {}, not {}\n  \
             y: no such file; get it from https://example.org/",
            sha256(b"other"),
            sha256(b"x")
        )
    );
    assert_eq!(kitchen.refused(Some(&kitchen.at("nowhere"))), "R/nowhere: no such folder: --from takes one");
    assert_eq!(
        kitchen.refused(None),
        "R/recipes/tiny: give the folder that holds its files with --from DIR; get them from https://example.org/:\n  \
         DIR/p/pairs.txt\n  DIR/x\n  DIR/y"
    );
    assert!(kitchen.listing("data").is_empty());
}

#[test]
fn a_damaged_input_is_named() {
    let bad_line = Kitchen::new("tiny", LOCAL, &[("p/pairs.txt", "a\tA\nb\nc\tC\n")], PAIRS);
    assert_eq!(
        bad_line.refused(Some(&bad_line.from())),
        "R/from/p/pairs.txt: line 2: no tab: write `source<TAB>target`"
    );
}

#[test]
fn a_recipe_with_mistakes_is_refused_completely() {
    let refused = |files: &[(&str, &str)], rest: &str| {
        let kitchen = Kitchen::new("tiny", LOCAL, files, rest);
        kitchen.short(&Recipe::load(&kitchen.recipe()).unwrap_err().to_string())
    };
    assert_eq!(
        refused(
            &[("a", "")],
            "[[files]]\nname = '../b'\nsha256 = 'AB'\n[[preparation]]\nkind = 'copy'\ncopies = [\n\
             {from = 'a', to = 'x'}, {from = 'c', to = 'x'}, {from = 'a', to = '/y'}, {from = 'a', to = 'recipe.json'}]"
        ),
        "R/recipes/tiny/recipe.toml: 6 problems\n  \
         files[1].name: `../b` is not a plain relative path\n  \
         files[1].sha256: not 64 digits of lower-case hexadecimal\n  \
         preparation[0].copies[1].from: `c` is not among `files`\n  \
         preparation[0].copies[1].to: `x` is written already\n  \
         preparation[0].copies[2].to: `/y` is not a plain relative path\n  \
         preparation[0].copies[3].to: `recipe.json` is written already"
    );
    assert_eq!(
        refused(&[("a", "")], "[[preparation]]\nkind = 'cmudict'\nfile = 'b'\ntest = 0\nvalidation = 500"),
        "R/recipes/tiny/recipe.toml: 3 problems\n  preparation[0].file: `b` is not among `files`\n  \
         preparation[0].test: must be from 1 to 499, got 0\n  preparation[0].validation: must be from 1 to 499, got 500"
    );
    assert_eq!(
        refused(&[("a", "")], "[[preparation]]\nkind = 'pairs_by_lines'\nfile = 'a'\ntrain = 0\nvalidation = 0"),
        "R/recipes/tiny/recipe.toml: 2 problems\n  preparation[0].train: must be at least 1, got 0\n  \
         preparation[0].validation: must be at least 1, got 0"
    );
    assert_eq!(
        refused(&[("a", "")], "[[preparation]]\nkind = 'copy'\ncopies = []\n"),
        "R/recipes/tiny/recipe.toml: preparation[0].copies: the list is empty"
    );
    assert!(refused(&[], "surprise = 1\n").starts_with("R/recipes/tiny/recipe.toml: line "));
    assert_eq!(refused(&[], "[[[\n").lines().next().unwrap().split(": ").nth(1), Some("line 6"));
}

#[test]
fn files_are_copied_under_new_names() {
    let files = [("raw/a.de", "ein\n"), ("raw/a.en", "one")];
    let copies = "[[preparation]]\nkind = 'copy'\ncopies = [{from = 'raw/a.de', to = 'raw/train.de'}, {from = 'raw/a.en', to = 'e'}]";
    let kitchen = Kitchen::new("tiny", LOCAL, &files, copies);
    let prepared = kitchen.local().unwrap();
    assert_eq!((kitchen.read("raw/train.de"), kitchen.read("e")), ("ein\n".into(), "one".into()));
    assert_eq!(prepared.files.iter().map(|f| f.lines).collect::<Vec<_>>(), [1, 1]);
}

#[test]
fn words_are_held_out_of_train_with_all_their_pronunciations() {
    let train: String = (0..200).map(|i| format!("W{}\tP{i}\n", i % 100)).collect();
    let files = [("t", train.as_str()), ("u", "X\tY\n")];
    let rest = |n| format!("[[preparation]]\nkind = 'g014b2b'\ntrain = 't'\ntest = 'u'\nvalidation_words = {n}");
    let kitchen = Kitchen::new("tiny", LOCAL, &files, &rest(30));
    kitchen.local().unwrap();
    let (train, validation) = (kitchen.read("train.tsv"), kitchen.read("validation.tsv"));
    assert_eq!((train.lines().count(), validation.lines().count()), (140, 60));
    assert_eq!(kitchen.read("test.tsv"), "X\tY\n");
    let words = |text: &str| -> std::collections::BTreeSet<String> {
        text.lines().map(|line| line.split('\t').next().unwrap().to_string()).collect()
    };
    assert!(words(&train).is_disjoint(&words(&validation)));
    // The choice is fixed for all time, and is not a run of neighbours.
    assert_eq!(words(&validation).into_iter().take(5).collect::<Vec<_>>(), ["W1", "W12", "W14", "W24", "W29"]);
    let small = Kitchen::new("tiny", LOCAL, &files, &rest(100));
    assert_eq!(small.refused(Some(&small.from())), "R/from/t: 100 words: too few to hold out 100 of them");
}

/// A dictionary with 3,000 words, comments, variants and what must go.
fn dictionary() -> String {
    let mut text = String::from(";;; # a comment\n");
    for i in 0..3000_u32 {
        let word: String = [i / 676, i / 26 % 26, i % 26].iter().map(|&n| char::from(b'a' + n as u8)).collect();
        text += &format!("{word} AH0 B{i}X1\n{word}(2) AH1 B{i}X2 # a duplicate without its stress\n{word}(3) Z\n");
    }
    text + "3d TH R IY1 D IY1\n"
}

#[test]
fn a_dictionary_is_split_by_word() {
    let text = dictionary();
    let rest = "[[preparation]]\nkind = 'cmudict'\nfile = 'd'\ntest = 25\nvalidation = 15";
    let kitchen = Kitchen::new("tiny", LOCAL, &[("d", &text)], rest);
    kitchen.local().unwrap();
    let config = "kind = 'pairs'\ntrain = 'tiny/train.tsv'\nvalidation = 'tiny/validation.tsv'\ntest = 'tiny/test.tsv'";
    let config: CorpusConfig = toml::from_str(config).unwrap();
    let mut words = 0;
    for (split, places) in [(Split::Test, 0..25), (Split::Validation, 25..40), (Split::Train, 40..1000)] {
        let corpus = Corpus::open(&config, split, &kitchen.data()).unwrap();
        for group in corpus.grouped(|_, text| text.to_owned()).unwrap().iter().map(Result::unwrap) {
            let word = group.source.unwrap();
            assert!(places.contains(&(stable_hash(word.as_bytes()) % 1000)), "{word} in {split}");
            assert_eq!(group.targets.len(), 2);
            assert!(group.targets[0].ends_with('X') && group.targets[1] == "Z");
            words += 1;
        }
    }
    assert_eq!(words, 3000);
    let one = Kitchen::new("tiny", LOCAL, &[("d", "a AH0\n")], rest);
    assert!(one.refused(Some(&one.from())).starts_with("R/from/d: no word falls to "));
}

#[cfg(unix)]
mod with_cargo {
    use super::*;

    const CRATE: &str = "kind = 'crate'\npackage = 'dictionary'";

    /// A recipe whose crate lies in `from`, and a program that answers like cargo.
    fn kitchen(script: &str) -> (Kitchen, String) {
        let files = [("LICENCE-DATA", "Do as you\nplease.\n"), ("p/pairs.txt", "a\tA\nb\tB\nc\tC\n")];
        let kitchen = Kitchen::new("tiny", CRATE, &files, PAIRS);
        let recipe = std::fs::read_to_string(kitchen.recipe()).unwrap();
        write(&kitchen.recipe(), &recipe.replace("/licence'", "/licence', file = 'LICENCE-DATA'"));
        let answer = script.replace("ROOT", kitchen.root.path().to_str().unwrap());
        write(&kitchen.at("recipes/tiny/answer.sh"), &answer);
        // Not written here: a program that was open for writing a moment ago may not start while other tests fork.
        let cargo = concat!(env!("CARGO_MANIFEST_DIR"), "/src/recipe/origin/fake_cargo.sh");
        (kitchen, cargo.to_string())
    }

    fn refused(script: &str) -> String {
        let (kitchen, cargo) = kitchen(script);
        kitchen.short(&kitchen.prepare(None, &cargo).0.unwrap_err().to_string())
    }

    #[test]
    fn cargo_fetches_and_the_licence_is_shown_and_kept() {
        let answer = r#"echo '{"packages":[{"name":"other","manifest_path":"/x/Cargo.toml"},
            {"name":"dictionary","version":"1.0.0","manifest_path":"ROOT/from/Cargo.toml"}],"version":1}'"#;
        let (kitchen, cargo) = kitchen(answer);
        let (prepared, log) = kitchen.prepare(None, &cargo);
        assert_eq!(
            log[..6],
            [
                "tiny: Pairs of a test",
                "licence: CC0 (https://example.org/licence)",
                "asking cargo for the crate `dictionary`",
                "the licence's text, from `R/from/LICENCE-DATA`:",
                "  Do as you",
                "  please."
            ]
        );
        assert_eq!(prepared.unwrap().files.len(), 3);
        assert_eq!(kitchen.read("LICENCE"), "Do as you\nplease.\n");
        assert_eq!(kitchen.read("validation.tsv"), "c\tC\n");
    }

    #[test]
    fn what_cargo_cannot_do_is_said() {
        let manifest = "R/recipes/tiny/Cargo.toml";
        assert_eq!(
            refused("echo 'error: no network' >&2\necho 'cause' >&2\nexit 101"),
            format!(
                "{manifest}: cargo cannot fetch `dictionary`; is there a network? It says:\n  error: no network\n  cause"
            )
        );
        assert_eq!(
            refused(r#"echo '{"packages":[]}'"#),
            format!("{manifest}: it does not depend on `dictionary`, which the recipe names")
        );
        assert!(
            refused("echo '<html>'").starts_with(&format!("{manifest}: cargo's answer cannot be read: expected value"))
        );
        let (kitchen, _) = kitchen("");
        assert!(kitchen.refused(None).starts_with(&format!("{manifest}: cannot run `no-such-cargo`: ")));
        assert_eq!(
            kitchen.refused(Some(&kitchen.from())),
            "R/from: this recipe's files come with a crate that cargo fetches: leave out --from"
        );
    }
}

/// The folder of the recipes that are shipped.
fn shipped() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../recipes")
}

#[test]
fn every_shipped_recipe_loads() {
    let names = Recipe::names(&shipped()).unwrap();
    assert_eq!(
        names,
        [
            "an4",
            "babi",
            "cmudict",
            "conll2017",
            "dailydialogpp",
            "date_addition",
            "dialog_babi",
            "fra_eng",
            "fsdd",
            "g014b2b",
            "multi30k",
            "sigmorphon2021",
            "tinyshakespeare"
        ]
    );
    for name in names {
        let recipe = Recipe::load(&shipped().join(&name).join("recipe.toml")).unwrap();
        assert_eq!(recipe.name, name);
        let is_crate = matches!(recipe.config.origin, OriginConfig::Crate(_));
        for file in ["Cargo.toml", "Cargo.lock"] {
            assert_eq!(shipped().join(&name).join(file).is_file(), is_crate, "{name}/{file}");
        }
        let OriginConfig::Download(origin) = recipe.config.origin else { continue };
        for url in origin.downloads.iter().flat_map(|download| &download.urls) {
            assert!(url.starts_with("https://"), "{name}: {url}");
        }
    }
}

/// Needs cargo's registry: `cargo test -p antiphon-data -- --ignored`.
#[test]
#[ignore = "fetches a crate"]
fn the_dictionary_comes_with_cargo() {
    let folder = shipped().join("cmudict");
    let recipe = Recipe::load(&folder.join("recipe.toml")).unwrap();
    let data = tempfile::tempdir().unwrap();
    let prepared = recipe.prepare(&folder, None, data.path(), &mut Heard::default()).unwrap();
    let counts: Vec<(&str, usize)> = prepared.files.iter().map(|f| (f.name.as_str(), f.lines)).collect();
    assert_eq!(counts, [("train.tsv", 128_640), ("validation.tsv", 1_637), ("test.tsv", 3_237), ("LICENCE", 34)]);
}
