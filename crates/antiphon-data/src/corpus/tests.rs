use std::io::Write;
use std::path::Path;

use antiphon_core::random::Key;
use flate2::Compression;
use flate2::write::GzEncoder;
use proptest::prelude::*;
use tempfile::TempDir;

use super::*;

/// A data folder with these files.
pub(super) fn folder(files: &[(&str, &[u8])]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, bytes) in files {
        std::fs::write(folder.path().join(name), bytes).unwrap();
    }
    folder
}

fn config(text: &str) -> CorpusConfig {
    toml::from_str(text).unwrap()
}

fn pairs(extra: &str) -> CorpusConfig {
    config(&format!("kind = 'pairs'\ntrain = 'a.tsv'\n{extra}"))
}

const PARALLEL: &str = "kind = 'parallel'\ntrain = { source = 'a', target = 'b' }\n";

pub(super) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// The error of opening, with the random folder written as `D`.
fn refused(config: &CorpusConfig, split: Split, files: &[(&str, &[u8])]) -> String {
    let folder = folder(files);
    let error = Corpus::open(config, split, folder.path()).unwrap_err();
    error.to_string().replace(folder.path().to_str().unwrap(), "D")
}

fn open(config: &CorpusConfig, files: &[(&str, &[u8])]) -> (TempDir, Corpus) {
    let folder = folder(files);
    let corpus = Corpus::open(config, Split::Train, folder.path()).unwrap();
    (folder, corpus)
}

fn example(source: &str, targets: &[&str], line: usize) -> Example {
    let targets = targets.iter().map(ToString::to_string).collect();
    Example { source: Some(source.into()), targets, line, ..Example::default() }
}

fn same(_: usize, text: &str) -> String {
    text.into()
}

fn all(corpus: &Corpus) -> Vec<Example> {
    corpus.iter().collect::<Result<_>>().unwrap()
}

#[test]
fn a_missing_file_is_named_with_its_setting() {
    assert_eq!(refused(&pairs(""), Split::Train, &[]), "D/a.tsv: no such file: data.train names it");
    assert_eq!(
        refused(&pairs("recipe = 'cmudict'\ntest = 't/u.tsv'"), Split::Test, &[("a.tsv", b"a\tb\n")]),
        "D/t/u.tsv: no such file: data.test names it"
    );
    assert_eq!(
        refused(&config(PARALLEL), Split::Train, &[("a", b"x\n")]),
        "D/b: no such file: data.train.target names it"
    );
    assert_eq!(
        refused(&config("kind = 'text'\ntrain = '.'"), Split::Train, &[]),
        "D/.: not a file: data.train names it"
    );
}

#[test]
fn a_split_that_is_not_set_is_named() {
    let message = "data.validation: not set: name the file of the validation split";
    for config in [pairs(""), config(PARALLEL), config("kind = 'text'\ntrain = 'a'")] {
        assert!(config.has(Split::Train) && !config.has(Split::Validation) && !config.has(Split::Test));
        assert_eq!(refused(&config, Split::Validation, &[]), message);
    }
    assert!(pairs("test = 'b.tsv'").has(Split::Test) && pairs("validation = 'b.tsv'").has(Split::Validation));
}

#[test]
fn an_empty_file_is_refused() {
    let message = "D/a.tsv: the file is empty: give one with at least one line";
    assert_eq!(refused(&pairs(""), Split::Train, &[("a.tsv", b"")]), message);
    assert_eq!(refused(&pairs(""), Split::Train, &[("a.tsv", b"\xEF\xBB\xBF")]), message);
    assert_eq!(refused(&pairs(""), Split::Train, &[("a.tsv", &gzip(b""))]), message);
}

