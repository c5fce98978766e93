//! Tables: the same rows however they are written, and every mistake with its line and column.

use std::path::Path;

use proptest::prelude::*;
use tempfile::TempDir;

use super::tests::{folder, gzip};
use super::*;

/// The names of the columns and the cells of the rows.
type Cells<'a> = (&'a [&'a str], &'a [&'a [&'a str]]);

const COLUMNS: &[&str] = &["lemma", "form", "features"];

/// A table of `file` whose source is `lemma`, whose target is `form`, and whose `features` are a stream and kept.
fn config(file: &str, extra: &str) -> CorpusConfig {
    let text = format!("kind = 'table'\ntrain = '{file}'\nsource = 'lemma'\ntarget = 'form'\n{extra}");
    toml::from_str(&text).unwrap()
}

fn further() -> FurtherColumns {
    FurtherColumns {
        sources: vec![("tags".into(), "features".into())],
        kept: vec![("evaluate.by".into(), "features".into())],
    }
}

fn open_in(folder: &TempDir, config: &CorpusConfig, further: &FurtherColumns) -> Result<Corpus> {
    Corpus::open_with(config, further, Split::Train, folder.path())
}

fn opened(config: &CorpusConfig, bytes: &[u8]) -> (TempDir, Corpus) {
    let folder = folder(&[(config.as_table().unwrap().train.to_str().unwrap(), bytes)]);
    let corpus = open_in(&folder, config, &further()).unwrap();
    (folder, corpus)
}

fn refused(config: &CorpusConfig, text: &str) -> String {
    let folder = folder(&[(config.as_table().unwrap().train.to_str().unwrap(), text.as_bytes())]);
    let error = open_in(&folder, config, &further()).unwrap_err();
    error.to_string().replace(folder.path().to_str().unwrap(), "D")
}

fn all(corpus: &Corpus) -> Vec<Example> {
    corpus.iter().collect::<Result<_>>().unwrap()
}

fn example(cells: &[&str], line: usize) -> Example {
    let [lemma, form, features] = *cells else { panic!("three cells") };
    Example {
        source: Some(lemma.into()),
        further: vec![features.into()],
        targets: vec![form.into()],
        kept: vec![vec![features.into()]],
        candidates: Vec::new(),
        recording: None,
        line,
    }
}

fn tsv((columns, rows): Cells<'_>) -> String {
    std::iter::once(columns).chain(rows.iter().copied()).map(|row| row.join("\t") + "\n").collect()
}

fn csv((columns, rows): Cells<'_>) -> String {
    let mut writer = csv::WriterBuilder::new().flexible(true).from_writer(Vec::new());
    std::iter::once(columns).chain(rows.iter().copied()).for_each(|row| writer.write_record(row).unwrap());
    String::from_utf8(writer.into_inner().unwrap()).unwrap()
}

fn json_lines((columns, rows): Cells<'_>) -> String {
    let object = |row: &&[&str]| {
        let entries = columns.iter().zip(*row).map(|(name, cell)| (name.to_string(), serde_json::Value::from(*cell)));
        serde_json::Value::Object(entries.collect()).to_string() + "\n"
    };
    rows.iter().map(object).collect()
}

#[test]
fn the_same_rows_are_read_however_they_are_written() {
    let rows: &[&[&str]] = &[&["deve", "develeri", "N;ACC;PL"], &["öl", "öldü", ""], &[" a b ", "c", "N;SG"]];
    let cells = (COLUMNS, rows);
    let expected =
        |first: usize| -> Vec<Example> { rows.iter().enumerate().map(|(i, row)| example(row, first + i)).collect() };
    for (file, text, first) in [
        ("a.tsv", tsv(cells), 2),
        ("a.TAB", tsv(cells), 2),
        ("a.csv", csv(cells), 2),
        ("a.jsonl", json_lines(cells), 1),
        ("a.ndjson", json_lines(cells), 1),
    ] {
        let config = config(file, "");
        let crlf = text.replace('\n', "\r\n");
        for bytes in [text.clone().into_bytes(), crlf.into_bytes(), format!("\u{FEFF}{text}").into_bytes()] {
            let (_folder, corpus) = opened(&config, &bytes);
            assert_eq!(all(&corpus), expected(first), "{file}");
            assert_eq!((corpus.len(), corpus.header_warning()), (3, None));
        }
    }
    // The ends of names may be others, and gzip is told by its bytes.
    let (_folder, corpus) = opened(&config("a.csv.gz", ""), &gzip(csv(cells).as_bytes()));
    assert_eq!(all(&corpus), expected(2));
    let (_folder, corpus) = opened(&config("a.txt", "format = 'tsv'"), tsv(cells).as_bytes());
    assert_eq!(all(&corpus), expected(2));
    assert_eq!(
        refused(&config("a.txt", ""), &tsv(cells)),
        "D/a.txt: the format cannot be told from the name (`.tsv`, `.csv` or `.jsonl`); set data.format"
    );
}

