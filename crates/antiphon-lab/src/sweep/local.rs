//! Runs as child processes of this one, a few at a time.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use antiphon_core::{Error, Result};

use crate::disk::write_atomically;

/// How often is looked whether a child has ended.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// A child process to be.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Job<T> {
    /// What it is about.
    pub(super) what: T,
    /// The program's arguments.
    pub(super) words: Vec<OsString>,
    /// Where its output goes, behind what is there.
    pub(super) log: PathBuf,
    /// Where its exit code goes.
    pub(super) exit: PathBuf,
}

/// The pool.
pub(super) struct Pool<'a> {
    /// The program.
    pub(super) program: PathBuf,
    /// How many children at a time.
    pub(super) jobs: usize,
    /// Once true, the children are asked to end in good order, and no others begin.
    pub(super) stop: &'a AtomicBool,
}

/// Who hands out the jobs and hears of their ends.
pub(super) trait Work {
    /// What a job is about.
    type What;
    /// The next job; `None` if there is none before another one ends.
    fn next(&mut self) -> Result<Option<Job<Self::What>>>;
    /// A job has ended, with this exit code (128 and its number for a signal).
    fn ended(&mut self, what: Self::What, code: i32) -> Result<()>;
    /// Called now and then, with how many are at work.
    fn look(&mut self, at_work: usize);
}

/// Set for a run that is to stop in good order when its standard input ends.
pub const LIFELINE: &str = "ANTIPHON_LIFELINE";

impl Pool<'_> {
    /// Performs all jobs; false if it was stopped before the end.
    pub(super) fn perform<W: Work>(&self, work: &mut W) -> Result<bool> {
        let mut children: Vec<(Child, Job<W::What>)> = Vec::new();
        let done = self.drive(work, &mut children);
        if done.is_err() {
            // Whatever went wrong here, no child is left alone.
            children.iter_mut().for_each(|(child, _)| ask_to_end(child));
            children.iter_mut().for_each(|(child, _)| drop(child.wait()));
        }
        done
    }

    fn drive<W: Work>(&self, work: &mut W, children: &mut Vec<(Child, Job<W::What>)>) -> Result<bool> {
        let mut asked = false;
        loop {
            let stopping = self.stop.load(Ordering::Relaxed);
            if stopping && !asked {
                children.iter_mut().for_each(|(child, _)| ask_to_end(child));
                asked = true;
            }
            while !stopping && children.len() < self.jobs {
                let Some(job) = work.next()? else { break };
                let child = self.start(&job)?;
                children.push((child, job));
            }
            if children.is_empty() {
                return Ok(!stopping);
            }
            work.look(children.len());
            std::thread::sleep(LOOK_EVERY);
            let mut i = 0;
            while i < children.len() {
                let status = children[i].0.try_wait().map_err(|e| Error::new(format!("cannot wait for a run: {e}")))?;
                match status {
                    None => i += 1,
                    Some(status) => {
                        let (_, job) = children.remove(i);
                        let code = code(status);
                        write_atomically(&job.exit, format!("{code}\n").as_bytes())?;
                        work.ended(job.what, code)?;
                    }
                }
            }
        }
    }

    fn start<T>(&self, job: &Job<T>) -> Result<Child> {
        // A sweep that dies now must not take the exit code of an earlier process for that of this one.
        let _ = fs::remove_file(&job.exit);
        let log = OpenOptions::new().create(true).append(true).open(&job.log);
        let log: File = log.map_err(|e| Error::io(&job.log, "open", &e))?;
        let also = log.try_clone().map_err(|e| Error::io(&job.log, "open", &e))?;
        let mut command = Command::new(&self.program);
        // The pipe ends with this process, however it ends.
        command.args(&job.words).env(LIFELINE, "1").stdin(Stdio::piped()).stdout(log).stderr(also);
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("ANTIPHON__")) {
            // The settings of the environment stand in the run's config already, below those of the sweep.
            command.env_remove(name);
        }
        // A group of its own: Ctrl-C reaches this process alone, which passes it on once.
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        command.spawn().map_err(|e| Error::io(&self.program, "start", &e))
    }
}

/// Calls a command on the terminal and waits for its exit code (128 and its number for a signal). Once `stop` is true, it is
/// asked to end in good order.
///
/// # Errors
/// If it cannot be started or waited for.
pub fn call(command: &mut Command, stop: &AtomicBool) -> Result<i32> {
    let program = PathBuf::from(command.get_program());
    #[cfg(unix)]
    std::os::unix::process::CommandExt::process_group(command, 0);
    let mut child = command.spawn().map_err(|e| Error::io(&program, "start", &e))?;
    let mut asked = false;
    loop {
        if stop.load(Ordering::Relaxed) && !asked {
            ask_to_end(&mut child);
            asked = true;
        }
        match child.try_wait().map_err(|e| Error::io(&program, "wait for", &e))? {
            Some(status) => return Ok(code(status)),
            None => std::thread::sleep(LOOK_EVERY),
        }
    }
}

/// Asks for an end in good order, with a checkpoint.
fn ask_to_end(child: &mut Child) {
    #[cfg(unix)]
    let _ = Command::new("kill").arg("-TERM").arg(child.id().to_string()).stderr(Stdio::null()).status();
    #[cfg(not(unix))]
    let _ = child.kill();
}

/// The exit code; behind a signal 128 and its number, as shells have it.
fn code(status: ExitStatus) -> i32 {
    #[cfg(unix)]
    let signal = std::os::unix::process::ExitStatusExt::signal(&status);
    #[cfg(not(unix))]
    let signal: Option<i32> = None;
    status.code().or(signal.map(|signal| 128 + signal)).unwrap_or(1)
}