#[test]
fn every_kind_of_bad_line_is_named() {
    let check = |bytes: &[u8], message: &str| {
        let expected = format!("D/a.tsv: line 2: {message}, or set data.on_bad_line = \"skip\"");
        let bytes = [b"good\tline\n", bytes, b"\nlast\tline"].concat();
        assert_eq!(refused(&pairs("max_line = 20"), Split::Train, &[("a.tsv", &bytes)]), expected);
    };
    check(b"abc", "no tab: write `source<TAB>target`");
    check(b"", "no tab: write `source<TAB>target`");
    check(b"a\tb\tc\td", "3 tabs, where one parts source from target: remove the others");
    check(b" \tb", "the source is empty: fill it in or remove the line");
    check(b"a\t\r", "the target is empty: fill it in or remove the line");
    check(
        b"a\tb\xFFc",
        "byte 4 is not UTF-8: convert the file, as `iconv -f WINDOWS-1252 -t UTF-8` does from that encoding",
    );
    check(b"a\t3456789012345678901", "21 bytes, more than data.max_line = 20: split it or raise data.max_line");
    let text = config("kind = 'text'\ntrain = 'a.tsv'");
    assert_eq!(
        refused(&text, Split::Train, &[("a.tsv", b"a\n\nb\n")]),
        "D/a.tsv: line 2: blank line: remove it, or set data.on_bad_line = \"skip\""
    );
    assert_eq!(
        refused(&config(PARALLEL), Split::Train, &[("a", b"x\ny\n"), ("b", b"x\n\n")]),
        "D/b: line 2: the target is empty: fill it in, or remove this line from all files that belong together, or set \
         data.on_bad_line = \"skip\""
    );
}

#[test]
fn a_limit_is_of_the_text_without_its_line_end() {
    let (_folder, corpus) = open(&pairs("max_line = 5"), &[("a.tsv", b"ab\tcd\r\nab\tcd\nab\tcd")]);
    assert_eq!(corpus.len(), 3);
}

#[test]
fn a_line_of_megabytes_is_refused_without_being_held() {
    let long = [b"a\tb\n", "a\t".as_bytes(), &vec![b'x'; 3_000_000], b"\n"].concat();
    assert_eq!(
        refused(&pairs(""), Split::Train, &[("a.tsv", &long)]),
        "D/a.tsv: line 2: 3000002 bytes, more than data.max_line = 1000000: split it or raise data.max_line, or set \
         data.on_bad_line = \"skip\""
    );
}

#[test]
fn many_bad_lines_are_listed_up_to_ten() {
    let few = refused(&pairs(""), Split::Train, &[("a.tsv", b"a\nb\tc\n\td\n")]);
    assert_eq!(
        few,
        "D/a.tsv: 2 problems\n  \
         line 1: no tab: write `source<TAB>target`, or set data.on_bad_line = \"skip\"\n  \
         line 3: the source is empty: fill it in or remove the line, or set data.on_bad_line = \"skip\""
    );
    // Those one behind the other are one where the same is wrong with them.
    let many = refused(&pairs(""), Split::Train, &[("a.tsv", "a\tb\nx\nx\nx\ny\t\n".repeat(200).as_bytes())]);
    let lines: Vec<&str> = many.lines().collect();
    assert_eq!((lines.len(), lines[0]), (11, "D/a.tsv: 10 problems"));
    assert!(lines[1].starts_with("  lines 2-4: no tab: write `source<TAB>target`, or set"), "{many}");
    assert!(lines[10].starts_with("  line 25: the target is empty"), "{many}");
    assert!(lines[10].ends_with(", or set data.on_bad_line = \"skip\" (and 780 more such lines)"), "{many}");
}

#[test]
fn bad_lines_are_skipped_and_counted() {
    let bytes = b"x\na\tb\n\xFF\tb\nc\td\r\ne\t\ny\n";
    let (_folder, corpus) = open(&pairs("on_bad_line = 'skip'"), &[("a.tsv", bytes)]);
    assert_eq!(all(&corpus), [example("a", &["b"], 2), example("c", &["d"], 4)]);
    assert_eq!(
        corpus.skipped().to_string(),
        "4 lines skipped: 2 without a tab (first: line 1), 1 not UTF-8 (first: line 3), 1 with an empty target (first: \
         line 5)"
    );
    assert_eq!(
        refused(&pairs("on_bad_line = 'skip'"), Split::Train, &[("a.tsv", b"x\n")]),
        "D/a.tsv: no line can be used; 1 line skipped: 1 without a tab (first: line 1)"
    );
}

