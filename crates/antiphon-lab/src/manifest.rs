//! What ran, where, when, and how it ended: `manifest.json`.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::time::SystemTime;

use antiphon_core::{Error, Result};
use serde::{Deserialize, Serialize};

use crate::clock::{Spent, rfc3339};
use crate::identity::{Identity, Parent};
use crate::machine::cpu_features;

/// The layout of run folders that this version writes, and the newest that it reads.
const FORMAT: u32 = 4;

/// A run's record of itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The layout of the run folder.
    pub format: u32,
    /// The label of the experiment.
    pub name: String,
    /// The experiment's [`Identity::digest`].
    pub digest: String,
    /// The program's version.
    pub version: String,
    /// The commit that the program was built from, where known.
    pub revision: Option<Revision>,
    /// The settings that do not count for the digest: [`Identity::uncounted`]. Runs of format 2 have none of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub uncounted: Vec<String>,
    /// The run that it goes on with, if it does not begin at step 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<Parent>,
    /// The files read, and their SHA-256.
    pub data: BTreeMap<String, String>,
    /// The device.
    pub device: String,
    /// The processor's vector extensions.
    pub cpu_features: Vec<String>,
    /// How many threads compute.
    pub threads: usize,
    /// The config's `seed`, where it has one.
    pub seed: Option<u64>,
    /// The command line that created the run, the program's folder left out.
    pub command: Vec<String>,
    /// When the run was created: RFC 3339, UTC.
    pub started: String,
    /// When it last ended: RFC 3339, UTC.
    pub ended: Option<String>,
    /// Process CPU time so far, over all sessions; 0 where the system does not tell.
    pub cpu_seconds: f64,
    /// Time on the clock so far, over all sessions.
    pub wall_seconds: f64,
    /// How it stands.
    pub status: Status,
    /// What its training began with, where that was not drawn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<Start>,
    /// How its training came to its end, once it has. Runs of format 1 do not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub training: Option<TrainingEnd>,
}

/// What a training began with, where that was not drawn.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Start {
    /// The model that parameters were taken from, as the config names it.
    pub model: Option<String>,
    /// How many of all parameters were taken.
    pub taken: Share,
    /// Of each vocabulary, how many tokens that model knew, whose rows were kept. Those of the others were drawn.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tokens: BTreeMap<String, Share>,
    /// Of each table that started from a file of vectors, how many tokens have one there.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub vectors: BTreeMap<String, Share>,
    /// The parameters of that model that have no place in this one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unused: Vec<String>,
}

/// How many of so many.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Share {
    /// Those that are meant.
    pub known: usize,
    /// All.
    pub of: usize,
}

impl fmt::Display for Start {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { model, taken: Share { known, of }, tokens, vectors, unused } = self;
        match model {
            Some(model) => write!(f, "{known} of {of} parameters are those of {model}")?,
            None => write!(f, "all parameters are drawn")?,
        }
        for (side, Share { known, of }) in tokens {
            write!(f, "; of `{side}` {known} of {of} tokens keep their rows, and {} are drawn", of - known)?;
        }
        for (table, Share { known, of }) in vectors {
            write!(f, "; in `{table}` {known} of {of} tokens have a vector from a file")?;
        }
        match unused.as_slice() {
            [] => Ok(()),
            [one] => write!(f, "; it has no place for `{one}`"),
            [first, others @ ..] => write!(f, "; it has no place for `{first}` and {} more", others.len()),
        }
    }
}

/// How a training came to its end.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainingEnd {
    /// Why.
    pub reason: EndReason,
    /// The steps that were done.
    pub step: u64,
    /// The epochs that were done.
    pub epoch: u64,
    /// Validations in a row, at the end, without improvement.
    pub waited: u64,
    /// The validation by which the model was chosen, if there was one.
    pub best: Option<BestValidation>,
    /// The step behind which validation let an average of the weights begin, if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub averaged_since: Option<u64>,
    /// The mean of models that was chosen in the place of the best one, if it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mean: Option<MeanOfModels>,
}

/// A mean of models of one run that validation found better than each of them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MeanOfModels {
    /// The steps behind which they stood.
    pub steps: Vec<u64>,
    /// By which figure.
    pub metric: String,
    /// The figure of the mean.
    pub value: f64,
}

