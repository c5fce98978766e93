//! Progress, a JSON line at a time: `metrics.jsonl`.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use antiphon_core::{Error, Place, Result};
use serde::Serialize;
use serde_json::Value;

use crate::disk::write_atomically;

/// A file of JSON objects, one a line, appended as training reports. A crash can tear the last line only.
#[derive(Debug)]
pub struct MetricsLog {
    path: PathBuf,
    file: File,
}

impl MetricsLog {
    /// Opens the log for appending, creating it where missing. A torn last line is dropped.
    ///
    /// # Errors
    /// If the file cannot be opened, or a line before the last is not a JSON object.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self> {
        let path = path.into();
        keep(&path, |_| true)?;
        let file = append_to(&path)?;
        Ok(Self { path, file })
    }

    /// Appends one record, which must serialize to a JSON object. Numbers that are not finite become `null`.
    ///
    /// # Errors
    /// If the record cannot be written.
    pub fn append(&mut self, record: &impl Serialize) -> Result<()> {
        let line = serde_json::to_value(record).map_err(|e| Error::new(e.to_string()).in_file(&self.path))?;
        assert!(line.is_object(), "a record is an object");
        // One call, so that a crash tears one line at most.
        self.file.write_all(format!("{line}\n").as_bytes()).map_err(|e| Error::io(&self.path, "append", &e))
    }

    /// Makes what was appended last, whatever happens to the machine.
    ///
    /// # Errors
    /// If the disk does not take it.
    pub fn sync(&mut self) -> Result<()> {
        self.file.sync_all().map_err(|e| Error::io(&self.path, "flush", &e))
    }

    /// Keeps the records that `wanted` names and drops the others; gives those that are kept. For resuming: what came after the
    /// checkpoint will come again.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn retain(&mut self, wanted: impl Fn(&Value) -> bool) -> Result<Vec<Value>> {
        let kept = keep(&self.path, wanted)?;
        self.file = append_to(&self.path)?;
        Ok(kept)
    }

    /// All whole records of the log at `path`; none if it is missing.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn read(path: impl AsRef<Path>) -> Result<Vec<Value>> {
        Ok(records(&read(path.as_ref())?, path.as_ref())?.into_iter().map(|(_, record)| record).collect())
    }
}

/// Which of the steps 1 to `last` have no record of the kind `step` among these: the holes of a log, in order.
pub fn lost_steps(records: &[Value], last: u64) -> Vec<RangeInclusive<u64>> {
    let logged = records.iter().filter(|record| record["kind"] == "step").filter_map(|record| record["step"].as_u64());
    let logged: BTreeSet<u64> = logged.filter(|step| (1..=last).contains(step)).collect();
    let mut lost = Vec::new();
    let mut expected = 1;
    for step in logged.into_iter().chain([last + 1]) {
        if step > expected {
            lost.push(expected..=step - 1);
        }
        expected = step + 1;
    }
    lost
}

/// Rewrites the log with the records that `wanted` keeps, if that changes anything; gives them.
fn keep(path: &Path, wanted: impl Fn(&Value) -> bool) -> Result<Vec<Value>> {
    let text = read(path)?;
    let mut records = records(&text, path)?;
    records.retain(|(_, record)| wanted(record));
    let kept: Vec<u8> = records.iter().flat_map(|(line, _)| [*line, b"\n"].concat()).collect();
    if kept != text {
        write_atomically(path, &kept)?;
    }
    Ok(records.into_iter().map(|(_, record)| record).collect())
}

/// The bytes of the log; none if it is missing.
fn read(path: &Path) -> Result<Vec<u8>> {
    match fs::read(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        read => read.map_err(|e| Error::io(path, "read", &e)),
    }
}