#[test]
fn columns_stand_in_any_order_among_others() {
    // Of those that are not read two may have one name.
    let text = "id\tfeatures\tform\tid\tlemma\n1\tN\tb\t\ta\n2\tV\td\tx\tc\n";
    let (_folder, corpus) = opened(&config("a.tsv", ""), text.as_bytes());
    assert_eq!(all(&corpus), [example(&["a", "b", "N"], 2), example(&["c", "d", "V"], 3)]);
    let json = "{\"n\": {\"x\": [1]}, \"form\": 2.5, \"lemma\": \"\\u00e9\\n\", \"features\": null}\n\
                {\"n\": \"\\ud800\", \"n\" : true ,\"features\":false,\"form\": true, \"lemma\":\"}\" }\r\n";
    let (_folder, corpus) = opened(&config("a.jsonl", ""), json.as_bytes());
    assert_eq!(all(&corpus), [example(&["é\n", "2.5", ""], 1), example(&["}", "true", "false"], 2)]);
}

#[test]
fn a_number_of_json_is_read_as_it_is_written() {
    for number in ["1.50", "-0", "1e3", "12345678901234567890123", "1E-400", "0.1000000000000000055"] {
        let json = format!("{{\"lemma\": {number}, \"form\":{number},\"features\" :{number} }}\n");
        let (_folder, corpus) = opened(&config("a.jsonl", ""), json.as_bytes());
        assert_eq!(all(&corpus), [example(&[number, number, number], 1)]);
    }
}

proptest! {
    /// Each element of a list is a line of its cell, wherever that stands, and no element is two.
    #[test]
    fn a_list_of_json_is_read_as_its_elements_one_a_line(
        elements in prop::collection::vec("[a\",\\]\\[{}\\\\\r\né ]{0,6}", 1..6), spaced in any::<bool>(), number in -3i32..3,
    ) {
        let texts = ["x".to_owned()].into_iter().chain(elements);
        let mut list: Vec<serde_json::Value> = texts.clone().map(Into::into).collect();
        list.push(number.into());
        let list = if spaced {
            let written: Vec<String> = list.iter().map(ToString::to_string).collect();
            format!("[ {} ]", written.join(" ,\t"))
        } else {
            serde_json::to_string(&list).unwrap()
        };
        let json = format!("{{\"lemma\": {list}, \"features\": {list}, \"form\":{number}}}\n");
        let (_folder, corpus) = opened(&config("a.jsonl", ""), json.as_bytes());
        let lines: Vec<String> = texts.map(|text| text.replace("\r\n", " ").replace(['\r', '\n'], " ")).collect();
        let cell = format!("{}\n{number}", lines.join("\n"));
        prop_assert_eq!(all(&corpus), [example(&[&cell, &number.to_string(), &cell], 1)]);
    }
}

#[test]
fn without_a_header_the_config_names_the_columns() {
    let named = "columns = ['lemma', 'form', 'features']";
    let (_folder, corpus) = opened(&config("a.tsv", named), b"a\tb\tN\nc\td\tV\n");
    assert_eq!(all(&corpus), [example(&["a", "b", "N"], 1), example(&["c", "d", "V"], 2)]);
    let (_folder, corpus) = opened(&config("a.csv", named), b"lemma,form,features\nc,d,V\n");
    assert!(corpus.len() == 2 && corpus.header_warning().unwrap().contains("looks like a header"));
}

#[test]
fn several_columns_are_one_source() {
    let text = "kind = 'table'\ntrain = 'a.csv'\nsource = ['story', 'question']\ntarget = 'answer'\njoin = ' | '";
    let config: CorpusConfig = toml::from_str(text).unwrap();
    let folder = folder(&[("a.csv", b"question,answer,story\nwho?,me,I did.\nwhy?,so,\n")]);
    let corpus = Corpus::open(&config, Split::Train, folder.path()).unwrap();
    let sources: Vec<_> = all(&corpus).into_iter().map(|example| example.source.unwrap()).collect();
    assert_eq!(sources, ["I did. | who?", "why?"]);
}

#[test]
fn rows_whose_sources_are_all_equal_are_references_of_one() {
    let text = "lemma,form,features\nA,x,N\na,y,V\na,z,N\na,x,n\n";
    let (_folder, corpus) = opened(&config("a.csv", ""), text.as_bytes());
    let groups = corpus.grouped(|_, text| text.to_lowercase()).unwrap();
    let mut first = example(&["A", "x", "N"], 2);
    first.targets.push("z".into());
    first.kept[0].push("n".into());
    assert_eq!(groups.iter().collect::<Result<Vec<_>>>().unwrap(), [first, example(&["a", "y", "V"], 3)]);
}

