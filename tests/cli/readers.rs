//! Every place that reads text reads it alike: `docs/text-files.md` has the table.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;

use crate::place::{Called, Place, finished, shown};

/// Which column of the pairs a reader takes, and how it is called with a file of it.
struct Reader {
    name: &'static str,
    column: Column,
    call: fn(&Place, &str, &Place, &[u8]) -> Called,
}

#[derive(Clone, Copy, PartialEq)]
enum Column {
    Pairs,
    Sources,
    Targets,
}

const READERS: [Reader; 7] = [
    Reader {
        name: "a split",
        column: Column::Pairs,
        call: |place, run, scratch, _| place.call(&format!("evaluate {run} --data-dir {}", shown(&scratch.path("")))),
    },
    Reader {
        name: "evaluate --input",
        column: Column::Pairs,
        call: |place, run, scratch, _| place.call(&format!("evaluate {run} --input {}", file(scratch))),
    },
    Reader {
        name: "evaluate --references",
        column: Column::Targets,
        call: |place, run, scratch, _| {
            scratch.write("good.tsv", lines(Column::Pairs));
            let good = shown(&scratch.path("good.tsv"));
            place.call(&format!("evaluate {run} --input {good} --references {}", file(scratch)))
        },
    },
    Reader {
        name: "predict --input",
        column: Column::Sources,
        call: |place, run, scratch, _| place.call(&format!("predict {run} --input {}", file(scratch))),
    },
    Reader {
        name: "predict",
        column: Column::Sources,
        call: |place, run, _, bytes| place.call_with(&format!("predict {run}"), bytes),
    },
    Reader {
        name: "score --input",
        column: Column::Pairs,
        call: |place, run, scratch, _| place.call(&format!("score {run} --input {}", file(scratch))),
    },
    Reader {
        name: "score",
        column: Column::Pairs,
        call: |place, run, _, bytes| place.call_with(&format!("score {run}"), bytes),
    },
];

fn file(scratch: &Place) -> String {
    shown(&scratch.path("test.tsv"))
}

fn lines(column: Column) -> Vec<u8> {
    let pair = |source: &str, target: &str| match column {
        Column::Pairs => format!("{source}\t{target}\n"),
        Column::Sources => format!("{source}\n"),
        Column::Targets => format!("{target}\n"),
    };
    [("ab", "A B"), ("cda", "C D A"), ("ba", "B A")].map(|(source, target)| pair(source, target)).concat().into()
}

fn pack(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Calls a reader with these bytes.
fn read(reader: &Reader, bytes: &[u8]) -> Called {
    let (place, run, _) = finished();
    let scratch = Place::new();
    scratch.write("test.tsv", bytes);
    (reader.call)(place, run, &scratch, bytes)
}

/// What a reader said, without what depends on the time or the name of the file.
fn said(called: Called) -> String {
    let text = called.succeeds();
    text.lines().filter(|line| !line.starts_with("time ")).map(|line| line.to_owned() + "\n").collect()
}

#[test]
fn every_reader_takes_the_same_files() {
    let crlf = |bytes: &[u8]| String::from_utf8(bytes.into()).unwrap().replace('\n', "\r\n").into_bytes();
    let marked = |bytes: &[u8]| [b"\xEF\xBB\xBF", bytes].concat();
    for reader in &READERS {
        let plain = lines(reader.column);
        let expected = said(read(reader, &plain));
        let variants = [
            ("a byte order mark", marked(&plain)),
            ("CRLF", crlf(&plain)),
            ("no line feed at the end", plain[..plain.len() - 1].into()),
            ("gzip", pack(&plain)),
            ("all of these", pack(&marked(&crlf(&plain)[..plain.len() + 2]))),
        ];
        for (what, bytes) in variants {
            assert_eq!(said(read(reader, &bytes)), expected, "{}: {what}", reader.name);
        }
    }
}

#[test]
fn every_reader_refuses_the_same_lines_in_the_same_words() {
    for reader in &READERS {
        let good = lines(reader.column);
        let (first, rest) = good.split_at(good.iter().position(|&b| b == b'\n').unwrap() + 1);
        let second = |line: &[u8]| [first, line, b"\n", rest].concat();
        let fields = |source: &str, target: &str| match reader.column {
            Column::Pairs => format!("{source}\t{target}"),
            Column::Sources => source.into(),
            Column::Targets => target.into(),
        };
        let long = "a".repeat(1_000_001);
        let bytes = fields(&long, &long).len();
        let mut cases = vec![
            (
                second(b"a\xFFb"),
                "line 2: byte 2 is not UTF-8: convert the file, as `iconv -f WINDOWS-1252 -t UTF-8` does from that encoding".into(),
            ),
            (
                second(fields(&long, &long).as_bytes()),
                format!("line 2: {bytes} bytes, more than data.max_line = 1000000: split it or raise data.max_line"),
            ),
            (
                b"\xFF\xFEa\0".into(),
                "line 1: UTF-16, not UTF-8: convert the file with `iconv -f UTF-16 -t UTF-8`".into(),
            ),
            (pack(&good)[..20].into(), "; the gzip file is damaged or cut off, fetch it again".into()),
        ];
        let of_sources = [
            (
                second(fields(" ", "A").as_bytes()),
                "line 2: the source is empty: fill it in or remove the line".to_owned(),
            ),
            (
                second(fields(&"a".repeat(1025), "A").as_bytes()),
                "line 2: the source has 1025 tokens, more than data.max_source = 1024: shorten it".into(),
            ),
        ];
        let of_targets = [(
            second(fields("a", " ").as_bytes()),
            "line 2: the target is empty: fill it in or remove the line".to_owned(),
        )];
        match reader.column {
            Column::Sources => {
                cases.extend(of_sources);
                cases.push((second(b"bridg\tB R IH D G"), "line 2: a tab, and a source has none".into()));
            }
            // To remove the line would shift those that follow.
            Column::Targets => cases.push((
                second(b" "),
                "line 2: the target is empty: fill it in, or remove this line from all files that belong together"
                    .into(),
            )),
            Column::Pairs => {
                cases.extend(of_sources);
                cases.extend(of_targets);
                let target = "A ".repeat(1025);
                let too_long = "line 2: the target has 1025 tokens, more than data.max_target = 1024: shorten it";
                cases.push((second(format!("a\t{target}").as_bytes()), too_long.into()));
                cases.push((second(b"ab"), "line 2: no tab: write `source<TAB>target`".into()));
                cases.push((second(b"a\tA\tB"), "line 2: 2 tabs, where one parts source from target".into()));
            }
        }
        for (bytes, expected) in cases {
            let answer = read(reader, &bytes).refuses();
            assert!(answer.contains(&expected), "{}: {answer}\nnot {expected}", reader.name);
        }
    }
}

#[test]
fn every_reader_tells_a_header() {
    for reader in READERS.iter().filter(|reader| reader.column != Column::Targets) {
        let header: &[u8] = if reader.column == Column::Sources { b"source\n" } else { b"source\ttarget\n" };
        let called = read(reader, &[header, &lines(reader.column)].concat());
        let err = called.err();
        called.succeeds();
        assert!(err.contains("line 1") && err.contains("looks like a header"), "{}: {err}", reader.name);
    }
}