/// The whole lines of `text`, and what they say.
fn records<'t>(text: &'t [u8], path: &Path) -> Result<Vec<(&'t [u8], Value)>> {
    let mut lines: Vec<&[u8]> = text.split(|&b| b == b'\n').collect();
    // Behind the last line end lies nothing, or a torn line, or a whole one that lacks its end.
    let tail = lines.pop().unwrap_or_default();
    let parse = |line| serde_json::from_slice(line).ok().filter(Value::is_object).map(|record| (line, record));
    let mut records = Vec::with_capacity(lines.len() + 1);
    for (number, line) in lines.into_iter().enumerate() {
        let damaged = || Error::new("is not a JSON object; remove this line").in_file(path);
        records.push(parse(line).ok_or_else(|| damaged().at(Place::line(number + 1)))?);
    }
    records.extend(parse(tail));
    Ok(records)
}

fn append_to(path: &Path) -> Result<File> {
    OpenOptions::new().create(true).append(true).open(path).map_err(|e| Error::io(path, "open", &e))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(step: u64) -> String {
        format!("{{\"step\":{step}}}\n")
    }

    fn up_to(step: u64) -> impl Fn(&Value) -> bool {
        move |record| record["step"].as_u64().is_none_or(|own| own <= step)
    }

    #[test]
    fn a_log_cut_at_any_byte_goes_on_as_if_nothing_had_happened() {
        let whole: String = (1..=3).map(line).collect();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        for cut in 0..=whole.len() {
            for checkpoint in 0..=3 {
                fs::write(&path, &whole[..cut]).unwrap();
                let mut log = MetricsLog::open(&path).unwrap();
                log.retain(up_to(checkpoint)).unwrap();
                // A torn line never counts; a whole one does even without its line end.
                let whole_lines = ((cut + 1) / line(1).len()) as u64;
                let kept = MetricsLog::read(&path).unwrap().len() as u64;
                assert_eq!(kept, checkpoint.min(whole_lines), "cut {cut}, checkpoint {checkpoint}");
                (kept + 1..=3).for_each(|step| log.append(&serde_json::json!({ "step": step })).unwrap());
                assert_eq!(fs::read_to_string(&path).unwrap(), whole, "cut {cut}, checkpoint {checkpoint}");
            }
        }
    }

    #[test]
    fn holes_are_found_wherever_they_are() {
        let lost = |steps: &[u64], last: u64| {
            let mut records: Vec<Value> =
                steps.iter().map(|step| serde_json::json!({ "kind": "step", "step": step })).collect();
            records.push(serde_json::json!({ "kind": "validation", "step": 2 }));
            lost_steps(&records, last).into_iter().map(RangeInclusive::into_inner).collect::<Vec<_>>()
        };
        assert_eq!(lost(&[1, 2, 3, 4], 4), []);
        assert_eq!(lost(&[1, 2, 3, 4, 5], 4), []);
        assert_eq!(lost(&[], 0), []);
        assert_eq!(lost(&[], 3), [(1, 3)]);
        assert_eq!(lost(&[2, 3, 6, 8], 9), [(1, 1), (4, 5), (7, 7), (9, 9)]);
    }

    #[test]
    fn what_is_wanted_stays() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = MetricsLog::open(folder.path().join("m")).unwrap();
        log.append(&serde_json::json!({ "note": "begun" })).unwrap();
        log.append(&serde_json::json!({ "step": 9 })).unwrap();
        log.retain(up_to(8)).unwrap();
        assert_eq!(MetricsLog::read(folder.path().join("m")).unwrap(), [serde_json::json!({ "note": "begun" })]);
    }

    #[test]
    fn a_damaged_line_in_the_middle_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.jsonl");
        fs::write(&path, format!("{}{{\"st\n{}", line(1), line(3))).unwrap();
        let error = MetricsLog::open(&path).unwrap_err().to_string();
        assert!(error.ends_with("m.jsonl: line 2: is not a JSON object; remove this line"), "{error}");
        assert_eq!(MetricsLog::read(folder.path().join("none")).unwrap().len(), 0);
    }
}
