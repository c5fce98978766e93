//! One run's folder.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use antiphon_config::to_toml;
use antiphon_core::{Error, Result};

use crate::disk::{sync_folder, write_atomically};
use crate::identity::{Identity, leave_out};
use crate::lock::RunLock;
use crate::manifest::{Manifest, Status};
use crate::results::Results;

const MANIFEST: &str = "manifest.json";

/// How the name of a folder begins that is not yet a run's.
const HIDDEN: &str = ".new-run-";

/// A run's folder, and the names of its parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    path: PathBuf,
}

impl Run {
    /// The run in an existing folder.
    ///
    /// # Errors
    /// If the folder is missing, holds no run, or holds one of a newer version.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self> {
        let path = path.into();
        if !path.is_dir() {
            return Err(Error::new("no such run folder").in_file(path));
        }
        if !Self::is_at(&path) {
            return Err(Error::new(format!("is not a run folder: it has no `{MANIFEST}`")).in_file(path));
        }
        let run = Self { path };
        run.manifest()?;
        Ok(run)
    }

    /// Whether a folder looks like a run's; one under a hidden name is not yet born.
    pub(crate) fn is_at(path: &Path) -> bool {
        let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(HIDDEN.as_bytes()));
        !hidden && path.join(MANIFEST).is_file()
    }

    /// The run in a folder for which [`is_at`](Self::is_at) holds.
    pub(crate) fn at(path: PathBuf) -> Self {
        Self { path }
    }

    /// A new run at `path`, whole or not at all: the folder is furnished beside its place, under a hidden name, and then
    /// renamed, so that a process killed meanwhile leaves nothing that looks like a run or takes its place. `None` if
    /// something is at `path` already; it is left as it was.
    pub(crate) fn create(path: &Path, identity: &Identity) -> Result<Option<Self>> {
        if path.symlink_metadata().is_ok() {
            return Ok(None);
        }
        let failed = |e: io::Error| Error::io(path, "create the run folder", &e);
        let beside = Self { path: folder_beside(path).map_err(failed)? };
        let made = beside.write_first_files(identity).and_then(|()| match fs::rename(&beside.path, path) {
            Ok(()) => Ok(Some(Self { path: path.to_path_buf() })),
            // Another process was faster.
            Err(_) if path.symlink_metadata().is_ok() => Ok(None),
            Err(e) => Err(failed(e)),
        });
        if !matches!(made, Ok(Some(_))) {
            // It was ours alone.
            let _ = fs::remove_dir_all(&beside.path);
        }
        if let Ok(Some(_)) = made {
            let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
            sync_folder(parent).map_err(|e| Error::io(parent, "flush", &e))?;
        }
        made
    }

    fn write_first_files(&self, identity: &Identity) -> Result<()> {
        write_atomically(self.config_path(), to_toml(&identity.config)?.as_bytes())?;
        let checkpoints = self.checkpoints_path();
        fs::create_dir(&checkpoints).map_err(|e| Error::io(checkpoints, "create", &e))?;
        self.write_manifest(&Manifest::begin(identity))
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The folder's name, by which tables call the run.
    pub fn name(&self) -> String {
        let last = self.path.file_name().map(|name| name.to_string_lossy().into_owned());
        last.unwrap_or_else(|| self.path.display().to_string())
    }

    /// `config.toml`: every setting, resolved.
    pub fn config_path(&self) -> PathBuf {
        self.path.join("config.toml")
    }

    /// `manifest.json`.
    pub fn manifest_path(&self) -> PathBuf {
        self.path.join(MANIFEST)
    }

    /// `tokenizers.json`: the tokenizers, as learned.
    pub fn tokenizers_path(&self) -> PathBuf {
        self.path.join("tokenizers.json")
    }

    /// `metrics.jsonl`: see [`MetricsLog`](crate::MetricsLog).
    pub fn metrics_path(&self) -> PathBuf {
        self.path.join("metrics.jsonl")
    }

    /// `checkpoints/`: exists from the start.
    pub fn checkpoints_path(&self) -> PathBuf {
        self.path.join("checkpoints")
    }

    /// `model.safetensors`: the chosen model.
    pub fn model_path(&self) -> PathBuf {
        self.path.join("model.safetensors")
    }

    /// `predictions-SPLIT.jsonl`: the answers for `validation`, `test`, …
    pub fn predictions_path(&self, split: &str) -> PathBuf {
        self.path.join(format!("predictions-{split}.jsonl"))
    }

    /// Where the loss of a language model lies on a split.
    pub fn losses_path(&self, split: &str) -> PathBuf {
        self.path.join(format!("losses-{split}.json"))
    }

    /// `results.json`.
    pub fn results_path(&self) -> PathBuf {
        self.path.join("results.json")
    }

    /// `report.html`: the page for a browser.
    pub fn report_path(&self) -> PathBuf {
        self.path.join("report.html")
    }

    /// Keeps other processes from training here while the lock lives.
    ///
    /// # Errors
    /// If another process is at work here, or the folder cannot be written or locked.
    pub fn lock(&self) -> Result<RunLock> {
        RunLock::acquire(&self.lock_path())
    }

    /// Whether another process is at work here. To look keeps nobody from beginning.
    ///
    /// # Errors
    /// If the lock is there and cannot be opened or locked.
    pub fn is_at_work(&self) -> Result<bool> {
        RunLock::is_held(&self.lock_path())
    }

    fn lock_path(&self) -> PathBuf {
        self.path.join("run.lock")
    }

    /// The resolved settings.
    ///
    /// # Errors
    /// If `config.toml` is missing or damaged.
    pub fn config(&self) -> Result<toml::Table> {
        let path = self.config_path();
        let text = fs::read_to_string(&path).map_err(|e| Error::io(&path, "read", &e))?;
        text.parse().map_err(|e: toml::de::Error| Error::new(format!("is damaged: {}", e.message())).in_file(&path))
    }

    /// The settings that count: those by which runs are told apart. `manifest` is the run's own.
    ///
    /// # Errors
    /// As [`config`](Self::config).
    pub(crate) fn counted_config(&self, manifest: &Manifest) -> Result<toml::Table> {
        let unlike = |e: &dyn std::fmt::Display| Error::new(format!("is damaged: {e}")).in_file(self.config_path());
        let mut config = serde_json::to_value(self.config()?).map_err(|e| unlike(&e))?;
        leave_out(&mut config, &manifest.uncounted);
        serde_json::from_value(config).map_err(|e| unlike(&e))
    }

    /// The run's record of itself.
    ///
    /// # Errors
    /// If it is missing, damaged, or of a newer version.
    pub fn manifest(&self) -> Result<Manifest> {
        #[cfg(test)]
        crate::testing::note_manifest();
        let path = self.manifest_path();
        Manifest::parse(&fs::read(&path).map_err(|e| Error::io(&path, "read", &e))?, &path)
    }

    /// Replaces the record. For the holder of the [lock](Self::lock).
    ///
    /// # Errors
    /// If it cannot be written; the old one is then still there.
    pub fn write_manifest(&self, manifest: &Manifest) -> Result<()> {
        write_json(&self.manifest_path(), manifest)
    }

    /// Changes the record. For the holder of the [lock](Self::lock).
    ///
    /// # Errors
    /// As [`manifest`](Self::manifest) and [`write_manifest`](Self::write_manifest).
    pub fn update_manifest(&self, change: impl FnOnce(&mut Manifest)) -> Result<()> {
        let mut manifest = self.manifest()?;
        change(&mut manifest);
        self.write_manifest(&manifest)
    }

    /// Whether all is done and the figures are there.
    ///
    /// # Errors
    /// As [`manifest`](Self::manifest).
    pub fn is_finished(&self) -> Result<bool> {
        Ok(self.manifest()?.status == Status::Finished && self.results_path().is_file())
    }

    /// All that [`state`](Self::state) may say.
    pub(crate) const STATES: [&str; 6] = ["running", "broken off", "stopped", "failed", "trained", "finished"];

    /// How the run stands, in a word or two; `manifest` is its own.
    ///
    /// # Errors
    /// As [`is_at_work`](Self::is_at_work).
    pub fn state(&self, manifest: &Manifest) -> Result<&'static str> {
        Ok(match manifest.status {
            Status::Running if self.is_at_work()? => "running",
            Status::Running => "broken off",
            Status::Finished if !self.results_path().is_file() => "trained",
            Status::Finished => "finished",
            Status::Stopped => "stopped",
            Status::Failed { .. } => "failed",
        })
    }

    /// The figures, or `None` if the run has none yet.
    ///
    /// # Errors
    /// If they cannot be read.
    pub fn results(&self) -> Result<Option<Results>> {
        let path = self.results_path();
        let mut bytes = Vec::new();
        match fs::File::open(&path).and_then(|mut file| file.read_to_end(&mut bytes)) {
            Ok(_) => {}
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(Error::io(&path, "read", &e)),
        }
        let damaged = |e| {
            Error::new(format!("is damaged ({e}); `run` the config again, and all is measured anew")).in_file(&path)
        };
        serde_json::from_slice(&bytes).map(Some).map_err(damaged)
    }

    /// Writes the figures.
    ///
    /// # Errors
    /// If one of them is not finite, or the file cannot be written.
    pub fn write_results(&self, results: &Results) -> Result<()> {
        let path = self.results_path();
        results.check_finite().map_err(|e| e.in_file(&path))?;
        write_json(&path, results)
    }
}

