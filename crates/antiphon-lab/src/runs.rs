//! The folder of all runs.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use antiphon_core::{Error, Result};

use crate::identity::Identity;
use crate::manifest::Manifest;
use crate::run::Run;

/// A folder of runs, by default `runs`. It need not exist before the first run does.
#[derive(Debug, Clone)]
pub struct Runs {
    root: PathBuf,
}

impl Default for Runs {
    fn default() -> Self {
        Self::new("runs")
    }
}

impl Runs {
    /// The runs below `root`.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The run of this experiment; of several the latest repetition. Folders that are called after the experiment come first;
    /// only when it is in none of them is every run read. Who looks for many runs makes an [`index`](Self::index).
    ///
    /// # Errors
    /// If the folder of runs cannot be read, or the experiment's own folder holds a run of a newer version.
    pub fn find(&self, identity: &Identity) -> Result<Option<Run>> {
        let (digest, folder) = (identity.digest(), identity.folder());
        let (own, others): (Vec<OsString>, Vec<OsString>) =
            self.names()?.into_iter().partition(|name| name.to_string_lossy().starts_with(&folder));
        for path in own.iter().rev().map(|name| self.root.join(name)).filter(|path| Run::is_at(path)) {
            let run = Run::at(path);
            if run.manifest()?.digest == digest {
                return Ok(Some(run));
            }
        }
        let others = others.iter().rev().map(|name| self.root.join(name)).filter(|path| Run::is_at(path)).map(Run::at);
        // A damaged run of another experiment is no obstacle.
        Ok(others.into_iter().find(|run| run.manifest().is_ok_and(|manifest| manifest.digest == digest)))
    }

    /// All runs by their experiments, as they are now: each is read once, however many are looked for.
    ///
    /// # Errors
    /// If the folder of runs cannot be read.
    pub fn index(&self) -> Result<RunIndex> {
        let mut index = RunIndex { runs: HashMap::new(), damaged: Vec::new() };
        for run in self.list()? {
            match run.manifest() {
                Ok(manifest) => index.runs.entry(manifest.digest).or_default().push(run),
                Err(error) => index.damaged.push((run.name(), error)),
            }
        }
        Ok(index)
    }

    /// The runs that are [siblings](Manifest::is_sibling) of this experiment's, by the names of their folders.
    ///
    /// # Errors
    /// If the folder of runs cannot be read.
    pub fn siblings(&self, identity: &Identity) -> Result<Vec<(Run, Manifest)>> {
        // A damaged run, or one of a newer layout, is nobody's sibling.
        let all = self.list()?.into_iter().filter_map(|run| run.manifest().ok().map(|manifest| (run, manifest)));
        Ok(all.filter(|(_, manifest)| manifest.is_sibling(identity)).collect())
    }

    /// The run of this experiment, or a new one; and whether it is new. Of processes that ask at once, one makes it.
    ///
    /// # Errors
    /// As [`find`](Self::find) and [`create`](Self::create).
    pub fn find_or_create(&self, identity: &Identity) -> Result<(Run, bool)> {
        match self.create(identity, false) {
            Ok(run) => Ok((run, true)),
            // Somebody was faster, this moment or long ago.
            Err(error) => self.find(identity)?.map(|run| (run, false)).ok_or(error),
        }
    }

    /// A new folder for this experiment: `NAME-DIGEST`, or with `-2`, `-3`, … behind it. What exists is never touched.
    ///
    /// # Errors
    /// If the experiment has a run already and this is not to be done `again`; if the folder cannot be written.
    pub fn create(&self, identity: &Identity, again: bool) -> Result<Run> {
        let refuse_twin = || match if again { None } else { self.find(identity)? } {
            None => Ok(()),
            Some(run) => {
                let message = "this experiment has a run already; repeat it in a new folder with `--again`";
                Err(Error::new(message).in_file(run.path()))
            }
        };
        refuse_twin()?;
        fs::create_dir_all(&self.root).map_err(|e| Error::io(&self.root, "create the folder of runs", &e))?;
        let first = identity.folder();
        let mut folder = first.clone();
        for number in 2_u64.. {
            match Run::create(&self.root.join(&folder), identity)? {
                Some(run) => return Ok(run),
                None => folder = format!("{first}-{number}"),
            }
            // It may be another process that was faster.
            refuse_twin()?;
        }
        unreachable!("there are fewer folders than numbers")
    }