#[test]
fn a_list_of_targets_is_so_many_rows_and_a_row_can_be_judged_by_itself() {
    let rows = [("[\"a\", \"b\"]", "[\"x\", \"y\", \"x\"]"), ("\"c\"", "\"z\""), ("[\"a\", \"b\"]", "[\"w\"]")];
    let line =
        |(source, target): (&str, &str)| format!("{{\"lemma\": {source}, \"form\": {target}, \"features\": []}}\n");
    let text = rows.map(line).concat();
    let (_folder, corpus) = opened(&config("a.jsonl", ""), text.as_bytes());
    let of = |source: &str, target: &str, line| example(&[source, target, ""], line);
    assert_eq!(corpus.len(), 5);
    assert_eq!(
        all(&corpus),
        [of("a\nb", "x", 1), of("a\nb", "y", 1), of("a\nb", "x", 1), of("c", "z", 2), of("a\nb", "w", 3)]
    );
    assert_eq!((0..5).map(|i| corpus.place(i).1).collect::<Vec<_>>(), [1, 1, 1, 2, 3]);
    let judged = |corpus: &Corpus| -> Vec<(usize, String)> {
        let groups = corpus.grouped(|_, text| text.to_owned()).unwrap();
        assert_eq!(groups.len(), groups.iter().count());
        groups.iter().map(|group| group.map(|group| (group.line, group.targets.concat())).unwrap()).collect()
    };
    let of = |groups: &[(usize, &str)]| groups.iter().map(|&(line, all)| (line, all.to_owned())).collect::<Vec<_>>();
    assert_eq!(judged(&corpus), of(&[(1, "xyw"), (2, "z")]));
    let (_folder, corpus) = opened(&config("a.jsonl", "each_row = true"), text.as_bytes());
    assert_eq!(judged(&corpus), of(&[(1, "xy"), (2, "z"), (3, "w")]));
    // Also where no row has several, and a bad one is left out.
    let rows = ["lemma\tform\tfeatures\na\tx\t\na\t\t\na\ty\t\n"];
    let (_folder, corpus) = opened(&config("a.tsv", "each_row = true\non_bad_line = 'skip'"), rows.concat().as_bytes());
    assert_eq!(judged(&corpus), of(&[(2, "x"), (4, "y")]));
    let bad = line(("\"a\"", "[]"));
    let (_folder, corpus) = opened(&config("a.jsonl", "on_bad_line = 'skip'"), (bad.clone() + &text).as_bytes());
    assert_eq!((corpus.len(), corpus.place(3).1, corpus.get(4).unwrap().targets), (5, 3, vec!["w".to_owned()]));
    for empty in [bad, line(("\"a\"", "[\"x\", \" \"]"))] {
        let refused = refused(&config("a.jsonl", ""), &empty);
        assert!(refused.starts_with("D/a.jsonl: line 1: "), "{refused}");
        assert!(refused.contains("`form`"), "{refused}");
    }
    let rules = config("a.jsonl", "");
    let rules = InputRules::of_pairs(&rules, &further(), None).unwrap();
    let (sources, targets) = rules.pair(text.lines().next().unwrap()).unwrap();
    assert_eq!((sources.concat(), targets.concat()), ("a\nb".to_owned(), "xyx".to_owned()));
}

#[test]
fn a_line_break_within_quotes_is_part_of_its_cell() {
    let text = "lemma,form,features\n\"a\r\nb\",\"say \"\"x, y\"\"\",\"\"\nc,\"\n\nd\",N\ne,f,V";
    let (_folder, corpus) = opened(&config("a.csv", ""), text.as_bytes());
    let expected =
        [example(&["a\nb", "say \"x, y\"", ""], 2), example(&["c", "\n\nd", "N"], 4), example(&["e", "f", "V"], 7)];
    assert_eq!(all(&corpus), expected);
    assert_eq!(corpus.place(2).1, 7);
    // A fault behind them is named by its line too.
    let bad = format!("{text}\n\"g\n\",,V\n");
    assert_eq!(
        refused(&config("a.csv", ""), &bad),
        "D/a.csv: line 8: `form` is empty: fill it in or remove the row, or set data.on_bad_line = \"skip\""
    );
    let (_folder, corpus) = opened(&config("a.csv", "on_bad_line = 'skip'"), bad.as_bytes());
    assert_eq!(corpus.skipped().to_string(), "1 line skipped: 1 with an empty `form` (first: line 8)");
    assert_eq!(all(&corpus), expected);
}

#[test]
fn what_is_wrong_with_a_header_is_said_at_once() {
    let tsv = config("a.tsv", "on_bad_line = 'skip'");
    assert_eq!(
        refused(&tsv, "lema\tform\tfeatures\na\tb\tc\n"),
        "D/a.tsv: line 1: no column `lemma`, which data.source names; there are `lema`, `form`, `features`: add it, or \
         name another in data.source (did you mean `lema`?), or set data.columns if line 1 is not a header"
    );
    let several = refused(&tsv, "lemma\tx\tlemma\n");
    assert!(several.contains("two columns are called `lemma`: rename one"), "{several}");
    for key in ["data.target", "streams.tags.column", "evaluate.by"] {
        let expected =
            format!(", which {key} names; there are `lemma`, `x`, `lemma`: add it, or name another in {key}, or set");
        assert!(several.contains(&expected), "{several}");
    }
    assert_eq!(refused(&tsv, "lemma\tform\tfeatures\n"), "D/a.tsv: only a header, no rows: add some");
    for (file, header, helps) in [
        ("a.csv", "lemma\tform\tfeatures", "the line has tabs: set data.format = \"tsv\""),
        ("a.tsv", "lemma,form,features", "the line has commas: set data.format = \"csv\""),
        ("a.csv", "lemma;form;features", "the line has semicolons, which part no cells: write commas or tabs"),
    ] {
        assert!(refused(&config(file, ""), &format!("{header}\nx\n")).contains(helps), "{file}");
    }
    // A stream that is called as its column is names it.
    let further = FurtherColumns { sources: vec![("tags".into(), "tags".into())], kept: Vec::new() };
    let folder = folder(&[("a.tsv", b"lemma\tform\tx\na\tb\tc\n")]);
    let error = open_in(&folder, &tsv, &further).unwrap_err().to_string();
    assert!(error.contains("no column `tags`, which streams.tags.column names"), "{error}");
    assert!(refused(&config("a.csv", ""), "lemma,\"form\nx").starts_with("D/a.csv: line 1: a quote opens a cell"));
    // Numbers of rows have no name.
    let (_folder, corpus) = opened(&tsv, b"\t\tlemma\tform\tfeatures\n1\t1\ta\tb\tc\n");
    assert_eq!(all(&corpus), [example(&["a", "b", "c"], 2)]);
}