/// Why a training ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndReason {
    /// All steps were done.
    Steps,
    /// All epochs were done.
    Epochs,
    /// Validation had not improved for too long.
    Patience,
}

/// The validation by which a model was chosen.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BestValidation {
    /// The steps that were done then.
    pub step: u64,
    /// By which figure.
    pub metric: String,
    /// The figure.
    pub value: f64,
}

impl EndReason {
    /// In a word or two.
    pub const fn name(self) -> &'static str {
        match self {
            EndReason::Steps => "all steps",
            EndReason::Epochs => "all epochs",
            EndReason::Patience => "stopped early",
        }
    }
}

impl fmt::Display for TrainingEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { reason, step, epoch, waited, best, averaged_since, mean } = self;
        write!(f, "after step {step}, epoch {epoch}: ")?;
        match reason {
            EndReason::Steps => write!(f, "all steps are done")?,
            EndReason::Epochs => write!(f, "all epochs are done")?,
            EndReason::Patience => {
                let validations = if *waited == 1 { "validation" } else { "validations" };
                write!(f, "stopped early, after {waited} {validations} without improvement")?;
            }
        }
        if let Some(step) = averaged_since {
            write!(f, "; weights are averaged since step {step}")?;
        }
        if let Some(MeanOfModels { steps, metric, value }) = mean {
            let steps: Vec<String> = steps.iter().map(u64::to_string).collect();
            return write!(f, "; the model is the mean of those of steps {}, {metric} {value:.4}", steps.join(", "));
        }
        match best {
            Some(BestValidation { step, metric, value }) => {
                write!(f, "; the model is that of step {step}, {metric} {value:.4}")
            }
            None => Ok(()),
        }
    }
}

/// How a run stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Status {
    /// A process is at work, or died without a word: only the lock tells.
    Running,
    /// All is done and the results are there.
    Finished,
    /// Interrupted by the user; can go on.
    Stopped,
    /// An error ended it.
    Failed {
        /// The error.
        message: String,
    },
}

/// A commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Revision {
    /// Its hash in hexadecimal.
    pub commit: String,
    /// Whether files had changed since.
    pub dirty: bool,
}

impl Revision {
    /// Reads `HASH` or `HASH-dirty`; `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let (commit, dirty) = text.strip_suffix("-dirty").map_or((text, false), |commit| (commit, true));
        let hash = (7..=64).contains(&commit.len()) && commit.bytes().all(|b| b.is_ascii_hexdigit());
        hash.then(|| Self { commit: commit.to_string(), dirty })
    }
}

impl Manifest {
    /// The record of a run that begins now, by this process and its command line.
    pub fn begin(identity: &Identity) -> Self {
        Self {
            format: FORMAT,
            name: identity.name.clone(),
            digest: identity.digest(),
            version: identity.version.clone(),
            revision: identity.revision.clone(),
            uncounted: identity.uncounted.clone(),
            parent: identity.parent.clone(),
            data: identity.data.clone(),
            device: identity.device.clone(),
            cpu_features: cpu_features(),
            threads: identity.threads,
            seed: identity.config.get("seed").and_then(serde_json::Value::as_u64),
            command: command_line(std::env::args_os().map(|arg| arg.to_string_lossy().into_owned())),
            started: rfc3339(SystemTime::now()),
            ended: None,
            cpu_seconds: 0.0,
            wall_seconds: 0.0,
            status: Status::Running,
            start: None,
            training: None,
        }
    }

    /// What to say of a run that another state of the program made than that of `own`, as far as both are known.
    pub fn other_revision(&self, own: Option<&Revision>) -> Option<String> {
        let (made, own) = (self.revision.as_ref()?, own?);
        (made != own).then(|| {
            let named = |revision: &Revision| {
                let changes = if revision.dirty { " with changes" } else { "" };
                format!("commit {:.10}{changes}", revision.commit)
            };
            format!("was made by {}, and this is {}; `--again` repeats it", named(made), named(own))
        })
    }