#[test]
fn a_line_that_is_bad_in_one_of_the_parallel_files_is_skipped_in_all() {
    let skip = config(&format!("{PARALLEL}on_bad_line = 'skip'"));
    let (_folder, corpus) = open(&skip, &[("a", b"1\n\n3\n\n"), ("b", b"\none\nthree\n\n")]);
    assert_eq!(all(&corpus), [example("3", &["three"], 3)]);
    assert_eq!(
        corpus.skipped().to_string(),
        "3 lines skipped: 1 with an empty target (first: line 1), 2 with an empty source (first: line 2)"
    );
}

#[test]
fn parallel_files_must_be_of_equal_length() {
    assert_eq!(
        refused(&config(PARALLEL), Split::Train, &[("a", b"x\ny\n"), ("b", b"x\ny\nz")]),
        "D/a: 2 lines, but `D/b` has 3: line by line they must belong together"
    );
}

#[test]
fn references_in_several_files_serve_evaluation() {
    let text = "kind = 'parallel'\ntrain = { source = 'a', target = ['b', 'c'] }\n\
                test = { source = 'a', target = ['b', 'c'] }\nvalidation = { source = 'a', target = [] }";
    let files: &[(&str, &[u8])] = &[("a", b"x\nx\n"), ("b", b"1\n2\n"), ("c", b"3\n4\n")];
    let config = config(text);
    let folder = folder(files);
    let corpus = Corpus::open(&config, Split::Test, folder.path()).unwrap();
    let expected = [example("x", &["1", "3"], 1), example("x", &["2", "4"], 2)];
    assert_eq!(all(&corpus), expected);
    // Lines of parallel files stay apart, equal or not.
    assert_eq!(corpus.grouped(same).unwrap().iter().collect::<Result<Vec<_>>>().unwrap(), expected);
    assert_eq!(
        refused(&config, Split::Train, files),
        "data.train.target: several references serve evaluation only: name the one file to learn from"
    );
    assert_eq!(
        refused(&config, Split::Validation, files),
        "data.validation.target: the list is empty: name at least one file"
    );
}

#[test]
fn sources_are_grouped_in_first_seen_order() {
    let (_folder, corpus) = open(&pairs(""), &[("a.tsv", b"b\t1\na\t2\nb\t3\nc\t4\na\t2\nb\t5\n")]);
    let groups = corpus.grouped(same).unwrap();
    assert_eq!(groups.len(), 3);
    assert_eq!(
        groups.iter().collect::<Result<Vec<_>>>().unwrap(),
        [example("b", &["1", "3", "5"], 1), example("a", &["2"], 2), example("c", &["4"], 4)]
    );
}

#[test]
fn sources_that_normalization_makes_equal_are_one() {
    let (_folder, corpus) = open(&pairs(""), &[("a.tsv", b"Ab\t1\nc\t2\naB\t3\nAb\t1\n")]);
    let groups = corpus.grouped(|_, text| text.to_lowercase()).unwrap();
    assert_eq!(
        groups.iter().collect::<Result<Vec<_>>>().unwrap(),
        [example("Ab", &["1", "3"], 1), example("c", &["2"], 2)]
    );
}

#[test]
fn references_are_grouped_as_the_corpus_is() {
    let (folder, corpus) = open(&pairs(""), &[("a.tsv", b"b\t1\na\t2\nb\t3\nc\t4\n")]);
    let references = |texts: &[&[u8]]| {
        let path = |(i, text): (usize, &&[u8])| {
            let path = folder.path().join(format!("r{i}"));
            std::fs::write(&path, text).unwrap();
            path
        };
        let files: Vec<_> = texts.iter().enumerate().map(path).collect();
        References::open(&files, &pairs(""), &corpus)
    };
    let grouped = |texts: &[&[u8]]| {
        let groups = corpus.grouped(same).unwrap().judged_by(references(texts).unwrap());
        groups.iter().collect::<Result<Vec<_>>>().unwrap()
    };
    // A corpus judged by its own targets is judged as ever.
    let own = corpus.grouped(same).unwrap().iter().collect::<Result<Vec<_>>>().unwrap();
    assert_eq!(grouped(&[b"\xEF\xBB\xBF1\r\n2\n3\n4"]), own);
    assert_eq!(
        grouped(&[b"p\nq\nr\ns\n", b"p\nt\nu\nv\n"]),
        [example("b", &["p", "r", "u"], 1), example("a", &["q", "t"], 2), example("c", &["s", "v"], 4)]
    );
    let refused = |text: &[u8]| {
        let error = references(&[text]).unwrap_err().to_string();
        error.replace(folder.path().to_str().unwrap(), "D")
    };
    assert_eq!(refused(b"1\n2\n"), "D/r0: 2 lines, but `D/a.tsv` has 4: give a reference for every line, in its order");
    assert_eq!(
        refused(b"1\n\n3\n4\n"),
        "D/r0: line 2: the target is empty: fill it in, or remove this line from all files that belong together"
    );
    assert!(refused(b"1\n2\n\xFF\n4\n").starts_with("D/r0: line 3: byte 1 is not UTF-8"));
}