#[test]
fn every_kind_of_bad_row_is_named() {
    let check = |file: &str, row: &str, message: &str| {
        let header = if file == "a.jsonl" { "" } else { "lemma\tform\tfeatures\n" };
        let (header, good) = match file {
            "a.csv" => (header.replace('\t', ","), "a,b,N\n"),
            "a.jsonl" => (String::new(), "{\"lemma\": \"a\", \"form\": \"b\", \"features\": 1}\n"),
            _ => (header.to_owned(), "a\tb\tN\n"),
        };
        let line = 2 + usize::from(!header.is_empty());
        let text = format!("{header}{good}{row}\n{good}");
        let expected = format!("D/{file}: line {line}: {message}, or set data.on_bad_line = \"skip\"");
        assert_eq!(refused(&config(file, ""), &text), expected);
        let (_folder, corpus) = opened(&config(file, "on_bad_line = 'skip'"), text.as_bytes());
        assert_eq!((corpus.len(), corpus.skipped().total()), (2, 1), "{row}");
    };
    let columns = "(`lemma`, `form`, `features`)";
    check("a.tsv", "a\tb", &format!("2 cells, but there are 3 columns {columns}: add the missing cells"));
    check("a.tsv", "a\tb\tN\t", &format!("4 cells, but there are 3 columns {columns}: remove the extra cells"));
    check("a.csv", "a", &format!("1 cell, but there are 3 columns {columns}: add the missing cells"));
    let commas = "remove the extra cells, or put a cell that holds a comma in quotes";
    check("a.csv", "a,b,c,N", &format!("4 cells, but there are 3 columns {columns}: {commas}"));
    let csv = "the line has commas: set data.format = \"csv\"";
    check("a.tsv", "a,b,N", &format!("1 cell, but there are 3 columns {columns}: {csv}"));
    let json = "an object of JSON, where cells are read: set data.format = \"json_lines\"";
    check("a.csv", "{\"lemma\": \"a\", \"form\": \"b\"}", json);
    check("a.tsv", "", "blank line: remove it");
    check("a.tsv", " \tb\tN", "`lemma` is empty: fill it in or remove the row");
    check("a.csv", "a,\"\",N", "`form` is empty: fill it in or remove the row");
    let stray =
        "a quote inside a cell that is not in quotes as a whole: put it in quotes, and write each quote in it twice";
    check("a.csv", "a,5\" disk,N", &format!("cell 2: {stray}"));
    let behind = "cell 1: text behind the quote that closes it: write a comma between them, or a quote that is part of the text twice";
    check("a.csv", "\"a\"b,c,N", behind);
    check("a.csv", "a, \"b\",N", "cell 2: a space before the quote that opens it: remove the space");
    check(
        "a.jsonl",
        "{\"lemma\": \"a\", \"features\": 1}",
        "no `form`, which data.target names; there are `lemma`, `features`: add it, or name another in data.target",
    );
    check("a.jsonl", "{}", "no `lemma`: the object is empty; fill it in or remove the line");
    let value = |value: &str| format!("{{\"lemma\": \"a\", \"form\": {value}, \"features\": 1}}");
    let objects =
        [("{}", "an object"), ("[1, {}]", "a list with an object in it"), ("[[1]]", "a list with a list in it")];
    for (json, what) in objects {
        let remedy = "write a text in quotes, a number, or a list of these";
        check("a.jsonl", &value(json), &format!("`form` is {what}: {remedy}"));
    }
    check("a.jsonl", &value("[]"), "`form` is empty: fill it in or remove the row");
    check("a.jsonl", &value("[\"\", null]"), "`form` is empty: fill it in or remove the row");
    check("a.jsonl", &value("[\"b\", \"\\u0000\"]"), "`form` holds a zero byte, as no text has it: remove it");
    check("a.jsonl", &value("null"), "`form` is empty: fill it in or remove the row");
    check("a.jsonl", &value("\"a\\u0000\""), "`form` holds a zero byte, as no text has it: remove it");
    let lone = refused(&config("a.jsonl", ""), &value("\"\\ud800\""));
    assert!(
        lone.starts_with("D/a.jsonl: line 1: not a JSON object (") && lone.contains("hex escape, column 3"),
        "{lone}"
    );
    check("a.jsonl", "{\"lemma\": 1, \"form\": 2, \"lemma\": 3}", "`lemma` is there twice: remove one");
    let json = |what: &str| {
        format!("not a JSON object ({what}): write one object per line, or set data.format if these are not JSON lines")
    };
    check("a.jsonl", "[1]", &json("it does not begin with `{`, column 1"));
    check("a.jsonl", "{\"lemma\": 1", &json("EOF while parsing an object, column 11"));
    check("a.jsonl", "{\"lemma\": 1} x", &json("trailing characters, column 14"));
    check("a.jsonl", "{\"lemma\": [\"a\", \"b", &json("EOF while parsing a string, column 18"));
    check("a.jsonl", "{\"lemma\": [\"a\", \"b\"}", &json("expected `,` or `]`, column 20"));
    check("a.jsonl", "", "blank line: remove it");
}

