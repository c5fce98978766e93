//! Very many ids, one after the other: in memory, or in a temporary file where they are too many.

use std::fs::File;
use std::io::Write;
use std::ops::Range;

use antiphon_core::disk::Positioned;
use antiphon_core::{Error, Result, TokenId};

use crate::lines::lacks_room;

/// Ids that are written.
pub(super) struct Writer {
    width: usize,
    /// How many bytes stay in memory.
    memory: usize,
    count: u64,
    /// All of them, or those that the file lacks.
    bytes: Vec<u8>,
    file: Option<File>,
}

/// Ids that are read at places.
pub(super) struct Ids {
    /// Bytes an id takes, least significant first.
    width: usize,
    count: u64,
    held: Held,
}

enum Held {
    Memory(Vec<u8>),
    File(Positioned),
}

impl Writer {
    /// For ids below `vocabulary`, of which `memory` bytes stay in memory.
    pub(super) fn new(vocabulary: usize, memory: usize) -> Self {
        let width = if vocabulary <= 1 << 16 { 2 } else { 4 };
        Self { width, memory, count: 0, bytes: Vec::new(), file: None }
    }

    /// Appends ids.
    ///
    /// # Errors
    /// If there is no room for them.
    pub(super) fn write(&mut self, ids: &[TokenId]) -> Result<()> {
        // A line may be longer than what stays in memory.
        const PIECE: usize = 1 << 20;
        for ids in ids.chunks(PIECE) {
            for id in ids {
                self.bytes.extend_from_slice(&id.to_le_bytes()[..self.width]);
            }
            self.count += ids.len() as u64;
            if self.bytes.len() > self.memory {
                self.spill()?;
            }
        }
        Ok(())
    }

    /// Puts what is in memory into the file.
    fn spill(&mut self) -> Result<()> {
        let folder = std::env::temp_dir();
        let mut write = || {
            let file = match &mut self.file {
                Some(file) => file,
                none => none.insert(tempfile::tempfile_in(&folder)?),
            };
            file.write_all(&self.bytes)
        };
        write().map_err(|e| lacks_room("write the tokens", &folder, &e))?;
        self.bytes.clear();
        Ok(())
    }

    pub(super) fn finish(mut self) -> Result<Ids> {
        if self.file.is_some() {
            self.spill()?;
        }
        let held = match self.file {
            Some(file) => Held::File(Positioned::new(file)),
            None => Held::Memory(self.bytes),
        };
        Ok(Ids { width: self.width, count: self.count, held })
    }
}

impl Ids {
    /// How many.
    pub(super) fn len(&self) -> u64 {
        self.count
    }

    /// Those of some places.
    ///
    /// # Errors
    /// If the file cannot be read.
    ///
    /// # Panics
    /// If a place is beyond the end.
    pub(super) fn read(&self, places: Range<u64>) -> Result<Vec<TokenId>> {
        assert!(places.start <= places.end && places.end <= self.count, "{places:?} of {} ids", self.count);
        let (start, end) = (places.start * self.width as u64, places.end * self.width as u64);
        let of = |bytes: &[u8]| {
            let id = |id: &[u8]| id.iter().rev().fold(0, |id, &byte| id << 8 | TokenId::from(byte));
            bytes.chunks_exact(self.width).map(id).collect()
        };
        match &self.held {
            Held::Memory(bytes) => Ok(of(&bytes[start as usize..end as usize])),
            Held::File(file) => {
                let mut bytes = vec![0; (end - start) as usize];
                file.read_exact_at(&mut bytes, start)
                    .map_err(|e| Error::new(format!("cannot read the temporary file of the tokens: {e}")))?;
                Ok(of(&bytes))
            }
        }
    }
}