    /// A new run in a folder that the user named.
    ///
    /// # Errors
    /// If something is there already; it is left as it was. If the folder cannot be written.
    pub fn create_at(path: impl Into<PathBuf>, identity: &Identity) -> Result<Run> {
        let path = path.into();
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(|e| Error::io(parent, "create the folder", &e))?;
        }
        Run::create(&path, identity)?.ok_or_else(|| {
            Error::new("is taken, and nothing is overwritten: name a folder that does not exist").in_file(path)
        })
    }

    /// All runs, by the names of their folders; repetitions by number.
    ///
    /// # Errors
    /// If the folder of runs exists and cannot be read.
    pub fn list(&self) -> Result<Vec<Run>> {
        let paths = self.names()?.into_iter().map(|name| self.root.join(name));
        Ok(paths.filter(|path| Run::is_at(path)).map(Run::at).collect())
    }

    /// The names of all that lies in the folder, in the order of [`list`](Self::list).
    fn names(&self) -> Result<Vec<OsString>> {
        let failed = |e: io::Error| Error::io(&self.root, "read the folder of runs", &e);
        let entries = match fs::read_dir(&self.root) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(failed)?,
        };
        let mut names = Vec::new();
        for entry in entries {
            names.push(entry.map_err(failed)?.file_name());
        }
        names.sort_by_cached_key(|name| order(&name.to_string_lossy()));
        Ok(names)
    }
}

/// All runs of a folder by their experiments: see [`Runs::index`].
#[derive(Debug)]
pub struct RunIndex {
    /// By their digests; of one experiment in the order of [`Runs::list`].
    runs: HashMap<String, Vec<Run>>,
    /// The names of those that cannot be read, and why.
    damaged: Vec<(String, Error)>,
}

impl RunIndex {
    /// As [`Runs::find`], of the runs as they were when they were read.
    ///
    /// # Errors
    /// If a run in the experiment's own folder could not be read, unless there is a later repetition.
    pub fn find(&self, identity: &Identity) -> Result<Option<Run>> {
        let folder = identity.folder();
        let found = self.runs.get(&identity.digest()).map_or(&[][..], Vec::as_slice);
        let is_own = |run: &&Run| run.name().starts_with(&folder);
        let (own, any) = (found.iter().rfind(is_own), found.last());
        let damaged = self.damaged.iter().rfind(|(name, _)| name.starts_with(&folder));
        match (own, damaged) {
            (own, Some((name, error))) if own.is_none_or(|run| order(&run.name()) < order(name)) => Err(error.clone()),
            (own, _) => Ok(own.or(any).cloned()),
        }
    }
}

