//! Manifests: recordings by path and time, and frames that belong to them whatever is left out.

use std::sync::Arc;

use antiphon_core::{Frames, Result, SourceBatch, Special};
use tempfile::TempDir;

use super::tests::folder;
use super::*;
use crate::bytes_tokenizer::Bytes;
use crate::{Dataset, InputRules};

fn config(extra: &str) -> CorpusConfig {
    toml::from_str(&format!("kind = 'manifest'\ntrain = 'm/train.tsv'\n{extra}")).unwrap()
}

fn opened(extra: &str, text: &str) -> Result<(TempDir, Corpus)> {
    let folder = folder(&[]);
    std::fs::create_dir(folder.path().join("m")).unwrap();
    std::fs::write(folder.path().join("m/train.tsv"), text).unwrap();
    let kept = FurtherColumns { sources: Vec::new(), kept: vec![("evaluate.by".into(), "speaker".into())] };
    let corpus = Corpus::open_with(&config(extra), &kept, Split::Train, folder.path())?;
    Ok((folder, corpus))
}

fn refused(extra: &str, text: &str) -> String {
    let error = opened(extra, text).unwrap_err().to_string();
    error.split_once("m/train.tsv: ").expect("the file").1.to_owned()
}

/// Recording `i` has `i + 1` frames, each of which is `i` twice.
#[derive(Debug)]
struct Counting;

impl Frames for Counting {
    fn width(&self) -> usize {
        2
    }

    fn frames(&self, recording: usize) -> usize {
        recording + 1
    }

    fn read(&self, recording: usize) -> Result<Vec<f32>> {
        Ok(vec![recording as f32; 2 * (recording + 1)])
    }

    fn warning(&self) -> Option<String> {
        None
    }

    fn digest(&self) -> &str {
        "counting"
    }
}

const ROWS: &str =
    "speaker\ttext\tpath\tfrom\tto\nann\ta b\tx.wav\t\t\nbob\tc\td/y.wav\t0.5\t\nann\tdd\t/z.wav\t1\t2.25\n";

#[test]
fn rows_name_recordings_and_parts_of_them() {
    let (folder, corpus) = opened("start = 'from'\nend = 'to'", ROWS).unwrap();
    let at = |name: &str| folder.path().join("m").join(name);
    let spoken = |path, start, end| Spoken { path, start, end };
    assert_eq!(
        corpus.recordings().unwrap(),
        [
            spoken(at("x.wav"), None, None),
            spoken(at("d/y.wav"), Some(0.5), None),
            spoken("/z.wav".into(), Some(1.0), Some(2.25)),
        ]
    );
    let example = corpus.get(1).unwrap();
    assert_eq!((example.source.as_deref(), &example.targets[0][..], example.line), (Some("d/y.wav"), "c", 3));
    assert_eq!((example.kept, example.recording), (vec![vec!["bob".to_owned()]], None));
    // Those who ask need not know what is said.
    let config = config("end = 'to'");
    let mut rules = InputRules::of_sources(&config, &FurtherColumns::default(), None).unwrap();
    rules.read_header(Ok("to\tpath")).unwrap();
    assert_eq!(rules.recording("1.5\ta.wav").unwrap(), spoken("a.wav".into(), None, Some(1.5)));
}

#[test]
fn what_is_wrong_with_a_row_is_told_at_its_line() {
    let with = |row: &str| format!("{ROWS}{row}\n");
    assert_eq!(
        refused("start = 'from'", &with("ann\te\tv.wav\tsoon\t")),
        "line 5: `from` is `soon`: write seconds from the beginning of the recording, as in `2.75`, or set data.on_bad_line = \
         \"skip\""
    );
    assert!(refused("", &with("ann\te\t\t\t")).starts_with("line 5: `path` is empty"));
    assert!(refused("", &with("ann\t \tv.wav\t\t")).starts_with("line 5: `text` is empty"));
    assert!(refused("path = 'file'", ROWS).starts_with("line 1: no column `file`, which data.path names"));
    assert!(refused("start = 'begin'", ROWS).starts_with("line 1: no column `begin`, which data.start names"));
    let places = |extra: &str| config(extra).problems().into_iter().map(|p| p.place.to_string()).collect::<Vec<_>>();
    assert_eq!(places(""), [""; 0]);
    assert_eq!(places("path = 'a'\ntext = 'a'"), ["text"]);
    assert_eq!(places("min_frames = 9\nmax_frames = 8"), ["min_frames"]);
    assert_eq!(places("columns = ['path', 'said']"), ["text"]);
}

