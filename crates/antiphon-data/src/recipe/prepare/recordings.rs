//! Recordings: copied as they are, with a manifest for each split: a table of `path`, `text` and `speaker`.
//!
//! A path in a manifest is seen from its folder. Nothing reads the recordings' content here.

use std::collections::BTreeSet;

use antiphon_core::{Error, Place, Problem, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::preparation::{Preparation, at_least_1};
use crate::recipe::files::Output;
use crate::recipe::inputs::Inputs;

/// Recordings named `LABEL_SPEAKER_INDEX.ending`, where the label is a number.
///
/// Every one is copied to `recordings/`. An index below `test` is for the test, one below `test + validation` for
/// validation, the others for training.
///
/// If there are three speakers or more, `without/SPEAKER/` has manifests that leave one out: the test is that speaker, validation the
/// next one by name, the first behind the last.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NumberedRecordings {
    /// The folder of the recordings: all of `files` below it.
    pub folder: String,
    /// What is said, by label, from 0 up.
    pub labels: Vec<String>,
    /// How many indices are for the test.
    #[schemars(range(min = 1))]
    pub test: usize,
    /// How many indices after them are for validation.
    #[schemars(range(min = 1))]
    pub validation: usize,
}

/// Recordings with lists of what is said in them.
///
/// Every one in a list is copied to `recordings/`, in its folder. The training list is split by folder, whose name is that of a
/// speaker: its last folders, as many as it takes, are for validation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListedRecordings {
    /// The folder below which the lists name recordings.
    pub folder: String,
    /// What a recording's name ends with; the lists leave it out.
    pub ending: String,
    /// The recordings of train and validation.
    pub train: SpeechList,
    /// The recordings of the test.
    pub test: SpeechList,
    /// How many recordings are held out of train, at least.
    #[schemars(range(min = 1))]
    pub validation: usize,
}

/// Two lists whose lines belong together.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SpeechList {
    /// `folder/name` a line: the recordings, without their ending.
    pub recordings: String,
    /// `WORDS (name)` a line: what is said in them.
    pub transcripts: String,
}

/// The folder of the copies.
const RECORDINGS: &str = "recordings";

/// A manifest that is being written.
struct Manifest {
    /// Its name, without the ending.
    name: String,
    text: String,
    recordings: usize,
    speakers: BTreeSet<String>,
}

impl Manifest {
    fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), text: "path\ttext\tspeaker\n".into(), recordings: 0, speakers: BTreeSet::new() }
    }

    fn push(&mut self, path: &str, said: &str, speaker: &str) {
        self.text += &format!("{path}\t{said}\t{speaker}\n");
        self.recordings += 1;
        self.speakers.insert(speaker.into());
    }

    fn finish(self, log: &mut dyn FnMut(&str)) -> Output {
        let speakers = if self.speakers.len() == 1 { "speaker" } else { "speakers" };
        log(&format!("{}: {} recordings of {} {speakers}", self.name, self.recordings, self.speakers.len()));
        Output { name: format!("{}.tsv", self.name), bytes: self.text.into_bytes() }
    }
}

impl Preparation for NumberedRecordings {
    fn inputs(&self) -> Vec<(String, &str)> {
        Vec::new()
    }

    fn outputs(&self) -> Vec<(String, String)> {
        Vec::new()
    }

    fn problems(&self) -> Vec<Problem> {
        [at_least_1("test", self.test), at_least_1("validation", self.validation)].into_iter().flatten().collect()
    }

    fn run(&self, inputs: &Inputs<'_>, log: &mut dyn FnMut(&str)) -> Result<Vec<Output>> {
        let [mut train, mut validation, mut test] = ["train", "validation", "test"].map(Manifest::new);
        let (mut outputs, mut all) = (Vec::new(), Vec::new());
        for (name, path) in inputs.below(&self.folder) {
            let (label, speaker, index) =
                parts(name).ok_or_else(|| inputs.error(path, "not named LABEL_SPEAKER_INDEX".into()))?;
            let said = self.labels.get(label).ok_or_else(|| {
                inputs.error(path, format!("label {label}, but the recipe has {} labels", self.labels.len()))
            })?;
            let split = match index {
                i if i < self.test => &mut test,
                i if i < self.test + self.validation => &mut validation,
                _ => &mut train,
            };
            let name = format!("{RECORDINGS}/{name}");
            split.push(&name, said, speaker);
            all.push((name.clone(), said.as_str(), speaker));
            outputs.push(Output { name, bytes: inputs.bytes(path).to_vec() });
        }
        let split_by_speaker = without_each(&all).into_iter().flatten();
        outputs.extend([train, validation, test].into_iter().chain(split_by_speaker).map(|split| split.finish(log)));
        Ok(outputs)
    }
}