/// Sorts `a`, `a-2`, `a-10` in this order: the name up to a number at its end, then the number.
fn order(name: &str) -> (String, u64) {
    let numbered = name.rsplit_once('-').and_then(|(stem, number)| Some((stem.to_string(), number.parse().ok()?)));
    numbered.unwrap_or((name.to_string(), 0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{identity, manifests_read};

    fn names(runs: &[Run]) -> Vec<String> {
        runs.iter().map(Run::name).collect()
    }

    #[test]
    fn an_experiment_is_found_again_and_repeated_only_when_asked() {
        let folder = tempfile::tempdir().unwrap();
        let (runs, one) = (Runs::new(folder.path().join("new/runs")), identity("one"));
        assert_eq!(runs.find(&one).unwrap(), None);
        let first = runs.create(&one, false).unwrap();
        assert_eq!(first.name(), format!("one-{}", &one.digest()[..8]));
        assert_eq!(runs.find(&one).unwrap(), Some(first.clone()));

        let error = runs.create(&one, false).unwrap_err().to_string();
        assert!(error.contains("has a run already") && error.contains("--again"), "{error}");
        for number in 2..=11 {
            let again = runs.create(&one, true).unwrap();
            assert_eq!(again.name(), format!("{}-{number}", first.name()));
            assert_eq!(runs.find(&one).unwrap(), Some(again));
        }

        let mut other = identity("one");
        other.threads = 1;
        assert_eq!(runs.find(&other).unwrap(), None);
        runs.create(&other, false).unwrap();
        assert_eq!(runs.list().unwrap().len(), 12);
    }

    #[test]
    fn a_new_run_has_its_settings_and_an_open_record() {
        let folder = tempfile::tempdir().unwrap();
        let one = identity("one");
        let run = Runs::new(folder.path()).create(&one, false).unwrap();
        assert_eq!(serde_json::to_value(run.config().unwrap()).unwrap(), one.config);
        assert_eq!(run.manifest().unwrap().status, crate::Status::Running);
        assert!(run.checkpoints_path().is_dir());
        let mut files: Vec<_> = fs::read_dir(run.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        files.sort();
        assert_eq!(files, ["checkpoints", "config.toml", "manifest.json"]);
    }

    #[test]
    fn of_many_that_begin_one_experiment_at_once_one_makes_its_folder() {
        let folder = tempfile::tempdir().unwrap();
        let (runs, one) = (Runs::new(folder.path()), identity("one"));
        let found: Vec<(Run, bool)> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(|| runs.find_or_create(&one).unwrap())).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(found.iter().all(|(run, _)| run.name() == one.folder()), "{found:?}");
        assert_eq!(found.iter().filter(|(_, is_new)| *is_new).count(), 1);
        assert_eq!(runs.list().unwrap().len(), 1);
    }

    #[test]
    fn what_lies_in_the_way_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let (runs, one) = (Runs::new(folder.path()), identity("one"));
        // An empty folder, and a file.
        fs::create_dir(folder.path().join(one.folder())).unwrap();
        fs::write(folder.path().join(format!("{}-2", one.folder())), "mine").unwrap();
        assert_eq!(runs.create(&one, false).unwrap().name(), format!("{}-3", one.folder()));
        assert_eq!(fs::read(folder.path().join(format!("{}-2", one.folder()))).unwrap(), b"mine");
        assert_eq!(fs::read_dir(folder.path().join(one.folder())).unwrap().count(), 0);
    }

    #[test]
    fn what_a_killed_creation_left_is_no_run_and_no_obstacle() {
        let folder = tempfile::tempdir().unwrap();
        let (runs, one) = (Runs::new(folder.path()), identity("one"));
        let unborn = folder.path().join(format!(".new-run-{}", std::process::id()));
        fs::rename(runs.create(&one, false).unwrap().path(), &unborn).unwrap();
        assert!(runs.list().unwrap().is_empty());
        assert_eq!(runs.create(&one, false).unwrap().name(), one.folder());
        assert!(unborn.is_dir(), "it may be another process at work");
    }

    #[test]
    fn looking_for_many_reads_each_once_and_for_one_its_own_folder_alone() {
        const MANY: u64 = 40;
        let folder = tempfile::tempdir().unwrap();
        let runs = Runs::new(folder.path());
        let cell = |seed: u64| {
            let mut cell = identity("cell");
            cell.config["seed"] = seed.into();
            cell
        };
        let all: Vec<Run> = (0..MANY)
            .map(|seed| Runs::create_at(runs.root().join(cell(seed).folder()), &cell(seed)).unwrap())
            .collect();
        let reads = |look: &dyn Fn()| {
            let before = manifests_read();
            look();
            manifests_read() - before
        };
        let with_an_index = reads(&|| {
            let index = runs.index().unwrap();
            // Half of them are not there yet.
            for seed in 0..2 * MANY {
                assert_eq!(index.find(&cell(seed)).unwrap().as_ref(), all.get(seed as usize));
            }
        });
        assert_eq!(with_an_index, MANY as usize);
        assert_eq!(reads(&|| assert_eq!(runs.find(&cell(7)).unwrap().as_ref(), Some(&all[7]))), 1);
        // One in a folder of another name is found all the same.
        fs::rename(all[7].path(), folder.path().join("mine")).unwrap();
        for found in [runs.find(&cell(7)), runs.index().unwrap().find(&cell(7))] {
            assert_eq!(found.unwrap().unwrap().name(), "mine");
        }
    }

    #[test]
    fn an_index_finds_what_a_look_would_find() {
        let folder = tempfile::tempdir().unwrap();
        let (runs, one) = (Runs::new(folder.path()), identity("one"));
        let same = |expected: Result<Option<&str>, &str>| {
            let told = |found: Result<Option<Run>>| match found {
                Ok(run) => Ok(run.map(|run| run.name())),
                Err(error) => Err(error.to_string()),
            };
            let (look, index) = (told(runs.find(&one)), told(runs.index().unwrap().find(&one)));
            assert_eq!(look, index);
            match (expected, look) {
                (Ok(expected), found) => assert_eq!(found, Ok(expected.map(String::from))),
                (Err(part), found) => assert!(found.as_ref().is_err_and(|error| error.contains(part)), "{found:?}"),
            }
        };
        same(Ok(None));
        let name = one.folder();
        let first = runs.create(&one, false).unwrap();
        let mine = Runs::create_at(folder.path().join("zzz"), &one).unwrap();
        same(Ok(Some(&name)));
        let second = runs.create(&one, true).unwrap();
        same(Ok(Some(&format!("{name}-2"))));
        fs::write(first.manifest_path(), "{").unwrap();
        same(Ok(Some(&format!("{name}-2"))));
        fs::write(second.manifest_path(), "{").unwrap();
        same(Err("manifest.json: is damaged"));
        fs::remove_dir_all(first.path()).unwrap();
        fs::remove_dir_all(second.path()).unwrap();
        same(Ok(Some("zzz")));
        fs::write(mine.manifest_path(), "{").unwrap();
        same(Ok(None));
    }

    #[test]
    fn runs_on_other_threads_and_of_other_versions_are_siblings() {
        let folder = tempfile::tempdir().unwrap();
        let (runs, one) = (Runs::new(folder.path()), identity("one"));
        let on = |threads| Identity { threads, ..one.clone() };
        let siblings = |of: &Identity| -> Vec<_> {
            runs.siblings(of).unwrap().into_iter().map(|(_, manifest)| (manifest.threads, manifest.version)).collect()
        };
        let version = |version: &str| version.to_owned();
        assert_eq!(siblings(&one), []);
        runs.create(&on(7), false).unwrap();
        assert_eq!(siblings(&on(5)), [(7, version("0.1.0"))]);
        assert_eq!(siblings(&on(7)), [], "that is the run itself");
        let newer = Identity { version: version("9.9.9"), ..on(3) };
        runs.create(&newer, false).unwrap();
        let mut both = siblings(&on(5));
        both.sort();
        assert_eq!(both, [(3, version("9.9.9")), (7, version("0.1.0"))]);
        let mut other = on(5);
        other.config["seed"] = 18.into();
        assert_eq!(siblings(&other), []);
    }

    #[test]
    fn a_damaged_neighbour_is_no_obstacle_but_a_damaged_twin_is() {
        let folder = tempfile::tempdir().unwrap();
        let (runs, one) = (Runs::new(folder.path()), identity("one"));
        let neighbour = runs.create(&identity("zero"), false).unwrap();
        fs::write(neighbour.manifest_path(), "{").unwrap();
        assert_eq!(runs.find(&one).unwrap(), None);
        let run = runs.create(&one, false).unwrap();
        assert_eq!(runs.find(&one).unwrap(), Some(run.clone()));
        fs::write(run.manifest_path(), "{").unwrap();
        assert!(runs.find(&one).unwrap_err().to_string().contains("manifest.json: is damaged"));
        assert_eq!(runs.create(&one, true).unwrap().name(), format!("{}-2", one.folder()), "nor is it to a repetition");
    }

    #[test]
    fn a_folder_named_by_the_user_must_be_free() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/mine");
        let run = Runs::create_at(&path, &identity("one")).unwrap();
        assert_eq!(run.path(), path);
        let before = fs::read(run.manifest_path()).unwrap();
        let error = Runs::create_at(&path, &identity("two")).unwrap_err().to_string();
        assert!(error.ends_with("mine: is taken, and nothing is overwritten: name a folder that does not exist"));
        assert_eq!(fs::read(run.manifest_path()).unwrap(), before);
    }

    #[test]
    fn a_run_that_cannot_be_furnished_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let mut one = identity("one");
        one.config["seed"] = u64::MAX.into();
        assert!(Runs::new(folder.path()).create(&one, false).is_err());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn many_creators_at_once_share_no_folder() {
        let folder = tempfile::tempdir().unwrap();
        let (runs, one) = (Runs::new(folder.path()), identity("one"));
        let mut made: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(|| runs.create(&one, true).unwrap())).collect();
            threads.into_iter().map(|t| t.join().unwrap().name()).collect()
        });
        made.sort_by_key(|name| order(name));
        let expected: Vec<_> =
            (1..=8).map(|n| if n == 1 { one.folder() } else { format!("{}-{n}", one.folder()) }).collect();
        assert_eq!(made, expected);
        assert_eq!(names(&runs.list().unwrap()), expected);
    }
}