#[test]
fn a_quote_that_nothing_closes_costs_its_own_row() {
    let text = format!("lemma,form,features\na,\"b,N\n{}c,d,V\n", "x,y,N\n".repeat(9));
    assert_eq!(
        refused(&config("a.csv", "max_line = 40"), &text),
        "D/a.csv: line 2: a quote opens a cell, and nothing within data.max_line = 40 bytes closes it: close it, or write a \
         quote that is part of the text twice, in a quoted cell, or set data.on_bad_line = \"skip\""
    );
    let (_folder, corpus) = opened(&config("a.csv", "max_line = 40\non_bad_line = 'skip'"), text.as_bytes());
    let mut kept = vec![example(&["x", "y", "N"], 0); 9];
    kept.iter_mut().zip(3..).for_each(|(row, line)| row.line = line);
    kept.push(example(&["c", "d", "V"], 12));
    assert_eq!(all(&corpus), kept);
}

#[test]
fn references_are_those_of_rows() {
    let config = config("a.tsv", "");
    let (folder, corpus) = opened(&config, b"lemma\tform\tfeatures\na\tb\tN\nc\td\tN\n");
    let references = |text: &str| {
        let path = folder.path().join("r");
        std::fs::write(&path, text).unwrap();
        References::open(&[path], &config, &corpus)
    };
    let groups = corpus.grouped(|_, text| text.to_owned()).unwrap().judged_by(references("x\ny\n").unwrap());
    let targets: Vec<_> = groups.iter().map(|example| example.unwrap().targets).collect();
    assert_eq!(targets, [["x"], ["y"]]);
    let error = references("x\n").unwrap_err().to_string();
    assert!(error.ends_with("a.tsv` has 2 rows: give a reference for every row, in its order"), "{error}");
}

#[test]
fn settings_that_contradict_each_other_are_told() {
    let places = |text: &str| -> Vec<String> {
        let text = format!("kind = 'table'\ntrain = 'a.tsv'\n{text}");
        let config: CorpusConfig = toml::from_str(&text).unwrap();
        config.problems().into_iter().map(|problem| problem.place.to_string()).collect()
    };
    assert_eq!(places("source = 'a'\ntarget = 'b'"), [""; 0]);
    assert_eq!(places("source = 'a'\ntarget = 'b'\ncolumns = ['b', 'a']"), [""; 0]);
    assert_eq!(places("source = 'a'\ntarget = 'b'\nvalidation = 'a.txt'\ntest = 'b'"), ["validation", "test"]);
    assert_eq!(places("source = 'a'\ntarget = 'b'\nvalidation = 'a.txt'\nformat = 'csv'"), [""; 0]);
    assert_eq!(places("source = 'a'\ntarget = 'b'\ncolumns = ['c', 'a']"), ["target"]);
    assert_eq!(places("source = ['x', 'a']\ntarget = 'a'\ncolumns = ['a']"), ["source", "source"]);
    assert_eq!(places("source = 'a'\ntarget = 'b'\ncolumns = ['b', 'a']\nformat = 'json_lines'"), ["columns"]);
    assert_eq!(places("source = ['a']\ntarget = 'b'\nhistory = { numbered = true }"), [""; 0]);
    let places = places("source = ['a', 'c']\ntarget = 'b'\nhistory = { max_turns = 0, speakers = [''] }");
    assert_eq!(places, ["history", "history.speakers.0", "history.max_turns"]);
}