#[test]
fn a_header_is_told() {
    let told = |text: &[u8]| open(&pairs(""), &[("a.tsv", text)]).1.header_warning().is_some();
    assert!(told(b"Source\tTarget\na\tb\n") && told(b"\xEF\xBB\xBFword\tipa\r\n"));
    assert!(!told(b"word\tW ER D\na\tb\n") && !told(b"a\tb\nsource\ttarget\n"));
}

#[test]
fn a_source_alone_obeys_the_rules_of_its_corpus() {
    let sources = |config: &CorpusConfig, line: &str| {
        InputRules::of_sources(config, &FurtherColumns::default(), None).unwrap().sources(line)
    };
    let parallel = config(PARALLEL);
    assert_eq!(sources(&pairs(""), "a b"), Ok(vec!["a b".into()]));
    assert_eq!(sources(&pairs(""), "a\tb\tc"), Err(Fault::TabsInSource(2)));
    assert_eq!(sources(&parallel, "a\tb"), Ok(vec!["a\tb".into()]));
    for config in [pairs(""), parallel] {
        assert_eq!(sources(&config, " \t"), Err(Fault::EmptySource));
    }
}

#[test]
fn line_ends_and_a_byte_order_mark_are_tolerated() {
    let (_folder, corpus) = open(&pairs(""), &[("a.tsv", b"\xEF\xBB\xBFa\tb\r\nc\td\n e \tf\r")]);
    assert_eq!(all(&corpus), [example("a", &["b"], 1), example("c", &["d"], 2), example(" e ", &["f"], 3)]);
}

#[test]
fn gzip_reads_like_plain() {
    let text: String = (0..20_000).map(|i| format!("{i}\t{}\n", i * i)).collect();
    let (first, second) = text.as_bytes().split_at(70_001);
    let (_f, plain) = open(&pairs(""), &[("a.tsv", text.as_bytes())]);
    // A file of several gzip members, as `cat a.gz b.gz` makes it.
    let packed = [gzip(first), gzip(second)].concat();
    let (_g, unpacked) = open(&pairs(""), &[("a.tsv", &packed)]);
    assert_eq!(all(&plain), all(&unpacked));
    assert_eq!(unpacked.sha256(), crate::digest::sha256(&packed));

    let cut = &packed[..packed.len() - 100];
    assert_eq!(
        refused(&pairs(""), Split::Train, &[("a.tsv", cut)]),
        "D/a.tsv: cannot unpack: incomplete deflate stream; the gzip file is damaged or cut off, fetch it again"
    );
}

#[test]
fn any_line_of_a_long_file_is_found_from_any_thread() {
    use rayon::prelude::*;
    let key = Key::from_seed(9);
    let line = |i: u64| {
        let word = |salt, n| "é".repeat(key.numbered(salt).below(i, n) as usize + 1);
        format!("{i}{}\t{}{i}", word(0, 30), word(1, 40))
    };
    let text: String = (0..50_000).map(|i| line(i) + if i % 3 == 0 { "\r\n" } else { "\n" }).collect();
    let (_folder, corpus) = open(&pairs(""), &[("a.tsv", text.as_bytes())]);
    assert_eq!(corpus.len(), 50_000);
    (0..50_000_u64).into_par_iter().for_each(|n| {
        let i = key.below(n, 50_000);
        let got = corpus.get(i as usize).unwrap();
        assert_eq!(format!("{}\t{}", got.source.unwrap(), got.targets[0]), line(i));
        assert_eq!(got.line, i as usize + 1);
    });
}