    /// Whether the run is of this experiment but for the number of threads, which the last bits of the figures depend on, or the
    /// version of the program.
    pub fn is_sibling(&self, identity: &Identity) -> bool {
        let own = (self.threads, &self.version);
        let there = || Identity { threads: self.threads, version: self.version.clone(), ..identity.clone() };
        own != (identity.threads, &identity.version) && there().digest() == self.digest
    }

    /// Another session begins.
    pub fn resume(&mut self) {
        self.ended = None;
        self.status = Status::Running;
    }

    /// Adds the time of a session, or of a part of it.
    pub fn spend(&mut self, spent: Spent) {
        self.cpu_seconds += spent.cpu_seconds.unwrap_or(0.0);
        self.wall_seconds += spent.wall_seconds;
    }

    /// The session ends now.
    pub fn end(&mut self, status: Status) {
        self.ended = Some(rfc3339(SystemTime::now()));
        self.status = status;
    }

    /// Parses the bytes of `path`.
    pub(crate) fn parse(bytes: &[u8], path: &Path) -> Result<Self> {
        let damaged = |e: serde_json::Error| {
            Error::new(format!("is damaged ({e}); the run can only be repeated: delete or move its folder"))
                .in_file(path)
        };
        /// The one field that every format has.
        #[derive(Deserialize)]
        struct Format {
            format: u32,
            #[serde(default)]
            version: String,
        }
        let Format { format, version } = serde_json::from_slice(bytes).map_err(damaged)?;
        if format > FORMAT {
            let newer = format!(
                "has format {format}, written by version {version}, and this program reads up to {FORMAT}: use that \
                 version or a newer one"
            );
            return Err(Error::new(newer).in_file(path));
        }
        serde_json::from_slice(bytes).map_err(damaged)
    }
}