#[test]
fn sources_are_asked_about_without_their_targets() {
    let rules = |extra: &str, file: Option<&str>| -> Vec<Result<Vec<String>, String>> {
        let config = config("a.tsv", extra);
        let (header, rows) = match file {
            Some("a.csv") => (Some("features,lemma"), vec!["N,a", "V,\"b\nc\"", "N"]),
            Some("a.jsonl") => (None, vec!["{\"lemma\": \"a\", \"features\": \"N\"}", "{\"lemma\": \"a\"}"]),
            _ if extra.is_empty() => (Some("features\tform\tlemma"), vec!["N\t\ta", "V\tb"]),
            _ => (None, vec!["a\tN", "a\tb\tN\t7", "a\tb\tN", "a"]),
        };
        let mut rules = InputRules::of_sources(&config, &further(), file.map(Path::new)).unwrap();
        assert_eq!(rules.awaits_header(), header.is_some());
        header.into_iter().for_each(|header| rules.read_header(Ok(header)).unwrap());
        rows.into_iter().map(|row| rules.sources(row).map_err(|fault| fault.to_string())).collect()
    };
    let texts = |source: &str, features: &str| Ok(vec![source.to_owned(), features.to_owned()]);
    let lacks = |found: &str, n, columns: &str| {
        format!("{found}, but there are {n} columns ({columns}): add the missing cells")
    };
    assert_eq!(rules("", None), [texts("a", "N"), Err(lacks("2 cells", 3, "`features`, `form`, `lemma`"))]);
    assert_eq!(
        rules("", Some("a.csv")),
        [texts("a", "N"), texts("b\nc", "V"), Err(lacks("1 cell", 2, "`features`, `lemma`"))]
    );
    let remedy = "no `features`, which streams.tags.column names; there are `lemma`: add it, or name another in streams.tags.column";
    assert_eq!(rules("", Some("a.jsonl")), [texts("a", "N"), Err(remedy.into())]);
    // Without a header a row has all columns, or those of the sources alone: another number may mean anything.
    let named = "columns = ['lemma', 'form', 'features', 'id']";
    let all = "`lemma`, `form`, `features`, `id`";
    let or = |found: &str| Err(lacks(found, 4, all) + ", or give `lemma`, `features` alone");
    assert_eq!(rules(named, None), [texts("a", "N"), texts("a", "N"), or("3 cells"), or("1 cell")]);
    let headless = config("a.tsv", named);
    let rules = InputRules::of_sources(&headless, &further(), None).unwrap();
    let headers = ["lemma\tfeatures", "lemma\tform\tfeatures\tid", "features\tlemma", "lemma\tN"];
    assert_eq!(headers.map(|line| rules.seems_header(line)), [true, true, true, false]);

    // What somebody is to type.
    for (file, extra, form, row) in [
        ("a.tsv", "", "columns: lemma<TAB>features", "a\tN"),
        ("a.csv", "", "columns: lemma,features", "a,N"),
        ("a.tsv", named, "columns: lemma<TAB>features", "a\tN"),
        (
            "a.jsonl",
            "",
            "an object on each line: {\"lemma\": …, \"features\": …}",
            "{\"features\": \"N\", \"lemma\": \"a\"}",
        ),
    ] {
        let config = config(file, extra);
        let mut rules = InputRules::of_sources(&config, &further(), None).unwrap();
        assert_eq!(rules.form_of_row().as_deref(), Some(form));
        assert_eq!(rules.sources(row).unwrap(), ["a", "N"]);
    }
    let config = config("a.tsv", "");
    let mut pairs = InputRules::of_pairs(&config, &further(), None).unwrap();
    pairs.read_header(Ok("lemma\tfeatures\tform")).unwrap();
    assert_eq!(pairs.pair("a\tN\tb").unwrap(), (vec!["a".into(), "N".into()], vec!["b".into()]));
}

#[test]
fn the_first_lines_tell_what_a_file_lacks() {
    let lacking = |file: &str, extra: &str, text: &str| -> Result<Vec<(String, String)>, String> {
        let (folder, config) = (folder(&[(file, text.as_bytes())]), config(file, extra));
        let found = config.as_table().unwrap().lacking(&further(), &folder.path().join(file));
        let found = found.map_err(|error| error.to_string().replace(folder.path().to_str().unwrap(), "D"))?;
        Ok(found.into_iter().map(|LackingColumn { key, column, .. }| (key, column)).collect())
    };
    let named = |all: &[(&str, &str)]| Ok(all.iter().map(|(key, name)| (key.to_string(), name.to_string())).collect());
    assert_eq!(lacking("a.csv", "", "form,lemma,features\nbad"), named(&[]));
    assert_eq!(lacking("a.csv", "", "form,lema,features\n"), named(&[("data.source", "lemma")]));
    let both = [("data.target", "form"), ("streams.tags.column", "features"), ("evaluate.by", "features")];
    let by_order = [both[1], both[0], both[2]];
    assert_eq!(lacking("a.tsv", "", "lemma\tx\n"), named(&by_order));
    assert_eq!(lacking("a.tsv", "columns = ['lemma', 'form', 'features']", "a\tb\n"), named(&[]));
    let rows = "{\"lemma\": 1, \"form\": 2}\n[]\n{\"features\": 3}\n";
    assert_eq!(lacking("a.jsonl", "", rows), named(&[both[1], both[2]]));
    assert_eq!(lacking("a.jsonl", "on_bad_line = 'skip'", rows), named(&[]));
    assert_eq!(lacking("a.jsonl", "", ""), named(&[]));
    let named = "D/a.train: the format cannot be told from the name (`.tsv`, `.csv` or `.jsonl`); set data.format";
    assert_eq!(lacking("a.train", "", "lemma,form\n"), Err(named.into()));
    assert!(
        lacking("a.csv", "", "le\"mma\n").unwrap_err().starts_with("D/a.csv: line 1: cell 1: a quote inside a cell")
    );
}

