use antiphon_core::random::Key;
use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::bytes_tokenizer::Bytes;
use crate::corpus::{CorpusConfig, Split};

/// A data folder with these files, and the corpus that they are.
fn corpus(files: &[&str], config: &str) -> Result<(TempDir, Arc<Corpus>)> {
    let folder = tempfile::tempdir().unwrap();
    let names: Vec<String> = (0..files.len()).map(|k| format!("{k}.txt")).collect();
    for (name, text) in names.iter().zip(files) {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    let config: CorpusConfig = toml::from_str(&format!("kind = 'stream'\ntrain = {names:?}\n{config}")).unwrap();
    let corpus = Corpus::open(&config, Split::Train, folder.path()).map_err(|error| unfolded(error, &folder))?;
    Ok((folder, Arc::new(corpus)))
}

fn stream(files: &[&str], documents: Documents) -> Stream {
    Stream::new(corpus(files, "").unwrap().1, &Bytes, documents).unwrap()
}

/// An error without the folder, which is random.
fn unfolded(error: Error, folder: &TempDir) -> Error {
    let folder = format!("{}/", folder.path().display());
    Error::new(error.to_string().replace(&folder, ""))
}

/// What `Bytes` makes of a text whose lines end with their symbol.
fn ids(text: &str) -> Vec<TokenId> {
    text.bytes().map(|byte| if byte == b'\n' { Special::End.id() } else { TokenId::from(byte) + 4 }).collect()
}

fn all(stream: &Stream) -> Vec<TokenId> {
    stream.ids(0..stream.len()).unwrap()
}

fn parts(rows: usize, length: usize, jitter: Option<u64>) -> Cut {
    Cut::Parts { rows, length, jitter: jitter.map(Key::from_seed) }
}

/// Texts of a few lines, some of them blank, with or without a line end.
fn texts() -> impl Strategy<Value = Vec<String>> {
    prop::collection::vec("[ab \n]{1,40}", 1..4)
}

fn documents() -> impl Strategy<Value = Documents> {
    prop_oneof![Just(Documents::None), Just(Documents::Files), Just(Documents::BlankLines)]
}

proptest! {
    #[test]
    fn a_text_is_its_tokens_one_for_each_character(texts in texts(), memory in 0_usize..99) {
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let corpus = corpus(&texts, "").unwrap().1;
        // In memory, and with a part of it or all of it in a file.
        for memory in [MEMORY, memory] {
            let stream = Stream::with_memory(Arc::clone(&corpus), &Bytes, Documents::None, memory).unwrap();
            let expected = ids(&texts.concat());
            prop_assert_eq!(&all(&stream), &expected);
            prop_assert_eq!(stream.len(), stream.units().characters);
            prop_assert_eq!(stream.counts().iter().sum::<u64>(), stream.len());
            let (a, b) = (expected.len() as u64 / 3, expected.len() as u64 / 2);
            prop_assert_eq!(&stream.ids(a..b).unwrap()[..], &expected[a as usize..b as usize]);
            let lines = texts.iter().enumerate().flat_map(|(k, text)| {
                text.split_inclusive('\n').enumerate().flat_map(move |(i, line)| vec![(k, i + 1); line.len()])
            });
            for (token, (file, line)) in lines.enumerate() {
                let (path, found) = stream.place(token as u64).unwrap();
                let name = format!("{file}.txt");
                prop_assert!(path.ends_with(&name) && found == line, "{} {found} for {name} {line}", path.display());
            }
        }
    }

    /// However a text is cut, each of its tokens is predicted once, and a part is read on in its order.
    #[test]
    fn every_token_is_predicted_once_and_in_order(
        texts in texts(),
        documents in documents(),
        rows in 1_usize..9,
        length in 1_usize..20,
        jitter in prop::option::of(any::<u64>()),
    ) {
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let stream = stream(&texts, documents);
        let (whole, begins) = (all(&stream), stream.documents.clone());
        let steps: Vec<Step> = stream.steps(&parts(rows, length, jitter)).collect();
        prop_assert_eq!(&steps, &stream.steps(&parts(rows, length, jitter)).collect::<Vec<_>>(), "epochs are equal");
        let rows = steps[0].len();
        let mut said = vec![Vec::new(); rows];
        let mut last = vec![None; rows];
        for step in &steps {
            let batch = stream.batch(step).unwrap();
            batch.check().unwrap();
            prop_assert!(batch.target.tokens() > 0);
            for (r, stretch) in step.iter().enumerate() {
                let n = stretch.length as usize;
                let row = |ids: &[TokenId]| ids[r * batch.target.width..][..n].to_vec();
                let (inputs, labels) = (row(&batch.target.inputs), row(&batch.target.labels));
                let fresh = last[r].is_none() || n > 0 && begins.contains(&stretch.start);
                prop_assert_eq!(batch.continues[r], !fresh);
                if n > 0 {
                    let fed = if fresh { Special::Begin.id() } else { last[r].unwrap() };
                    prop_assert_eq!(inputs[0], fed);
                    prop_assert_eq!(&inputs[1..], &labels[..n - 1]);
                    prop_assert_eq!(stretch.start, steps[0][r].start + said[r].len() as u64);
                    last[r] = labels.last().copied();
                }
                said[r].extend(labels);
            }
        }
        let lengths: Vec<usize> = said.iter().map(Vec::len).collect();
        prop_assert!(lengths.iter().max().unwrap() - lengths.iter().min().unwrap() <= 1, "{lengths:?}");
        prop_assert_eq!(said.concat(), whole);
        if jitter.is_none() && begins.len() == 1 {
            let widths: Vec<u32> = steps.iter().map(|step| step.iter().map(|s| s.length).max().unwrap()).collect();
            let (last, others) = widths.split_last().unwrap();
            prop_assert!(others.iter().all(|&width| width as usize == length), "{widths:?}");
            let twice = 2 * *last as usize;
            prop_assert!(others.is_empty() || (length..3 * length).contains(&twice), "{widths:?}");
        }
    }

    /// Each is read from its begin symbol to its end, in one row.
    #[test]
    fn documents_are_read_whole_and_in_their_order(
        texts in texts(),
        documents in documents(),
        rows in 1_usize..6,
        length in 1_usize..9,
    ) {
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let stream = stream(&texts, documents);
        let begins = &stream.documents;
        let (mut said, mut begun) = (vec![Vec::new(); begins.len()], Vec::new());
        let mut reads = vec![None; rows.min(begins.len())];
        for step in stream.steps(&Cut::Documents { rows, length }) {
            let batch = stream.batch(&step).unwrap();
            batch.check().unwrap();
            prop_assert!(step.len() == reads.len() && batch.target.tokens() > 0);
            for (r, stretch) in step.iter().enumerate().filter(|(_, stretch)| stretch.length > 0) {
                prop_assert!(stretch.length as usize <= length);
                let row = |ids: &[TokenId]| ids[r * batch.target.width..][..stretch.length as usize].to_vec();
                let (inputs, labels) = (row(&batch.target.inputs), row(&batch.target.labels));
                if !batch.continues[r] {
                    reads[r] = begins.iter().position(|&begin| begin == stretch.start);
                    begun.push(stretch.start);
                    prop_assert_eq!(inputs[0], Special::Begin.id());
                }
                let document = reads[r].unwrap();
                prop_assert_eq!(stretch.start, begins[document] + said[document].len() as u64);
                said[document].extend(labels);
            }
        }
        prop_assert_eq!(&begun[..], &begins[..]);
        prop_assert_eq!(said.concat(), all(&stream));
    }

    #[test]
    fn windows_know_one_token_before_them(texts in texts(), rows in 1_usize..4, length in 1_usize..9) {
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let stream = stream(&texts, Documents::Files);
        let whole = all(&stream);
        let mut said = Vec::new();
        for step in stream.steps(&Cut::Windows { rows, length }) {
            let batch = stream.batch(&step).unwrap();
            prop_assert!(step.len() <= rows && batch.continues.iter().all(|&goes_on| !goes_on));
            for (r, stretch) in step.iter().enumerate() {
                prop_assert!((1..=length).contains(&(stretch.length as usize)));
                let labels = &batch.target.labels[r * batch.target.width..][..stretch.length as usize];
                let fed = if stream.documents.contains(&stretch.start) { Special::Begin.id() } else { said[said.len() - 1] };
                prop_assert_eq!(batch.target.inputs[r * batch.target.width], fed);
                said.extend_from_slice(labels);
            }
        }
        prop_assert_eq!(said, whole);
    }
}

#[test]
fn documents_begin_where_they_are_said_to() {
    let files = ["\nab\n\n\nc\n", "d\n\ne"];
    let begins = |documents| stream(&files, documents).documents.to_vec();
    assert_eq!(begins(Documents::None), [0]);
    assert_eq!(begins(Documents::Files), [0, 8]);
    assert_eq!(begins(Documents::BlankLines), [0, 1, 6, 8, 11]);
}

#[test]
fn drawn_lengths_are_spread_as_the_paper_has_it() {
    let stream = stream(&[&"a".repeat(200_000)], Documents::None);
    let steps: Vec<Step> = stream.steps(&parts(1, 70, Some(3))).collect();
    let lengths: Vec<f64> = steps[..steps.len() - 1].iter().map(|step| f64::from(step[0].length)).collect();
    let (long, short): (Vec<f64>, Vec<f64>) = lengths.iter().partition(|&&length| length > 52.5);
    let share = short.len() as f64 / lengths.len() as f64;
    assert!((0.035..0.065).contains(&share), "{share}");
    let mean = |lengths: &[f64]| lengths.iter().sum::<f64>() / lengths.len() as f64;
    // Drawn numbers are rounded down.
    assert!((mean(&long) - 69.5).abs() < 0.5 && (mean(&short) - 34.5).abs() < 1.5);
    let spread = mean(&long.iter().map(|length| (length - mean(&long)).powi(2)).collect::<Vec<_>>()).sqrt();
    assert!((spread - 5.0).abs() < 0.3, "{spread}");
    assert_ne!(steps, stream.steps(&parts(1, 70, Some(4))).collect::<Vec<_>>());
}

#[test]
fn what_cannot_be_learned_from_is_refused() {
    let refused = |text: &str, rows, length| {
        let (folder, corpus) = corpus(&[text], "").unwrap();
        let stream = Stream::new(corpus, &Bytes, Documents::None).unwrap();
        unfolded(stream.check_training(rows, length).unwrap_err(), &folder).to_string()
    };
    assert_eq!(
        refused("ab\ncd\n", 2, 4),
        "0.txt: the text has 6 tokens, fewer than the 8 of one step: lower data.rows = 2 or data.length = 4, or give more text"
    );
    for text in ["aaaa", "\n\n\n\n"] {
        assert_eq!(refused(text, 1, 4), "0.txt: one token throughout: there is nothing to learn from such a text");
    }
    stream(&["ab\n"], Documents::None).check_training(1, 3).unwrap();
}

#[test]
fn lines_that_are_no_text_are_refused_or_left_out_and_counted() {
    let refused = |files: &[&str], config: &str| corpus(files, config).unwrap_err().to_string();
    assert_eq!(refused(&["a\n", ""], ""), "1.txt: the file is empty: give one with at least one line");
    let long = "b".repeat(40) + "\n";
    assert_eq!(
        refused(&["a\n", &long], "max_line = 39"),
        "1.txt: line 1: 40 bytes, more than data.max_line = 39: split it or raise data.max_line, or set data.on_bad_line = \
         \"skip\""
    );
    assert!(refused(&["a\0\n"], "").starts_with("0.txt: line 1: byte 2 is 0"));
    assert!(refused(&[&long], "max_line = 39\non_bad_line = 'skip'").contains("no line can be used; 1 line skipped"));

    let files = [long.as_str(), "a\nb\0\n", "x\0\nc"];
    let (folder, corpus) = corpus(&files, "max_line = 39\non_bad_line = 'skip'").unwrap();
    let skipped = corpus.skipped().to_string().replace(&format!("{}/", folder.path().display()), "");
    assert_eq!(
        skipped,
        "3 lines skipped: 1 longer than data.max_line in `0.txt` (first: line 1), 1 not UTF-8 in `1.txt` (first: line 2), \
         1 not UTF-8 in `2.txt` (first: line 1)"
    );
    let stream = Stream::new(corpus, &Bytes, Documents::Files).unwrap();
    assert_eq!((all(&stream), stream.documents.to_vec()), (ids("a\nc"), vec![0, 2]));
    let places = [0, 1, 2].map(|token| stream.place(token).unwrap());
    let places = places.map(|(path, line)| (path.file_name().unwrap().to_str().unwrap().to_owned(), line));
    assert_eq!(places, [("1.txt".into(), 1), ("1.txt".into(), 1), ("2.txt".into(), 2)]);
}

#[test]
fn a_text_that_cannot_be_encoded_is_named() {
    let (folder, corpus) = corpus(&["a\n", "b\nc!\n"], "").unwrap();
    let error = Stream::new(corpus, &Bytes, Documents::None).unwrap_err();
    assert_eq!(unfolded(error, &folder).to_string(), "1.txt: line 2: `!` cannot be represented");
}

#[test]
fn ids_of_large_vocabularies_take_more_bytes() {
    for (vocabulary, memory) in [(1 << 16, 64), ((1 << 16) + 1, 64), ((1 << 16) + 1, 0)] {
        let ids: Vec<TokenId> =
            (0..50).map(|i| i * 7919 % vocabulary as TokenId).chain([vocabulary as TokenId - 1]).collect();
        let mut writer = Writer::new(vocabulary, memory);
        ids.chunks(7).for_each(|ids| writer.write(ids).unwrap());
        let held = writer.finish().unwrap();
        assert_eq!((held.read(0..51).unwrap(), held.len()), (ids.clone(), 51));
        assert_eq!(held.read(48..51).unwrap(), &ids[48..]);
    }
}