#[test]
fn frames_stay_with_their_rows_when_others_are_left_out() {
    let bad = "ann\te\tv.wav\tsoon\t\n";
    let text = format!("{}{bad}{}", &ROWS[..ROWS.find("bob").unwrap()], &ROWS[ROWS.find("bob").unwrap()..]);
    let (_folder, corpus) = opened("start = 'from'\non_bad_line = 'skip'", &text).unwrap();
    assert_eq!(corpus.len(), 3);
    // The second of the three that are left cannot be heard.
    let corpus = corpus.with_frames(Arc::new(Counting), &[(1, "with a silent recording")]).unwrap();
    assert_eq!((corpus.len(), corpus.skipped().total()), (2, 2));
    let examples: Vec<_> = corpus.iter().map(|example| example.unwrap()).collect();
    let seen: Vec<_> = examples.iter().map(|e| (e.targets[0].as_str(), e.recording, e.line)).collect();
    assert_eq!(seen, [("a b", Some(0), 2), ("dd", Some(2), 5)]);

    let limits = |extra: &str| config(extra).limits();
    let open = |limits| Dataset::new(Arc::new(reopened(&text)), None, Vec::new(), Arc::new(Bytes), &limits);
    let dataset = open(limits("")).unwrap();
    let lengths: Vec<_> = dataset.lengths().iter().map(|lengths| (lengths.source, lengths.target)).collect();
    assert_eq!(lengths, [(1, 4), (3, 3)]);
    let batch = dataset.batch(&[1, 0]).unwrap();
    let [SourceBatch::Frames(frames)] = &batch.sources[..] else { panic!("frames") };
    assert_eq!((frames.lengths.as_slice(), frames.width, frames.features), (&[3, 1][..], 3, 2));
    assert_eq!(frames.values, [2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]);
    assert_eq!(batch.target.labels[2], Special::End.id());
    // One step cannot say three bytes; three can say one twice, with a blank between, and two cannot.
    assert_eq!([1, 2, 3].map(|reduction| dataset.without_path(reduction).unwrap()), [1, 2, 2]);
    assert_eq!(open(limits("max_frames = 2\ntoo_long = 'skip'")).unwrap().len(), 1);
    let error = open(limits("min_frames = 2")).unwrap_err().to_string();
    assert!(error.contains("line 2: the recording has 1 frames, fewer than data.min_frames = 2"), "{error}");
    let error = open(limits("max_frames = 2")).unwrap_err().to_string();
    assert!(error.contains("line 5: the recording has 3 frames, more than data.max_frames = 2"), "{error}");
}

/// The corpus of a manifest whose second recording cannot be heard.
fn reopened(text: &str) -> Corpus {
    let (_folder, corpus) = opened("start = 'from'\non_bad_line = 'skip'", text).unwrap();
    corpus.with_frames(Arc::new(Counting), &[(1, "with a silent recording")]).unwrap()
}

#[test]
fn recordings_that_nobody_heard_are_no_examples() {
    let (_folder, corpus) = opened("", ROWS).unwrap();
    let error = Dataset::new(Arc::new(corpus), None, Vec::new(), Arc::new(Bytes), &config("").limits()).unwrap_err();
    assert!(error.to_string().contains("nobody has listened"), "{error}");
    let (_folder, corpus) = opened("", ROWS).unwrap();
    let unusable = [(0, "with an empty file"), (1, "with a silent recording"), (2, "with an empty file")];
    let error = corpus.with_frames(Arc::new(Counting), &unusable).unwrap_err();
    let counted = "no row can be used; 3 lines skipped: 2 with an empty file (first: line 2), 1 with a silent recording (first: line 3)";
    assert!(error.to_string().ends_with(counted), "{error}");
}