#[test]
fn a_column_that_no_row_of_json_has_is_said_once() {
    let rows = "{\"lema\": 1, \"form\": 2}\n".repeat(400);
    for extra in ["", "on_bad_line = 'skip'"] {
        let message = refused(&config("a.jsonl", extra), &rows);
        let line = |column: &str, key: &str, near: &str| {
            let there = "there are `lema`, `form`: add it, or name another in";
            format!("line 1: no column `{column}`, which {key} names; {there} {key}{near}")
        };
        let expected = [
            "D/a.jsonl: 3 problems".to_owned(),
            line("lemma", "data.source", " (did you mean `lema`?)"),
            line("features", "streams.tags.column", ""),
            line("features", "evaluate.by", ""),
        ];
        assert_eq!(message.lines().map(str::trim).collect::<Vec<_>>(), expected);
    }
}

proptest! {
    /// What the crate `csv` writes comes back, whatever stands in the cells; and any record is found where it stands.
    #[test]
    fn any_table_of_csv_is_read_as_others_read_it(
        rows in prop::collection::vec(prop::collection::vec("[a\",\\n\u{FEFF}é ]{0,6}", 3), 1..20),
        crlf in any::<bool>(),
    ) {
        let rows: Vec<Vec<String>> = rows
            .into_iter()
            .map(|row| row.into_iter().enumerate().map(|(i, cell)| if i < 2 { format!("x{cell}") } else { cell }).collect())
            .collect();
        let mut writer = csv::WriterBuilder::new();
        if crlf {
            writer.terminator(csv::Terminator::CRLF);
        }
        let mut writer = writer.from_writer(Vec::new());
        writer.write_record(COLUMNS).unwrap();
        rows.iter().for_each(|row| writer.write_record(row).unwrap());
        let bytes = writer.into_inner().unwrap();
        let (_folder, corpus) = opened(&config("a.csv", ""), &bytes);
        let found = all(&corpus);
        let cells = |e: &Example| vec![e.source.clone().unwrap(), e.targets[0].clone(), e.further[0].clone()];
        prop_assert_eq!(found.iter().map(cells).collect::<Vec<_>>(), rows.clone());
        // Where each row begins, by the line ends before it.
        let mut line = 2;
        for (row, example) in rows.iter().zip(&found) {
            prop_assert_eq!(example.line, line);
            line += 1 + row.iter().map(|cell| cell.matches('\n').count()).sum::<usize>();
        }
    }

    /// Whatever the bytes: opening and reading never panics.
    #[test]
    fn any_bytes_are_rows_or_faults(bytes in prop::collection::vec(prop_oneof![
        3 => Just(b'\n'), 3 => Just(b','), 3 => Just(b'"'), 1 => Just(b'\r'), 4 => b'a'..=b'c', 1 => any::<u8>()], 1..200)) {
        let bytes = [b"lemma,form,features\n".as_slice(), &bytes].concat();
        let config = config("a.csv", "on_bad_line = 'skip'\nmax_line = 25");
        let folder = folder(&[("a.csv", &bytes)]);
        if let Ok(corpus) = open_in(&folder, &config, &further()) {
            let found = all(&corpus);
            prop_assert_eq!(found.len() + corpus.skipped().total() + 1, corpus.lines());
        }
    }
}

/// Texts in a column are those of a file that has them line by line.
#[test]
fn texts_stand_in_a_column() {
    let texts = ["call me back", "not now, \"later\"", "a"];
    let written = [
        ("a.tsv", "path\ttext\nx.wav\tcall me back\ny.wav\tnot now, \"later\"\nz.wav\ta\n".to_owned(), ""),
        ("b.tsv", texts.map(|text| format!("{text}\tn\n")).concat(), "columns = ['text', 'n']"),
        ("c.csv", "text\ncall me back\n\"not now, \"\"later\"\"\"\na\n".to_owned(), ""),
        ("d.jsonl", texts.map(|text| serde_json::json!({ "n": 1, "text": text }).to_string() + "\n").concat(), ""),
    ];
    let plain = texts.map(|text| format!("{text}\n")).concat();
    let files: Vec<(&str, &[u8])> = written.iter().map(|(file, text, _)| (*file, text.as_bytes())).collect();
    let folder = folder(&[files, vec![("e.txt", plain.as_bytes())]].concat());
    let read = |file: &str, extra: &str| {
        let config: CorpusConfig = toml::from_str(&format!("kind = 'text'\ntrain = '{file}'\n{extra}")).unwrap();
        assert_eq!(config.problems(), []);
        let corpus = open_in(&folder, &config, &FurtherColumns::default()).unwrap();
        assert!(!corpus.has_source());
        let lines = |example: Example| Example { line: 0, ..example };
        (all(&corpus).into_iter().map(lines).collect::<Vec<_>>(), config)
    };
    let (expected, _) = read("e.txt", "");
    assert_eq!(expected.iter().map(|example| example.targets[0].as_str()).collect::<Vec<_>>(), texts);
    for (file, text, extra) in &written {
        let (found, config) = read(file, &format!("column = 'text'\n{extra}"));
        assert_eq!(found, expected, "{file}");
        // So it is where a text is asked about.
        let mut rules = InputRules::of_pairs(&config, &FurtherColumns::default(), Some(Path::new(file))).unwrap();
        let mut lines = text.lines();
        if rules.awaits_header() {
            rules.read_header(Ok(lines.next().unwrap())).unwrap();
        }
        let pairs: Vec<_> = lines.map(|line| rules.pair(line).unwrap()).collect();
        assert_eq!(pairs, texts.map(|text| (vec![], vec![text.to_owned()])), "{file}");
    }
    let config = |extra: &str| -> CorpusConfig { toml::from_str(&format!("kind = 'text'\n{extra}")).unwrap() };
    let places = |extra: &str| -> Vec<String> {
        config(extra).problems().into_iter().map(|problem| problem.place.to_string()).collect()
    };
    assert_eq!(places("train = 'a.txt'\nformat = 'tsv'\ncolumns = ['text']"), ["format", "columns"]);
    assert_eq!(places("train = 'a.txt'\nvalidation = 'b.tsv'\ncolumn = 'text'"), ["train"]);
    assert_eq!(places("train = 'a.tsv'\ncolumns = ['path']\ncolumn = 'text'"), ["column"]);
    let lacks = config("train = 'a.tsv'\ncolumn = 'said'");
    let error = open_in(&folder, &lacks, &FurtherColumns::default()).unwrap_err().to_string();
    assert!(error.contains("no column `said`, which data.column names"), "{error}");
}

