//! Runs as child processes of this one, a few at a time.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io;
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
///
/// That is a pipe from the process that started it, and ends with this process however it ends: nobody has to be told. It
/// serves where a signal at the parent's death would not: on every system, and with a checkpoint.
pub const LIFELINE: &str = "ANTIPHON_LIFELINE";

impl Pool<'_> {
    /// Performs all jobs; false if it was stopped before the end.
    pub(super) fn perform<W: Work>(&self, work: &mut W) -> Result<bool> {
        let mut children: Vec<(Child, Job<W::What>)> = Vec::new();
        let done = self.drive(work, &mut children);
        if done.is_err() {
            // Whatever went wrong here, no child is left alone.
            children.iter_mut().for_each(|(child, _)| make_end(child));
            children.iter_mut().for_each(|(child, _)| drop(child.wait()));
        }
        done
    }

    fn drive<W: Work>(&self, work: &mut W, children: &mut Vec<(Child, Job<W::What>)>) -> Result<bool> {
        let mut asked = false;
        loop {
            let stopping = self.stop.load(Ordering::Relaxed);
            if stopping && !asked {
                for (child, job) in children.iter_mut() {
                    ask_to_end(child).map_err(|e| Error::io(&job.log, "stop the run of this log", &e))?;
                }
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
        command.args(&job.words).stdout(log).stderr(also);
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("ANTIPHON__")) {
            // The settings of the environment stand in the run's config already, below those of the sweep.
            command.env_remove(name);
        }
        spawn(&mut command)
    }
}

/// Starts a run that does not outlive this process.
fn spawn(command: &mut Command) -> Result<Child> {
    command.env(LIFELINE, "1").stdin(Stdio::piped());
    // A group of its own: Ctrl-C reaches this process alone, which passes it on once.
    #[cfg(unix)]
    std::os::unix::process::CommandExt::process_group(command, 0);
    command.spawn().map_err(|e| Error::io(command.get_program(), "start", &e))
}

/// Calls a run on the terminal and waits for its exit code (128 and its number for a signal). Once `stop` is true, it is asked
/// to end in good order. It ends so too when this process is killed: it gets a [`LIFELINE`].
///
/// # Errors
/// If it cannot be started, asked or waited for.
pub fn call(command: &mut Command, stop: &AtomicBool) -> Result<i32> {
    let mut child = spawn(command)?;
    let done = wait(&mut child, stop).map_err(|(action, e)| Error::io(command.get_program(), action, &e));
    if done.is_err() {
        make_end(&mut child);
        let _ = child.wait();
    }
    done
}

/// Waits for a child; an error comes with what could not be done.
fn wait(child: &mut Child, stop: &AtomicBool) -> Result<i32, (&'static str, io::Error)> {
    let mut asked = false;
    loop {
        if stop.load(Ordering::Relaxed) && !asked {
            ask_to_end(child).map_err(|e| ("stop", e))?;
            asked = true;
        }
        match child.try_wait().map_err(|e| ("wait for", e))? {
            Some(status) => return Ok(code(status)),
            None => std::thread::sleep(LOOK_EVERY),
        }
    }
}

/// Asks for an end in good order, with a checkpoint.
fn ask_to_end(child: &mut Child) -> io::Result<()> {
    // Nobody else can have its number: it is not waited for yet.
    #[cfg(unix)]
    rustix::process::kill_process(rustix::process::Pid::from_child(child), rustix::process::Signal::TERM)?;
    #[cfg(not(unix))]
    child.kill()?;
    Ok(())
}

/// Ends a child, in good order if it can be asked.
fn make_end(child: &mut Child) {
    if ask_to_end(child).is_err() {
        let _ = child.kill();
    }
}

/// The exit code; behind a signal 128 and its number, as shells have it.
fn code(status: ExitStatus) -> i32 {
    #[cfg(unix)]
    let signal = std::os::unix::process::ExitStatusExt::signal(&status);
    #[cfg(not(unix))]
    let signal: Option<i32> = None;
    status.code().or(signal.map(|signal| 128 + signal)).unwrap_or(1)
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use std::time::Instant;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn a_call_is_stopped_in_good_order() {
        // The shell answers a signal only between commands.
        let script = "trap 'exit 7' TERM; while :; do sleep 0.01; done";
        let stop = AtomicBool::new(false);
        let began = Instant::now();
        let code = std::thread::scope(|scope| {
            let called = scope.spawn(|| call(&mut shell(script), &stop));
            std::thread::sleep(Duration::from_millis(300));
            stop.store(true, Ordering::Relaxed);
            called.join().unwrap()
        });
        assert_eq!(code, Ok(7));
        assert!(began.elapsed() < Duration::from_secs(30));
    }

    #[test]
    fn a_child_that_cannot_be_asked_is_told() {
        let mut child = shell("exit 3").spawn().unwrap();
        assert_eq!(code(child.wait().unwrap()), 3);
        // It is gone, and so is its number.
        assert!(ask_to_end(&mut child).is_err());
    }

    #[test]
    fn a_call_has_a_lifeline_and_gives_the_exit_code() {
        let stop = AtomicBool::new(false);
        assert_eq!(
            call(&mut shell(&format!("test \"${LIFELINE}\" = 1 && test -p /dev/stdin && exit 5")), &stop),
            Ok(5)
        );
        assert_eq!(call(&mut shell("kill -TERM $$"), &stop), Ok(143));
        let error = call(&mut Command::new("/nowhere/antiphon"), &stop).unwrap_err().to_string();
        assert!(error.starts_with("/nowhere/antiphon: cannot start: "), "{error}");
    }
}
