//! A folder with a small corpus, a config and the program.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;

/// Words over four letters; the answer says them in capitals, with spaces between. A model learns that in seconds.
pub(crate) fn pairs(numbers: std::ops::Range<u32>) -> String {
    let letter = |digit: u32| char::from(b'a' + digit as u8);
    let word = |n: u32| {
        // Scattered, so that words of all lengths and beginnings are everywhere.
        let mut rest = n.wrapping_mul(2_654_435_761) >> 16;
        let mut word = String::new();
        for _ in 0..(2 + rest % 4) {
            rest = rest.wrapping_mul(1_103_515_245).wrapping_add(12_345);
            word.push(letter(rest >> 20 & 3));
        }
        word
    };
    let answer = |word: &str| word.to_uppercase().chars().map(String::from).collect::<Vec<_>>().join(" ");
    numbers.map(word).map(|word| format!("{word}\t{}\n", answer(&word))).collect()
}

pub(crate) const CONFIG: &str = r#"
threads = 1

[data]
kind = "pairs"
train = "train.tsv"
validation = "validation.tsv"
test = "test.tsv"

[tokenizer.source]
kind = "character"
[tokenizer.target]
kind = "word"

[model.source]
kind = "embedding"
size = 16
[model.target]
kind = "embedding"
size = 16
[model.encoder]
kind = "gru"
hidden = 16
[model.decoder]
kind = "gru"
hidden = 16
dropout = 0.1
[model.decoder.attention]
kind = "general"

[batch]
kind = "sentences"
count = 32

[train]
epochs = 2
optimizer = { kind = "adam", learning_rate = 1e-2 }

[evaluate]
metrics = [{ kind = "sequence_error_rate" }, { kind = "phone_error_rate" }]
show = 3

[search]
kind = "beam"
width = 3
"#;

/// A folder that goes away with its value.
pub(crate) struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    pub(crate) fn new() -> Self {
        let place = Self { folder: tempfile::tempdir().expect("a temporary folder") };
        place.write("data/train.tsv", pairs(0..600));
        place.write("data/validation.tsv", pairs(600..640));
        place.write("data/test.tsv", pairs(640..680));
        place.write("tiny.toml", CONFIG);
        place
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        std::fs::write(path, content).expect("a file");
    }

    pub(crate) fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
    }

    /// The program, with the environment of nobody in particular.
    pub(crate) fn command(&self, words: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_antiphon"));
        command.current_dir(self.folder.path()).args(words.split_whitespace());
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("ANTIPHON")) {
            command.env_remove(name);
        }
        command
    }

    /// A shell in this folder, with the environment of nobody in particular.
    #[cfg(unix)]
    pub(crate) fn shell(&self) -> Command {
        let mut command = Command::new("sh");
        command.current_dir(self.folder.path());
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("ANTIPHON")) {
            command.env_remove(name);
        }
        command
    }

    /// Calls the program and waits.
    pub(crate) fn call(&self, words: &str) -> Called {
        Called(self.command(words).stdin(Stdio::null()).output().expect("the program starts"))
    }

    /// Calls the program with an input.
    pub(crate) fn call_with(&self, words: &str, input: impl AsRef<[u8]>) -> Called {
        use std::io::Write;
        let mut child = self.start(words);
        // The program may end without having read it all.
        let _ = child.stdin.take().expect("a pipe").write_all(input.as_ref());
        Called(child.wait_with_output().expect("the program ends"))
    }

    pub(crate) fn start(&self, words: &str) -> Child {
        let mut command = self.command(words);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().expect("the program starts")
    }

    /// The only run below `runs`.
    pub(crate) fn only_run(&self) -> String {
        let names: Vec<String> = std::fs::read_dir(self.path("runs"))
            .expect("there are runs")
            .map(|entry| entry.expect("an entry").file_name().into_string().expect("a plain name"))
            .filter(|name| !name.starts_with('.'))
            .collect();
        assert_eq!(names.len(), 1, "{names:?}");
        format!("runs/{}", names[0])
    }
}

/// A place with a finished run, for all tests that only read.
pub(crate) fn finished() -> &'static (Place, String, String) {
    static FINISHED: OnceLock<(Place, String, String)> = OnceLock::new();
    FINISHED.get_or_init(|| {
        let place = Place::new();
        let output = place.call("run tiny.toml").succeeds();
        let run = place.only_run();
        (place, run, output)
    })
}

/// What the program said and how it ended.
pub(crate) struct Called(pub(crate) Output);

impl Called {
    pub(crate) fn out(&self) -> String {
        String::from_utf8(self.0.stdout.clone()).expect("the output is text")
    }

    pub(crate) fn err(&self) -> String {
        String::from_utf8_lossy(&self.0.stderr).into_owned()
    }

    /// Its output; it must have ended well.
    #[track_caller]
    pub(crate) fn succeeds(self) -> String {
        assert_eq!(self.0.status.code(), Some(0), "{}\n{}", self.out(), self.err());
        self.out()
    }

    /// Its answer to a mistake: exit code 2, one `error:`, no panic.
    #[track_caller]
    pub(crate) fn refuses(&self) -> String {
        let err = self.err();
        assert_eq!(self.0.status.code(), Some(2), "{}\n{err}", self.out());
        let answers = err.lines().filter(|line| line.starts_with("error: ")).count();
        assert!(answers == 1 && !err.contains("panicked") && !err.contains("backtrace"), "{err}");
        let start = err.find("error: ").expect("an error");
        err[start..].trim_end().to_owned()
    }
}

/// A file's name as the program prints it.
pub(crate) fn shown(path: &Path) -> String {
    path.display().to_string()
}