/// A table whose rows say what may be answered, one on each line of a cell.
#[test]
fn candidates_are_lines_of_a_cell_and_hold_the_target() {
    let folder = tempfile::tempdir().unwrap();
    let config = |more: &str| -> CorpusConfig {
        let text =
            format!(r#"{{"kind": "table", "train": "a.csv", "source": "q", "target": "a", "candidates": "c"{more}}}"#);
        serde_json::from_str(&text).unwrap()
    };
    let open = |rows: &str, more: &str| {
        std::fs::write(folder.path().join("a.csv"), format!("q,a,c\n{rows}")).unwrap();
        Corpus::open(&config(more), Split::Train, folder.path())
    };
    let good = "x,b,\"a\nb c\nb\"\nx,a,\"a\nb c\nb\"\nx,b,b\ny,\" b c \",\"a\n b c \"\n";
    let corpus = open(good, "").unwrap();
    let candidates: Vec<Vec<String>> = corpus.iter().map(|example| example.unwrap().candidates).collect();
    assert_eq!(candidates, [vec!["a", "b c", "b"], vec!["a", "b c", "b"], vec!["b"], vec!["a", "b c"]]);
    // Who may choose among others is asked something else.
    let grouped: Vec<(Vec<String>, usize)> = corpus
        .grouped(|_, text| text.to_owned())
        .unwrap()
        .iter()
        .map(|example| example.map(|example| (example.targets, example.candidates.len())).unwrap())
        .collect();
    let texts = |all: &[&str]| all.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(grouped, [(texts(&["b", "a"]), 3), (texts(&["b"]), 1), (texts(&[" b c "]), 2)]);

    let bad = "x,b,a\ny,b,\nz,c,\"c\nd\"\n";
    let error = open(bad, "").unwrap_err().to_string();
    assert!(error.contains("the target `b` is not among its `c`: add it there, or remove the row"), "{error}");
    assert!(error.contains("`c` is empty: fill it in or remove the row"), "{error}");
    let corpus = open(bad, r#", "on_bad_line": "skip""#).unwrap();
    assert_eq!((corpus.len(), corpus.skipped().total()), (1, 2));
    assert!(corpus.skipped().to_string().contains("whose target is not among its `c`"), "{}", corpus.skipped());

    // In JSON lines it is a list.
    let rows = "{\"q\": \"x\", \"a\": \"b c\", \"c\": [\"a\", \"b c\"]}\n{\"q\": \"x\", \"a\": \"7\", \"c\": [6, 7]}\n";
    std::fs::write(folder.path().join("a.csv"), rows).unwrap();
    let corpus = Corpus::open(&config(r#", "format": "json_lines""#), Split::Train, folder.path()).unwrap();
    let candidates: Vec<Vec<String>> = corpus.iter().map(|example| example.unwrap().candidates).collect();
    assert_eq!(candidates, [["a", "b c"], ["6", "7"]]);
    std::fs::write(folder.path().join("a.csv"), rows.replace("[6, 7]", "[]")).unwrap();
    let error =
        Corpus::open(&config(r#", "format": "json_lines""#), Split::Train, folder.path()).unwrap_err().to_string();
    assert!(error.contains("line 2: `c` is empty"), "{error}");

    // Who only asks needs no target.
    let asked = config("");
    let mut rules = InputRules::of_sources(&asked, &FurtherColumns::default(), Some(Path::new("b.csv"))).unwrap();
    rules.read_header(Ok("c,q")).unwrap();
    assert_eq!(rules.candidates("\"a\nb\",x").unwrap(), ["a", "b"]);
    assert!(rules.candidates(",x").is_err() && rules.sources(",x").is_err());

    let places = |text: &str| -> Vec<String> {
        let config: CorpusConfig = serde_json::from_str(text).unwrap();
        config.problems().into_iter().map(|problem| problem.place.to_string()).collect()
    };
    let of = |candidates: &str, columns: &str| {
        format!(
            r#"{{"kind": "table", "train": "a.csv", "source": "q", "target": "a", "candidates": "{candidates}"{columns}}}"#
        )
    };
    assert_eq!(places(&of("a", "")), ["candidates"]);
    assert_eq!(places(&of("d", r#", "columns": ["q", "a", "c"]"#)), ["candidates"]);
}