/// Makes a folder, of this call alone, in which a run is furnished.
fn folder_beside(path: &Path) -> io::Result<PathBuf> {
    let mut number = u64::from(std::process::id());
    loop {
        let folder = path.with_file_name(format!("{HIDDEN}{number}"));
        match fs::create_dir(&folder) {
            Ok(()) => return Ok(folder),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => number += 1,
            Err(e) => return Err(e),
        }
    }
}

fn write_json(path: &Path, value: &impl serde::Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(value).map_err(|e| Error::new(e.to_string()).in_file(path))?;
    write_atomically(path, format!("{text}\n").as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runs::Runs;
    use crate::testing::{identity, results};

    #[test]
    fn what_is_no_run_is_told_from_what_is_not_there() {
        let folder = tempfile::tempdir().unwrap();
        let error = |path: &Path| Run::open(path).unwrap_err().to_string();
        assert!(error(&folder.path().join("none")).ends_with("none: no such run folder"));
        assert!(error(folder.path()).ends_with(": is not a run folder: it has no `manifest.json`"));
    }

    #[test]
    fn a_run_of_a_newer_version_is_not_opened() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(MANIFEST), r#"{"format": 99, "version": "9.0.0"}"#).unwrap();
        let error = Run::open(folder.path()).unwrap_err().to_string();
        assert!(error.contains("manifest.json: has format 99, written by version 9.0.0"), "{error}");
    }

    #[test]
    fn results_are_written_whole_and_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let run = Runs::new(folder.path()).create(&identity("one"), false).unwrap();
        assert_eq!(run.results().unwrap(), None);
        run.write_results(&results(24.5)).unwrap();
        assert_eq!(Run::open(run.path()).unwrap().results().unwrap(), Some(results(24.5)));

        let mut broken = results(24.5);
        broken.test.as_mut().unwrap().metrics.get_mut("bleu").unwrap().value = f64::NAN;
        let error = run.write_results(&broken).unwrap_err().to_string();
        assert!(error.ends_with("results.json: test.bleu: is not a finite number (NaN)"), "{error}");
        assert_eq!(run.results().unwrap(), Some(results(24.5)));

        fs::write(run.results_path(), "{").unwrap();
        let error = run.results().unwrap_err().to_string();
        assert!(error.contains("results.json: is damaged (") && error.ends_with("all is measured anew"), "{error}");
    }

    #[test]
    fn a_manifest_is_changed_in_place() {
        let folder = tempfile::tempdir().unwrap();
        let run = Runs::new(folder.path()).create(&identity("one"), false).unwrap();
        run.update_manifest(|m| m.end(Status::Finished)).unwrap();
        let manifest = Run::open(run.path()).unwrap().manifest().unwrap();
        assert_eq!(manifest.status, Status::Finished);
        assert_eq!(manifest.digest, identity("one").digest());
    }

    #[test]
    fn a_locked_run_refuses_a_second_trainer() {
        let folder = tempfile::tempdir().unwrap();
        let run = Runs::new(folder.path()).create(&identity("one"), false).unwrap();
        let _lock = run.lock().unwrap();
        let error = Run::open(run.path()).unwrap().lock().unwrap_err().to_string();
        assert!(error.starts_with(&run.path().display().to_string()), "{error}");
    }
}
