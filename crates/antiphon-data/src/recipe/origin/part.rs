//! A file that is arriving: `NAME.part`, and beside it `NAME.part.json` with where it comes from.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use antiphon_core::{Error, Result};
use serde::{Deserialize, Serialize};

/// A file that is arriving. No other process can open it meanwhile.
pub(super) struct Part {
    path: PathBuf,
    file: File,
    length: u64,
    sender: Option<Sender>,
    /// Whether some of it arrived in an earlier transfer.
    joined: bool,
}

/// Where a part comes from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Sender {
    pub(super) url: String,
    /// The strong `ETag` or the `Last-Modified` of what is sent: if the server still has it, the rest fits.
    pub(super) validator: Option<String>,
    /// Bytes in all, if the server says so.
    pub(super) total: Option<u64>,
}

/// How to go on with a part.
#[derive(Debug, PartialEq)]
pub(super) enum Rest {
    /// From the first byte.
    All,
    /// From the end of the part. If a validator is given, only if it still holds.
    From(u64, Option<String>),
    /// Nothing is missing.
    Nothing,
}

impl Part {
    /// The part of `target`, as far as it has come; otherwise an empty one.
    pub(super) fn open(target: &Path) -> Result<Self> {
        let path = with_ending(target, ".part");
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(|e| Error::io(folder, "make the folder", &e))?;
        }
        let open = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        let mut file = open.map_err(|e| Error::io(&path, "open", &e))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let message = "another process is fetching this: wait until it is done";
                return Err(Error::new(message).in_file(path));
            }
            Err(TryLockError::Error(e)) => return Err(Error::io(&path, "lock", &e)),
        }
        let length = file.seek(SeekFrom::End(0)).map_err(|e| Error::io(&path, "read", &e))?;
        // A record that is missing or damaged only means that the transfer begins anew.
        let sender = std::fs::read(with_ending(&path, ".json")).ok();
        let sender = sender.and_then(|json| serde_json::from_slice(&json).ok());
        Ok(Self { path, file, length, sender, joined: length > 0 })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// Whether some of it arrived in an earlier transfer.
    pub(super) fn is_joined(&self) -> bool {
        self.joined
    }

    /// What to ask `url` for. `checked`: the whole will be held against its SHA-256, so that it may come from anywhere.
    pub(super) fn rest(&self, url: &str, checked: bool) -> Rest {
        let sender = self.sender.as_ref();
        let same = sender.filter(|sender| sender.url == url);
        let validator = same.and_then(|sender| sender.validator.clone());
        if self.length == 0 || !(checked || validator.is_some()) {
            Rest::All
        } else if sender.is_some_and(|sender| sender.total == Some(self.length)) {
            Rest::Nothing
        } else {
            Rest::From(self.length, validator)
        }
    }

    /// Begins anew, from this sender.
    pub(super) fn begin(&mut self, sender: Sender) -> Result<()> {
        self.empty()?;
        self.write_sender(sender)
    }

    /// The rest comes from this sender.
    pub(super) fn join(&mut self, sender: Sender) -> Result<()> {
        self.joined = true;
        self.write_sender(sender)
    }

    /// Throws away what has arrived.
    pub(super) fn empty(&mut self) -> Result<()> {
        let emptied = self.file.set_len(0).and_then(|()| self.file.seek(SeekFrom::Start(0)));
        emptied.map_err(|e| Error::io(&self.path, "write", &e))?;
        (self.length, self.joined, self.sender) = (0, false, None);
        Ok(())
    }

    pub(super) fn append(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).map_err(|e| Error::io(&self.path, "write", &e))?;
        self.length += bytes.len() as u64;
        Ok(())
    }

    /// Ends the work on it. What has arrived stays for the next attempt, if there is anything.
    pub(super) fn leave(self) {
        if self.length == 0 {
            self.remove();
        }
    }

    /// Removes it; it may have been moved away.
    pub(super) fn remove(self) {
        let record = with_ending(&self.path, ".json");
        // Closed first: some systems remove nothing that is open. What cannot be removed is found by the next attempt.
        drop(self.file);
        let _ = std::fs::remove_file(&self.path);
        let _ = std::fs::remove_file(record);
    }

    fn write_sender(&mut self, sender: Sender) -> Result<()> {
        let path = with_ending(&self.path, ".json");
        let json = serde_json::to_vec(&sender).expect("a sender is plain data");
        std::fs::write(&path, json).map_err(|e| Error::io(&path, "write", &e))?;
        self.sender = Some(sender);
        Ok(())
    }
}

fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}