#[test]
fn a_file_that_changes_under_us_is_an_error() {
    let (folder, corpus) = open(&pairs(""), &[("a.tsv", b"a\tb\nc\td\n")]);
    let path = folder.path().join("a.tsv");
    let after = |bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        corpus.get(1).unwrap_err().to_string().replace(path.to_str().unwrap(), "a.tsv")
    };
    let tail = "the file has changed since it was opened: leave it alone while it is in use";
    assert_eq!(after(b"a\tb\n"), format!("a.tsv: line 2: cut off; {tail}"));
    assert_eq!(after(b"a\tb\nccc\n"), format!("a.tsv: line 2: no tab: write `source<TAB>target`; {tail}"));
    assert_eq!(after(b"a\tb\n\xFF\td\n"), format!("a.tsv: line 2: not UTF-8; {tail}"));
}

#[test]
fn identity_is_the_content_not_the_name() {
    let (_f, one) = open(&pairs(""), &[("a.tsv", b"a\tb\n")]);
    let (_g, same) = open(&config("kind = 'pairs'\ntrain = 'b'"), &[("b", b"a\tb\n")]);
    let (_h, other) = open(&pairs(""), &[("a.tsv", b"a\tc\n")]);
    assert_eq!(one.sha256(), crate::digest::sha256(b"a\tb\n"));
    assert_eq!(one.sha256(), same.sha256());
    assert_ne!(one.sha256(), other.sha256());
    let (_i, there) = open(&config(PARALLEL), &[("a", b"x\n"), ("b", b"y\n")]);
    let (_j, back) = open(&config(PARALLEL), &[("a", b"y\n"), ("b", b"x\n")]);
    assert_ne!(there.sha256(), back.sha256());
    assert!(there.files().map(|(path, _)| path.file_name().unwrap()).eq(["a", "b"]));
}

#[test]
fn a_table_refuses_unknown_keys() {
    let refused = |text: &str| toml::from_str::<CorpusConfig>(text).unwrap_err().message().to_string();
    assert!(refused("kind = 'pairs'\ntrain = 'a'\nlowercase = true").starts_with("unknown field `lowercase`"));
    assert!(refused("kind = 'text'\ntrain = 'a'\nmax_source = 3").starts_with("unknown field `max_source`"));
}

proptest! {
    /// Whatever the bytes: opening and reading never panics, and what is read is what `str::lines` gives.
    #[test]
    fn any_bytes_read_as_lines_or_fail(bytes in prop::collection::vec(prop_oneof![
        4 => Just(b'\n'), 4 => Just(b'\t'), 2 => Just(b'\r'), 8 => b'a'..=b'f', 1 => any::<u8>()], 1..200)) {
        let folder = folder(&[("a.tsv", &bytes)]);
        let skip = pairs("on_bad_line = 'skip'\nmax_line = 12");
        let expected: Vec<Example> = String::from_utf8_lossy(bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(&bytes))
            .split('\n')
            .map(|line| line.strip_suffix('\r').unwrap_or(line))
            .enumerate()
            .filter(|(_, line)| !line.contains(['\u{FFFD}', '\0']) && line.len() <= 12)
            .filter_map(|(i, line)| match line.split('\t').collect::<Vec<_>>()[..] {
                [s, t] if !s.trim().is_empty() && !t.trim().is_empty() => Some(example(s, &[t], i + 1)),
                _ => None,
            })
            .collect();
        match Corpus::open(&skip, Split::Train, folder.path()) {
            Ok(corpus) => prop_assert_eq!(all(&corpus), expected),
            Err(_) => prop_assert!(expected.is_empty()),
        }
    }
}

#[test]
fn paths_may_be_absolute() {
    let folder = folder(&[("a.tsv", b"a\tb\n")]);
    let absolute = config(&format!("kind = 'pairs'\ntrain = {:?}", folder.path().join("a.tsv")));
    assert_eq!(Corpus::open(&absolute, Split::Train, Path::new("elsewhere")).unwrap().len(), 1);
}
