//! The same runs as a Slurm job array.

use std::path::{Path, PathBuf};
use std::process::Command;

use antiphon_core::{Error, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::disk::write_atomically;
use crate::words::{command_line, shell};

/// What each run gets from Slurm, and where.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SlurmConfig {
    /// The partition. If unset: the cluster's default.
    pub partition: Option<String>,
    /// The longest time of a run, as `sbatch --time` has it: `"2:00:00"`. A minute before its end the run saves itself.
    #[schemars(example = &"2:00:00")]
    pub time: Option<String>,
    /// The memory of a run, as `sbatch --mem` has it: `"4G"`.
    #[schemars(example = &"4G")]
    pub memory: Option<String>,
    /// The cores of a run, and its threads unless `threads` is set. If unset: 1.
    #[schemars(range(min = 1))]
    pub cpus: Option<usize>,
    /// More options of `sbatch`, a line each: `["--account=speech", "--nice=100"]`.
    pub options: Vec<String>,
    /// Lines of bash before a run begins: `["module load gcc"]`.
    pub before: Vec<String>,
}

impl SlurmConfig {
    /// The cores of a run.
    pub fn cores(&self) -> usize {
        self.cpus.unwrap_or(1)
    }
}

/// A job array: the same command for each of some runs.
#[derive(Debug)]
pub(super) struct Array<'a> {
    pub(super) config: &'a SlurmConfig,
    /// What Slurm calls it.
    pub(super) name: &'a str,
    /// The folder of the sweep, absolute.
    pub(super) folder: &'a Path,
    /// From where the command is given.
    pub(super) working_folder: &'a Path,
    /// The program, absolute.
    pub(super) program: &'a Path,
    /// The names of the runs.
    pub(super) runs: &'a [String],
    /// The arguments of the program before the run's config, and behind it.
    pub(super) words: (&'a [String], &'a [String]),
    /// How many at a time; if not given, as many as the cluster has room for.
    pub(super) at_once: Option<usize>,
}

impl Array<'_> {
    /// The script that `sbatch` gets.
    pub(super) fn script(&self) -> String {
        let Self { config, name, folder, working_folder, program, runs, at_once, words: (first, last) } = self;
        let limit = at_once.map_or(String::new(), |n| format!("%{n}"));
        let mut options = vec![
            format!("--job-name={name}"),
            format!("--array=0-{}{limit}", runs.len() - 1),
            "--ntasks=1".into(),
            format!("--cpus-per-task={}", config.cores()),
            format!("--output={}", shell(folder.join("logs/slurm-%A_%a.log"))),
            "--signal=B:TERM@60".into(),
            "--no-requeue".into(),
        ];
        let named = [("partition", &config.partition), ("time", &config.time), ("mem", &config.memory)];
        options.extend(named.into_iter().filter_map(|(key, value)| Some(format!("--{key}={}", value.as_ref()?))));
        options.extend(config.options.iter().cloned());
        let options: String = options.iter().map(|option| format!("#SBATCH {option}\n")).collect();
        let before: String = config.before.iter().map(|line| format!("{line}\n")).collect();
        let names: String = runs.iter().map(|name| format!("  {}\n", shell(name))).collect();
        let (first, last) = (command_line(*first), command_line(*last));
        format!(
            "#!/bin/bash\n{options}\n\
             # Written by `antiphon sweep`, which writes it anew for each submission.\n\
             runs=(\n{names})\n\
             run=${{runs[$SLURM_ARRAY_TASK_ID]}}\n\
             folder={folder}\n\
             cd {working} || exit 1\n\
             {before}# A cell is what its file says: `sbatch` hands the variables that change settings on.\n\
             unset \"${{!ANTIPHON__@}}\"\n\
             rm -f \"$folder/logs/$run.exit\"\n\
             {program} {first} \"$folder/cells/$run.toml\" {last} >>\"$folder/logs/$run.log\" 2>&1 &\n\
             child=$!\n\
             # Slurm tells this script that time is up; the run then saves itself.\n\
             trap 'told=1; kill -TERM \"$child\"' TERM\n\
             wait \"$child\"\n\
             code=$?\n\
             # A wait that the signal ended says nothing of the run.\n\
             if [ -n \"${{told-}}\" ]; then\n  wait \"$child\"\n  code=$?\nfi\n\
             echo \"$code\" >\"$folder/logs/$run.exit\"\n\
             exit \"$code\"\n",
            folder = shell(folder),
            working = shell(working_folder),
            program = shell(program),
        )
    }

    /// Writes the script into the sweep's folder and submits it; gives the job's number.
    pub(super) fn submit(&self) -> Result<String> {
        let script = self.folder.join("slurm.sh");
        write_atomically(&script, self.script().as_bytes())?;
        let said = call(Command::new("sbatch").arg("--parsable").arg(&script))?.answer()?;
        let job = said.trim().split(';').next().unwrap_or_default().to_owned();
        write_atomically(job_file(self.folder), format!("{job}\n").as_bytes())?;
        Ok(job)
    }
}