/// A command line without the folder of its program, which is nobody else's business.
fn command_line(args: impl Iterator<Item = String>) -> Vec<String> {
    let mut args: Vec<String> = args.collect();
    if let Some(program) = args.first_mut()
        && let Some(name) = Path::new(program).file_stem()
    {
        *program = name.to_string_lossy().into_owned();
    }
    args
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::identity;

    #[test]
    fn a_manifest_survives_the_disk() {
        let mut manifest = Manifest::begin(&identity("one"));
        manifest.revision = Revision::parse("0123456789abcdef-dirty");
        manifest.spend(Spent { cpu_seconds: Some(3.5), wall_seconds: 2.0 });
        manifest.end(Status::Failed { message: "the loss is not a number".into() });
        let best = Some(BestValidation { step: 7, metric: "loss".into(), value: 0.25 });
        let (reason, averaged_since, mean) = (EndReason::Patience, None, None);
        let end = TrainingEnd { reason, step: 9, epoch: 3, waited: 2, best, averaged_since, mean };
        manifest.training = Some(end);
        assert!(!serde_json::to_string(&manifest).unwrap().contains("averaged_since"));
        manifest.training.as_mut().unwrap().averaged_since = Some(6);
        let bytes = serde_json::to_vec(&manifest).unwrap();
        assert_eq!(Manifest::parse(&bytes, Path::new("m")).unwrap(), manifest);
        assert_eq!(manifest.seed, Some(17));
    }

    #[test]
    fn sessions_add_up() {
        let mut manifest = Manifest::begin(&identity("one"));
        for _ in 0..2 {
            manifest.resume();
            assert_eq!((&manifest.status, &manifest.ended), (&Status::Running, &None));
            manifest.spend(Spent { cpu_seconds: Some(3.0), wall_seconds: 2.0 });
            manifest.spend(Spent { cpu_seconds: None, wall_seconds: 1.0 });
            manifest.end(Status::Stopped);
        }
        assert_eq!((manifest.cpu_seconds, manifest.wall_seconds), (6.0, 6.0));
        assert!(manifest.ended.is_some());
    }

    #[test]
    fn a_newer_format_and_a_damaged_file_are_told_apart() {
        let parse = |text: &str| Manifest::parse(text.as_bytes(), Path::new("manifest.json")).unwrap_err().to_string();
        let newer = parse(r#"{"format": 5, "version": "3.0.0", "what": {}}"#);
        assert_eq!(
            newer,
            "manifest.json: has format 5, written by version 3.0.0, and this program reads up to 4: use that version \
             or a newer one"
        );
        for damaged in [r#"{"format": 1"#, "", r#"{"format": 1}"#, "[]"] {
            assert!(parse(damaged).starts_with("manifest.json: is damaged ("), "{damaged}");
        }
    }

    #[test]
    fn a_manifest_of_the_first_format_is_read() {
        let mut manifest = Manifest::begin(&identity("one"));
        manifest.format = 1;
        let text = serde_json::to_string(&manifest).unwrap();
        assert!(!text.contains("training"), "{text}");
        assert_eq!(Manifest::parse(text.as_bytes(), Path::new("m")).unwrap(), manifest);
    }

    #[test]
    fn the_end_of_a_training_is_a_line() {
        let best = Some(BestValidation { step: 200, metric: "loss".into(), value: 0.25 });
        let (reason, averaged_since) = (EndReason::Patience, None);
        let end = TrainingEnd { reason, step: 380, epoch: 20, waited: 3, best, averaged_since, mean: None };
        let expected = "after step 380, epoch 20: stopped early, after 3 validations without improvement; the model is that \
                        of step 200, loss 0.2500";
        assert_eq!(end.to_string(), expected);
        let end = TrainingEnd { waited: 1, ..end };
        assert!(end.to_string().contains("stopped early, after 1 validation without improvement;"), "{end}");
        let end = TrainingEnd { reason: EndReason::Steps, best: None, ..end };
        assert_eq!(end.to_string(), "after step 380, epoch 20: all steps are done");
        let end = TrainingEnd { averaged_since: Some(300), ..end };
        let expected = "after step 380, epoch 20: all steps are done; weights are averaged since step 300";
        assert_eq!(end.to_string(), expected);
        let mean = MeanOfModels { steps: vec![380, 200], metric: "loss".into(), value: 0.125 };
        let end = TrainingEnd { averaged_since: None, mean: Some(mean), ..end };
        let expected = "after step 380, epoch 20: all steps are done; the model is the mean of those of steps 380, 200, loss 0.1250";
        assert_eq!(end.to_string(), expected);
    }

    #[test]
    fn what_a_training_began_with_is_a_line() {
        let share = |known, of| Share { known, of };
        let tokens = BTreeMap::from([("source".to_owned(), share(25, 30))]);
        let (model, vectors) = (Some("runs/a".into()), BTreeMap::new());
        let start = Start { model, taken: share(18, 19), tokens, vectors, unused: vec![] };
        assert_eq!(
            start.to_string(),
            "18 of 19 parameters are those of runs/a; of `source` 25 of 30 tokens keep their rows, and 5 are drawn"
        );
        let unused = ["b", "c", "d"].map(String::from).to_vec();
        let start = Start { tokens: BTreeMap::new(), unused, ..start };
        let expected = "18 of 19 parameters are those of runs/a; it has no place for `b` and 2 more";
        assert_eq!(start.to_string(), expected);
        let vectors = BTreeMap::from([("source.table".to_owned(), share(2, 9))]);
        let of_vectors = Start { model: None, vectors, unused: vec![], ..start.clone() };
        let expected = "all parameters are drawn; in `source.table` 2 of 9 tokens have a vector from a file";
        assert_eq!(of_vectors.to_string(), expected);
        let mut manifest = Manifest::begin(&identity("one"));
        manifest.start = Some(start);
        let bytes = serde_json::to_vec(&manifest).unwrap();
        assert_eq!(Manifest::parse(&bytes, Path::new("m")).unwrap(), manifest);
    }

    #[test]
    fn a_revision_is_a_hash_and_perhaps_dirty() {
        assert_eq!(Revision::parse("abcdef0"), Some(Revision { commit: "abcdef0".into(), dirty: false }));
        assert_eq!(Revision::parse("abcdef0-dirty"), Some(Revision { commit: "abcdef0".into(), dirty: true }));
        for text in ["", "-dirty", "main", "abcdef", "abcdef0-clean"] {
            assert_eq!(Revision::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_command_line_shows_no_folder_of_its_program() {
        let command = command_line(["/home/somebody/bin/antiphon", "run", "a.toml"].map(String::from).into_iter());
        assert_eq!(command, ["antiphon", "run", "a.toml"]);
    }
}