/// For each speaker, if there are three or more, the manifests that leave this one out of training.
fn without_each(recordings: &[(String, &str, &str)]) -> Vec<[Manifest; 3]> {
    let speakers: Vec<&str> =
        recordings.iter().map(|&(_, _, speaker)| speaker).collect::<BTreeSet<_>>().into_iter().collect();
    if speakers.len() < 3 {
        return Vec::new();
    }
    let chosen_on = speakers.iter().cycle().skip(1);
    let split = |(&left_out, &chosen_on): (&&str, &&str)| {
        let manifest = |name| Manifest::new(format!("without/{left_out}/{name}"));
        let [mut train, mut validation, mut test] = ["train", "validation", "test"].map(manifest);
        for (name, said, speaker) in recordings {
            let split = match *speaker {
                speaker if speaker == left_out => &mut test,
                speaker if speaker == chosen_on => &mut validation,
                _ => &mut train,
            };
            split.push(&format!("../../{name}"), said, speaker);
        }
        [train, validation, test]
    };
    speakers.iter().zip(chosen_on).map(split).collect()
}

/// Label, speaker and index of `7_jackson_32.wav`.
fn parts(name: &str) -> Option<(usize, &str, usize)> {
    let (stem, _) = name.rsplit_once('.')?;
    let (label, rest) = stem.split_once('_')?;
    let (speaker, index) = rest.rsplit_once('_')?;
    Some((label.parse().ok()?, speaker, index.parse().ok()?))
}

impl Preparation for ListedRecordings {
    fn inputs(&self) -> Vec<(String, &str)> {
        vec![
            ("train.recordings".into(), &self.train.recordings),
            ("train.transcripts".into(), &self.train.transcripts),
            ("test.recordings".into(), &self.test.recordings),
            ("test.transcripts".into(), &self.test.transcripts),
        ]
    }

    fn outputs(&self) -> Vec<(String, String)> {
        Vec::new()
    }

    fn problems(&self) -> Vec<Problem> {
        at_least_1("validation", self.validation).into_iter().collect()
    }

    fn run(&self, inputs: &Inputs<'_>, log: &mut dyn FnMut(&str)) -> Result<Vec<Output>> {
        let [mut train, mut validation, mut test] = ["train", "validation", "test"].map(Manifest::new);
        let mut outputs = Vec::new();
        let learnt = self.read(inputs, &self.train, &mut outputs)?;
        let held_out = last_folders(&learnt, self.validation);
        for (name, said) in &learnt {
            let split = if held_out.contains(folder_of(name)) { &mut validation } else { &mut train };
            split.push(name, said, speaker_of(name));
        }
        if train.recordings == 0 {
            let message = format!("too few speakers to hold out {} recordings", self.validation);
            return Err(inputs.error(&self.train.recordings, message));
        }
        for (name, said) in self.read(inputs, &self.test, &mut outputs)? {
            test.push(&name, said, speaker_of(&name));
        }
        outputs.extend([train, validation, test].map(|split| split.finish(log)));
        Ok(outputs)
    }
}

impl ListedRecordings {
    /// Each recording of a list, as it is named from the prepared folder, with what is said; copies go to `outputs`.
    fn read<'a>(
        &self,
        inputs: &'a Inputs<'_>,
        list: &SpeechList,
        outputs: &mut Vec<Output>,
    ) -> Result<Vec<(String, &'a str)>> {
        let (ids, texts) = (inputs.text(&list.recordings)?, inputs.text(&list.transcripts)?);
        let (count, other) = (ids.lines().count(), texts.lines().count());
        if count != other {
            let message = format!("{other} lines, but `{}` has {count}", list.recordings);
            return Err(inputs.error(&list.transcripts, message));
        }
        let mut read = Vec::new();
        for (i, (id, line)) in ids.lines().zip(texts.lines()).enumerate() {
            let wrong = |file: &str, message: String| -> Error { inputs.error(file, message).at(Place::line(i + 1)) };
            let path = format!("{}/{id}{}", self.folder, self.ending);
            let bytes = inputs.find(&path).ok_or_else(|| {
                wrong(&list.recordings, format!("names `{path}`, which is not among the recipe's files"))
            })?;
            let stem = id.rsplit('/').next().unwrap_or_default();
            let said = line.strip_suffix(&format!("({stem})")).map(str::trim).filter(|said| !said.is_empty());
            let said = said.ok_or_else(|| wrong(&list.transcripts, format!("not `WORDS ({stem})`")))?;
            let name = format!("{RECORDINGS}/{id}{}", self.ending);
            outputs.push(Output { name: name.clone(), bytes: bytes.to_vec() });
            read.push((name, said));
        }
        Ok(read)
    }
}

/// The last folders of a list that hold `count` of its recordings together.
fn last_folders<'a>(list: &'a [(String, &str)], count: usize) -> BTreeSet<&'a str> {
    let mut folders = BTreeSet::new();
    for (held, (name, _)) in list.iter().rev().enumerate() {
        if held >= count && !folders.contains(folder_of(name)) {
            break;
        }
        folders.insert(folder_of(name));
    }
    folders
}

/// The last folder of a recording's name.
fn speaker_of(name: &str) -> &str {
    let folder = folder_of(name);
    folder.rsplit_once('/').map_or(folder, |(_, speaker)| speaker)
}

fn folder_of(name: &str) -> &str {
    name.rsplit_once('/').map_or("", |(folder, _)| folder)
}