/// The job that is still waiting or at work for the sweep in `folder`.
///
/// # Errors
/// If Slurm does not say: the runs of a job that still waits must not be submitted once more.
pub(super) fn job_at_work(folder: &Path) -> Result<Option<String>> {
    let Ok(job) = std::fs::read_to_string(job_file(folder)) else { return Ok(None) };
    let job = job.trim().to_owned();
    let said = call(Command::new("squeue").args(["--noheader", "--jobs", &job]))?;
    Ok(said.lists_a_job()?.then_some(job))
}

fn job_file(folder: &Path) -> PathBuf {
    folder.join("slurm.job")
}

/// What a command of Slurm said.
struct Said {
    command: String,
    succeeded: bool,
    output: String,
    complaint: String,
}

impl Said {
    /// Its output, if it succeeded.
    fn answer(self) -> Result<String> {
        let Self { command, succeeded, output, complaint } = self;
        if succeeded { Ok(output) } else { Err(Error::new(format!("`{command}` failed: {}", complaint.trim()))) }
    }

    /// Of `squeue`, asked for one job: whether it is still there.
    fn lists_a_job(self) -> Result<bool> {
        // So it calls a job that is long over.
        if !self.succeeded && self.complaint.contains("Invalid job id") {
            return Ok(false);
        }
        Ok(!self.answer()?.trim().is_empty())
    }
}

fn call(command: &mut Command) -> Result<Said> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => {
            Error::new(format!("there is no `{name}` here: give the command where Slurm is, or use `--launcher local`"))
        }
        _ => Error::new(format!("cannot start `{name}`: {e}")),
    })?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok(Said {
        command: name,
        succeeded: output.status.success(),
        output: text(&output.stdout),
        complaint: text(&output.stderr),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_script_is_that_of_the_golden_file() {
        let config = SlurmConfig {
            partition: Some("long".into()),
            time: Some("2:00:00".into()),
            memory: Some("4G".into()),
            cpus: Some(4),
            options: vec!["--account=speech".into()],
            before: vec!["module load gcc".into()],
        };
        let runs = ["01-seed-1", "01-seed-2", "02-seed-1"].map(String::from);
        let array = Array {
            config: &config,
            name: "g2p-sweep",
            folder: Path::new("/home/a user/runs/sweeps/g2p-sweep-0123abcd"),
            working_folder: Path::new("/home/a user"),
            program: Path::new("/home/a user/target/debug/antiphon"),
            runs: &runs,
            words: (&["run".into()], &["--no-test".into(), "--runs-dir".into(), "my runs".into()]),
            at_once: Some(2),
        };
        let golden = include_str!("../../tests/golden/slurm.sh");
        assert!(array.script() == golden, "the script is now\n{}", array.script());
    }

    #[cfg(unix)]
    #[test]
    fn what_a_command_says_is_understood() {
        let said = |script: &str| call(Command::new("sh").args(["-c", script])).unwrap();
        assert_eq!(said("echo 7").answer(), Ok("7\n".into()));
        let refused = || said("echo listed; echo 'no such partition ' >&2; exit 1");
        let error = Err(Error::new("`sh` failed: no such partition"));
        assert_eq!(refused().answer(), error);
        assert_eq!(refused().lists_a_job().map(|_| String::new()), error);
        assert_eq!(said("echo 7 long PENDING").lists_a_job(), Ok(true));
        assert_eq!(said("true").lists_a_job(), Ok(false));
        assert_eq!(said("echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1").lists_a_job(), Ok(false));
        let missing = call(&mut Command::new("no-such-sbatch")).err().unwrap().to_string();
        assert!(missing.starts_with("there is no `no-such-sbatch` here"), "{missing}");
    }

    #[test]
    fn without_settings_there_are_no_options_for_them() {
        let array = Array {
            config: &SlurmConfig::default(),
            name: "a",
            folder: Path::new("/s"),
            working_folder: Path::new("/"),
            program: Path::new("/antiphon"),
            runs: &["1-seed-1".into()],
            words: (&["run".into()], &[]),
            at_once: None,
        };
        let script = array.script();
        assert!(script.contains("--array=0-0\n") && script.contains("--cpus-per-task=1\n"), "{script}");
        for option in ["--partition", "--time", "--mem"] {
            assert!(!script.contains(option), "{script}");
        }
    }
}
