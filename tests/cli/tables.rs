//! Tables: trained on, asked and measured from outside, however they are written.

use std::path::Path;

use serde_json::Value;

use crate::place::{CONFIG, Place, pairs};

/// The quick config over a table instead of pairs.
fn config(end: &str, beside: &str) -> String {
    let table = format!(
        "kind = \"table\"\nsource = \"word\"\ntarget = \"said\"\ntrain = \"train.{end}\"\nvalidation = \"validation.{end}\"\n\
         test = \"test.{end}\"\n{beside}"
    );
    let pairs = "kind = \"pairs\"\ntrain = \"train.tsv\"\nvalidation = \"validation.tsv\"\ntest = \"test.tsv\"\n";
    assert!(CONFIG.contains(pairs));
    CONFIG.replace(pairs, &table)
}

/// Rows of the words of the quick corpus: how long a word is, the word, what is said. The column in the middle is no use.
fn rows(numbers: std::ops::Range<u32>) -> Vec<[String; 4]> {
    let row = |line: &str| {
        let (word, said) = line.split_once('\t').expect("a pair");
        [word.len().to_string(), said.to_owned(), "a, \"b\"".to_owned(), word.to_owned()]
    };
    pairs(numbers).lines().map(row).collect()
}

const NAMES: [&str; 4] = ["length", "said", "note", "word"];

/// Rows as CSV, or as JSON lines.
fn written(rows: &[[String; 4]], end: &str) -> String {
    match end {
        "csv" => {
            let quoted = |cell: &String| format!("\"{}\"", cell.replace('"', "\"\""));
            let line = |row: &[String; 4]| row.iter().map(quoted).collect::<Vec<_>>().join(",") + "\n";
            NAMES.join(",") + "\n" + &rows.iter().map(line).collect::<String>()
        }
        "jsonl" => {
            let line = |row: &[String; 4]| {
                let object: std::collections::BTreeMap<&str, &String> = NAMES.iter().copied().zip(row).collect();
                serde_json::to_string(&object).expect("an object") + "\n"
            };
            rows.iter().map(line).collect()
        }
        other => panic!("{other}"),
    }
}

fn place(end: &str, beside: &str) -> Place {
    let place = Place::new();
    for (name, numbers) in [("train", 0..600), ("validation", 600..640), ("test", 640..680)] {
        place.write(&format!("data/{name}.{end}"), written(&rows(numbers), end));
    }
    place.write("table.toml", config(end, beside));
    place
}

/// The results without times, and what was answered, without the columns.
fn found(place: &Place, run: &str) -> (Value, Vec<Value>) {
    let json = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).expect("JSON");
    let results = json(&place.read(&format!("{run}/results.json")));
    let mut splits = serde_json::json!([results["validation"], results["test"]]);
    for split in splits.as_array_mut().expect("a list") {
        ["by", "over_values"].iter().for_each(|key| drop(split.as_object_mut().expect("a split").remove(*key)));
    }
    let answers = place.read(&format!("{run}/predictions-test.jsonl"));
    let answer = |line: &[u8]| {
        let mut answer = json(line);
        // A header moves all lines.
        ["columns", "line"].iter().for_each(|key| drop(answer.as_object_mut().expect("an answer").remove(*key)));
        answer
    };
    (splits, answers.split(|&b| b == b'\n').filter(|line| !line.is_empty()).map(answer).collect())
}

/// The figures of what was measured by the length of the words.
fn by_length(place: &Place, run: &str) -> Vec<Value> {
    let results: Value = serde_json::from_slice(&place.read(&format!("{run}/results.json"))).expect("JSON");
    results["test"]["by"]["length"].as_array().cloned().unwrap_or_default()
}

#[test]
fn a_table_is_learned_like_the_pairs_that_stand_in_it() {
    let (pairs, pairs_run, _) = crate::place::finished();
    let expected = found(pairs, pairs_run);
    let words: String = rows(640..650).into_iter().map(|[.., word]| word + "\n").collect();
    let said = pairs.call_with(&format!("predict {pairs_run}"), &words).succeeds();
    let scores = pairs.call(&format!("score {pairs_run} --input data/test.tsv")).succeeds();
    for end in ["csv", "jsonl"] {
        let place = place(end, "");
        let out = place.call("run table.toml --set evaluate.by=['length']").succeeds();
        let run = place.only_run();
        assert_eq!(found(&place, &run), expected, "{end}");

        // What is suggested works, and asks with the columns of a whole file.
        assert!(out.contains("the test split by `length`:\n"), "{out}");
        let next = out.lines().find(|line| line.starts_with("next")).expect("a suggestion");
        assert!(next.contains(&format!("predict {run} --input data/test.{end}")), "{next}");
        let all = place.call(&format!("predict {run} --input data/test.{end}")).succeeds();
        assert_eq!(all.lines().count(), 40);
        assert!(all.starts_with(&said), "{all}");

        // Without the targets, in another order, in other formats, on a pipe.
        let csv = "word,x\n".to_owned() + &words.replace('\n', ",1\n");
        let json: String = words.lines().map(|word| format!("{{\"word\": \"{word}\"}}\n")).collect();
        let tsv = "x\tword\n".to_owned() + &words.lines().map(|word| format!("\t{word}\n")).collect::<String>();
        for (name, text) in [("in.csv", &csv), ("in.jsonl", &json), ("in.tsv", &tsv)] {
            place.write(name, text);
            assert_eq!(place.call(&format!("predict {run} --input {name}")).succeeds(), said, "{name}");
        }
        let piped = if end == "csv" { &csv } else { &json };
        assert_eq!(place.call_with(&format!("predict {run}"), piped).succeeds(), said);
        let first = place.call_with(&format!("predict {run} --json"), piped).succeeds();
        let first: Value = serde_json::from_str(first.lines().next().expect("an answer")).expect("JSON");
        assert_eq!(first["source"], words.lines().next().expect("a word"));
        assert_eq!(first["line"], if end == "csv" { 2 } else { 1 });
        assert_eq!(place.call(&format!("score {run} --input data/test.{end}")).succeeds(), scores);
        let measured = place.call(&format!("evaluate {run} --input data/validation.{end}")).succeeds();
        assert!(measured.contains("sequence_error_rate"), "{measured}");

        // Each value has its own figures, which make up those of the whole.
        let by = by_length(&place, &run);
        let number = |of: &Value, key: &str| of.pointer(key).and_then(Value::as_f64).expect("a number");
        let whole = number(&expected.0[1], "/metrics/sequence_error_rate/value");
        let wrong = |of: &Value| number(of, "/examples") * number(of, "/metrics/sequence_error_rate");
        let examples: f64 = by.iter().map(|of| number(of, "/examples")).sum();
        assert_eq!(examples, number(&expected.0[1], "/counts/examples"));
        assert!((by.iter().map(wrong).sum::<f64>() - whole * examples).abs() < 1e-6, "{by:?}");
        assert!(by.len() > 2 && by.windows(2).all(|two| number(&two[0], "/examples") >= number(&two[1], "/examples")));
        let page = String::from_utf8(place.read(&format!("{run}/report.html"))).expect("text");
        assert!(page.contains("The test split by `length`"), "no table by value");
        let listed = place.call("runs").succeeds() + &place.call(&format!("compare {run} {run}")).succeeds();
        assert!(!listed.contains("length"), "{listed}");
    }
}

#[test]
fn a_table_without_a_header_has_its_columns_in_the_config() {
    let place = Place::new();
    let beside = "columns = [\"word\", \"said\"]\n";
    place.write("table.toml", config("tsv", beside));
    let (pairs, pairs_run, _) = crate::place::finished();
    place.call("run table.toml").succeeds();
    let run = place.only_run();
    assert_eq!(found(&place, &run), found(pairs, pairs_run));
    place.write("data/header.tsv", "word\tsaid\nab\tA B\n");
    let err = place.call("train table.toml --set data.train=header.tsv --set train.epochs=1 --run runs/other").err();
    assert!(err.contains("remove it if it is one, or leave out data.columns"), "{err}");
    let said = place.call_with(&format!("predict {run}"), "abc\nda\n").succeeds();
    assert_eq!(place.call_with(&format!("predict {run}"), "abc\tA B C\nda\tD\n").succeeds(), said);
    let answer = place.call_with(&format!("predict {run}"), "abc\ta\tb\n").refuses();
    assert!(answer.contains("standard input: line 1: 3 cells, but there are 2 columns (`word`, `said`)"), "{answer}");
    // A header is read like any other row, which is told as when it is learned from.
    let told = "warning: standard input: line 1: looks like a header, but is read like any other line";
    for header in ["word", "word\tsaid"] {
        let called = place.call_with(&format!("predict {run}"), format!("{header}\nabc\n"));
        assert!(called.err().contains(told), "{}", called.err());
        assert_eq!(called.succeeds().lines().count(), 2);
    }
    let called = place.call_with(&format!("score {run}"), "word\tsaid\nabc\tA B C\n");
    assert!(called.err().contains(told), "{}", called.err());
    assert!(!place.call_with(&format!("predict {run}"), "abc\nword\n").err().contains("header"));
}

#[test]
fn a_row_without_a_header_has_all_columns_or_those_of_the_sources() {
    let place = Place::new();
    let row =
        |line: &str| line.split_once('\t').map(|(word, said)| format!("{word}\t{said}\tlow\t7\n")).expect("a pair");
    for (name, numbers) in [("train", 0..200), ("validation", 600..610), ("test", 640..650)] {
        place.write(&format!("data/{name}.tsv"), pairs(numbers).lines().map(row).collect::<String>());
    }
    let streams = "[streams.how]\nencoder = { kind = \"gru\", hidden = 4 }\n[model.memories]\nkind = \"each\"\n";
    place.write("table.toml", config("tsv", "columns = [\"word\", \"said\", \"how\", \"id\"]\n") + streams);
    place.call("run table.toml --set train.epochs=1").succeeds();
    let predict = format!("predict {}", place.only_run());
    let said = place.call_with(&predict, "abc\tlow\n").succeeds();
    assert_eq!(place.call_with(&predict, "abc\tA B C\tlow\t8\n").succeeds(), said);
    let answer = place.call_with(&predict, "abc\tA B C\tlow\n").refuses();
    let forms = "3 cells, but there are 4 columns (`word`, `said`, `how`, `id`): add the missing cells, or give `word`, `how` alone";
    assert!(answer.contains(forms), "{answer}");
}

#[test]
fn figures_by_value_can_be_had_when_the_model_is_trained() {
    let place = place("csv", "");
    place.call("run table.toml --set train.epochs=1").succeeds();
    let run = place.only_run();
    let plain = place.call(&format!("evaluate {run}")).succeeds();
    assert!(!plain.contains("split by"), "{plain}");
    let by = format!("evaluate {run} --set evaluate.by=['length','note']");
    let shown = place.call(&by).succeeds();
    assert!(shown.contains("the test split by `length`:\n") && shown.contains("\na, \"b\"  "), "{shown}");
    // A file without one of these columns is measured by the others.
    place.write("in.csv", "length,word,said\n2,ab,A B\n3,abc,A B C\n");
    let called = place.call(&format!("{by} --input in.csv"));
    assert!(
        called.err().contains("warning: in.csv: has no column `note`, which evaluate.by names"),
        "{}",
        called.err()
    );
    let shown = called.succeeds();
    assert!(shown.contains("the input split by `length`:\n") && !shown.contains("`note`"), "{shown}");
}

/// What errors about a file suggest can be done with a model that is trained.
#[test]
fn what_helps_against_other_columns_and_formats_can_be_set_for_a_trained_model() {
    let place = place("csv", "");
    place.call("run table.toml --set train.epochs=1").succeeds();
    let run = place.only_run();
    let predict = |file: &str| format!("predict {run} --input {file}");
    let said = place.call_with(&format!("predict {run}"), "word\nabc\nda\n").succeeds();
    for (file, text, suggested, set) in [
        ("in.txt", "word,x\nabc,1\nda,2\n", "set data.format", "data.format=csv"),
        ("in.csv", "word\tx\nabc\t1\nda\t2\n", "the line has tabs: set data.format = \"tsv\"", "data.format=tsv"),
        (
            "in.tsv",
            "x\twort\n1\tabc\n2\tda\n",
            "name another in data.source (did you mean `wort`?)",
            "data.source=wort",
        ),
        ("in.jsonl", "{\"wort\": \"abc\"}\n{\"wort\": \"da\"}\n", "name another in data.source", "data.source=wort"),
        (
            "headless.csv",
            "abc,A B C\nda,D A\n",
            "if line 1 is not a header, write `word` above it",
            "data.columns=['word','said']",
        ),
    ] {
        place.write(file, text);
        let answer = place.call(&predict(file)).refuses();
        assert!(answer.contains(suggested), "{answer}");
        assert_eq!(place.call(&format!("{} --set {set}", predict(file))).succeeds(), said, "{set}");
    }
    place.write("in.csv", "word,spoken\nabc,A B C\n");
    for command in ["score", "evaluate"] {
        let answer = place.call(&format!("{command} {run} --input in.csv")).refuses();
        assert!(answer.contains("no column `said`, which data.target names"), "{answer}");
        place.call(&format!("{command} {run} --input in.csv --set data.target=spoken")).succeeds();
    }
    let answer = place.call(&format!("predict {run} --set data.join=x")).refuses();
    let changeable = ["`data.columns`", "`data.format`", "`streams.*.column`"];
    assert!(changeable.iter().all(|key| answer.contains(key)), "{answer}");
}

#[test]
fn a_check_sees_the_columns_of_files_that_are_there() {
    for end in ["csv", "jsonl"] {
        let place = place(end, "");
        place.call("check table.toml").succeeds();
        let sets = "--set data.source=wrod --set streams.manner.max_length=3 --set evaluate.by=['note','tense']";
        let each = "--set model.memories.kind=each";
        let answer = place.call(&format!("check table.toml {sets} {each} --set train.epoch=3")).refuses();
        // What is misspelt is told with it.
        assert!(answer.contains("train.epoch"), "{answer}");
        let file = |name| format!("`{}`", Path::new("data").join(format!("{name}.{end}")).display());
        let files = ["train", "validation", "test"].map(file).join(", ");
        let lacks = |column: &str| format!("no column `{column}` in {files}; there are `length`, `");
        assert!(answer.contains(&format!("data.source (--set): {}", lacks("wrod"))), "{answer}");
        assert!(answer.contains(&lacks("manner")) && answer.contains(&lacks("tense")), "{answer}");
        assert!(answer.contains("(did you mean `word`?)") && !answer.contains("`note` in"), "{answer}");
        // Files that are not there are warnings, as ever; how they are written must be known all the same.
        let called = place.call("check table.toml --set data.test=none.csv");
        assert!(called.err().contains("no such file"), "{}", called.err());
        called.succeeds();
        let answer = place.call("check table.toml --set data.test=latin.test").refuses();
        assert!(answer.contains("data.test (--set): the format cannot be told from the name"), "{answer}");
        // Every cell of a sweep is looked at.
        let answer = place.call("check table.toml --set sweep.over={'evaluate.by'=[['note'],['mood']]}").refuses();
        assert!(answer.contains("no column `mood` in"), "{answer}");
    }
    // Their first rows are read as they will be.
    let csv = place("csv", "");
    for (text, fault) in [
        ("", "the file is empty"),
        ("word,said\n", "there is no row"),
        ("word,said,word\na,b,c\n", "two columns are called `word`"),
        ("word,said\na,b\n\n", "line 3: blank line"),
        ("{\"word\": 1, \"said\": 2}\n", "line 1: an object of JSON, where cells are read"),
    ] {
        csv.write("data/other.csv", text);
        let answer = csv.call("check table.toml --set data.train=other.csv").refuses();
        assert!(answer.contains("data.train (--set)") && answer.contains(fault), "{answer}");
    }
    csv.write("data/other.csv", "word,said\na,b\n\n");
    csv.call("check table.toml --set data.train=other.csv --set data.on_bad_line=skip").succeeds();
    let place = place("jsonl", "columns = ['word', 'said']\n");
    let err = place.call("check table.toml").err();
    assert!(err.contains("data.columns") && err.contains("has no effect: JSON lines name their columns"), "{err}");
}

#[test]
fn what_is_wrong_with_a_table_is_said_with_line_and_column() {
    let place = place("csv", "");
    place.write("data/bad.csv", "word,said\nab,A B\n,C\n");
    let bad = |sets: &str| place.call(&format!("train table.toml {sets}")).refuses();
    let answer = bad("--set data.train=bad.csv");
    assert!(answer.contains("bad.csv: line 3: `word` is empty: fill it in or remove the row"), "{answer}");
    let answer = bad("--set data.source=wrod");
    assert!(
        answer
            .contains("line 1: no column `wrod`, which data.source names; there are `length`, `said`, `note`, `word`")
    );
    let answer = bad("--set evaluate.by=['tense']");
    assert!(answer.contains("no column `tense`, which evaluate.by names"), "{answer}");
    let answer = bad("--set streams.tense.max_length=3 --set model.memories.kind=each");
    assert!(answer.contains("no column `tense`, which streams.tense.column names"), "{answer}");
    // No source reads its answer.
    let answer = bad("--set data.source=said");
    assert!(answer.contains("data.source (--set): `said` is the column of the targets"), "{answer}");
    let answer = bad("--set streams.how.column=said --set model.memories.kind=each");
    assert!(answer.contains("streams.how.column (--set): `said` is the column of the targets"), "{answer}");
    let answer = bad("--set streams={'a.b'={column='note'}} --set model.memories.kind=each");
    assert!(answer.contains("streams.\"a.b\"") && answer.contains("a stream's name may hold only"), "{answer}");
    let answer = place.call("check tiny.toml --set evaluate.by=['x'] --set streams.y.column=z").refuses();
    assert!(answer.contains("evaluate.by") && answer.contains("streams.y"), "{answer}");
    assert_eq!(answer.matches("set `data.kind = \"table\"`").count(), 2, "{answer}");
    let answer = place.call("check table.toml --set data.columns=['word','x'] --set evaluate.by=['y']").refuses();
    assert!(answer.contains("data.target") && answer.contains("no column `said`; `data.columns` has `word`, `x`"));
    assert!(answer.contains("no column `y`"), "{answer}");
}

#[test]
fn bad_rows_are_passed_over_or_end_an_answer() {
    let place = place("csv", "");
    place.call("run table.toml").succeeds();
    let run = place.only_run();
    let input = "word,said\nab,\n\"a\nb\",\n,\ncd,\n";
    let called = place.call_with(&format!("predict {run} --skip-bad"), input);
    let err = called.err();
    assert_eq!(called.succeeds().lines().count(), 4);
    assert!(err.contains("1 line was not answered, the first is line 5"), "{err}");
    let answer = place.call_with(&format!("predict {run}"), input).refuses();
    assert!(answer.contains("standard input: line 5: `word` is empty"), "{answer}");
    let answer = place.call_with(&format!("predict {run}"), "wort,said\nab,\n").refuses();
    assert!(answer.contains("standard input: line 1: no column `word`, which data.source names"), "{answer}");
    assert_eq!(place.call_with(&format!("predict {run}"), "").succeeds(), "");
    assert_eq!(place.call_with(&format!("predict {run}"), "word\n").succeeds(), "");
}

/// The table of words, said as its second stream says: in capitals, or as they are.
fn place_with_streams() -> Place {
    let place = Place::new();
    for (name, numbers) in [("train", 0..600), ("validation", 600..640), ("test", 640..680)] {
        let mut text = "how,word,said,why\n".to_owned();
        for (i, line) in pairs(numbers).lines().enumerate() {
            let (word, said) = line.split_once('\t').expect("a pair");
            let (how, said) = if i % 2 == 0 { ("up;loud", said.to_owned()) } else { ("low", said.to_lowercase()) };
            text += &format!("{how},{word},{said},{}\n", if i % 3 == 0 { "because" } else { "" });
        }
        place.write(&format!("data/{name}.csv"), text);
    }
    let streams = "[streams.how]\ntokenizer = { kind = \"word\", separator = \";\" }\n\
                   input = { kind = \"embedding\", size = 4 }\nencoder = { kind = \"gru\", hidden = 4 }\n\
                   [streams.reason]\ncolumn = \"why\"\ninput = { kind = \"one_hot\" }\nencoder = { kind = \"rnn\", hidden = 3 }\n\
                   [model.memories]\nkind = \"each\"\n";
    place.write("table.toml", config("csv", "") + streams);
    place
}

#[test]
fn further_sources_are_streams_that_the_model_reads() {
    let place = place_with_streams();
    place.call("check table.toml").succeeds();
    let out = place.call("run table.toml --set train.epochs=3 --set evaluate.by=['how']").succeeds();
    assert!(out.contains("how_tokens") && out.contains("unknown_reason_tokens"), "{out}");
    let run = place.only_run();
    let results: Value = serde_json::from_slice(&place.read(&format!("{run}/results.json"))).expect("JSON");
    // 20 rows of two words and 20 of one; 14 of seven letters; an end each.
    assert_eq!(results["test"]["counts"]["streams"]["how"], serde_json::json!({ "tokens": 100, "unknown": 0 }));
    assert_eq!(results["test"]["counts"]["streams"]["reason"], serde_json::json!({ "tokens": 138, "unknown": 0 }));
    assert_eq!(results["test"]["by"]["how"].as_array().map(Vec::len), Some(2));
    // Its page tells where one source ends, and of which value an example is.
    let page = String::from_utf8(place.read(&format!("{run}/report.html"))).expect("text");
    assert!(page.contains("class=\"rule\"") && page.contains("<title>reason</title>"), "no rule between sources");
    assert!(page.contains("how: up;loud"), "no value of an example");
    assert!(!out.contains(" |  ->"), "{out}");

    // What was answered is answered again by the file of the model alone, from a table of other columns.
    let answers = String::from_utf8(place.read(&format!("{run}/predictions-test.jsonl"))).expect("text");
    let answers: Vec<Value> = answers.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let mut input = "why\tword\thow\n".to_owned();
    for answer in &answers {
        let stream = |name: &str| text(&answer["streams"][name]);
        input += &format!("{}\t{}\t{}\n", stream("reason"), text(&answer["source"]), stream("how"));
    }
    place.write("in.tsv", &input);
    std::fs::rename(place.path(&format!("{run}/model.safetensors")), place.path("model.safetensors")).expect("a model");
    let said = place.call("predict model.safetensors --input in.tsv").succeeds();
    let expected: String = answers.iter().map(|answer| text(&answer["answers"][0]["text"]) + "\n").collect();
    assert_eq!(said, expected);
    let json = place.call("predict model.safetensors --input in.tsv --json").succeeds();
    let first: Value = serde_json::from_str(json.lines().next().expect("an answer")).expect("JSON");
    assert_eq!((&first["source"], &first["streams"]), (&answers[0]["source"], &answers[0]["streams"]));

    // What is asked beside the source makes a difference, and what is unknown there is told.
    let ask = |how: &str| place.call_with("predict model.safetensors --scores", format!("word,how,why\nabcd,{how},\n"));
    let (up, low) = (ask("up;loud").succeeds(), ask("low").succeeds());
    assert_ne!(up, low);
    assert_ne!(up, ask("up").succeeds());
    let err = ask("sideways").err();
    assert!(err.contains("1 of 1 `how` tokens (100.0 %) are unknown"), "{err}");
    // What is suggested against other columns and lengths can be set for the model alone.
    let other = "word,manner,why\nabcd,up;loud,\n";
    let answer = place.call_with("predict model.safetensors --scores", other).refuses();
    assert!(
        answer.contains("no column `how`, which streams.how.column names; there are `word`, `manner`, `why`"),
        "{answer}"
    );
    let set = "--set streams.how.column=manner";
    assert_eq!(place.call_with(&format!("predict model.safetensors --scores {set}"), other).succeeds(), up);
    let set = "--set streams.how.max_length=1";
    let answer =
        place.call_with(&format!("predict model.safetensors --scores {set} {set}"), "word,how,why\nab,up;loud,\n");
    assert!(answer.refuses().contains("raise streams.how.max_length"), "{}", answer.err());
    let short = "--set streams.how.max_length=1";
    let answer = place.call(&format!("train table.toml {short}")).refuses();
    assert!(answer.contains("`how` has 2 tokens, more than streams.how.max_length = 1"), "{answer}");

    let rows = "word,how,why,said\nab,up;loud,,A B\nab,low,,A B\n";
    let scores = place.call_with("score model.safetensors", rows).succeeds();
    let scores: Vec<&str> = scores.lines().collect();
    assert!(scores.len() == 2 && scores[0] != scores[1], "{scores:?}");
}

/// Streams are known by their names, wherever they stand among the others: what is theirs of a bridge and a readout, too.
#[test]
fn what_a_model_has_for_its_streams_follows_their_names() {
    let place = place_with_streams();
    let also = "extends = \"table.toml\"\n[streams.also]\ncolumn = \"why\"\nencoder = { kind = \"gru\", hidden = 5 }\n";
    place.write("more.toml", also);
    place.call("train table.toml -q --run parent --set train.epochs=1").succeeds();
    let still = "--set train={replace=true,steps=1,optimizer={kind='sgd',learning_rate=1e-37}}";
    place.call(&format!("train more.toml -q --run fresh {still}")).succeeds();
    let own = "--set train.start_from={model='parent',leave_out=['streams.0','decoder.streams.0']}";
    place.call(&format!("train more.toml -q --run child {still} {own}")).succeeds();
    let read = |run: &str| {
        let file = place.path(&format!("{run}/model.safetensors"));
        let saved = antiphon::SavedModel::read(&file, &burn::tensor::Device::flex()).expect("a model");
        antiphon_train::save_weights(&saved.model)
    };
    let (parent, fresh, child) = (read("parent"), read("fresh"), read("child"));
    let rows = |weights: &[antiphon_train::Weight], path: &str, rows: std::ops::Range<usize>| {
        let weight = weights.iter().find(|weight| weight.path == path).unwrap_or_else(|| panic!("no {path}"));
        let width = weight.dims[1];
        weight.values[rows.start * width..rows.end * width].to_vec()
    };
    for path in ["bridge.Linear.layers.0.weight", "decoder.readout.context"] {
        // Both directions of each.
        for (what, theirs, own) in [("source", 0..32, 0..32), ("how", 32..40, 42..50), ("reason", 40..46, 50..56)] {
            assert!(rows(&child, path, own.clone()) == rows(&parent, path, theirs), "{path}: {what}");
            assert!(rows(&child, path, own.clone()) != rows(&fresh, path, own), "{path}: {what}");
        }
        assert!(rows(&child, path, 32..42) == rows(&fresh, path, 32..42), "{path}: a new stream is drawn");
    }
    for (own, theirs) in [("streams.1", "streams.0"), ("decoder.streams.2", "decoder.streams.1")] {
        let of = |weights: &[antiphon_train::Weight], part: &str| {
            let own = weights.iter().filter(|weight| weight.path.starts_with(&format!("{part}.")));
            own.map(|weight| weight.values.clone()).collect::<Vec<_>>()
        };
        assert!(!of(&child, own).is_empty() && of(&child, own) == of(&parent, theirs), "{own}");
    }
    // Without its streams a model takes what is of the source.
    let alone = "--set streams={replace=true} --set model.memories={replace=true,kind='concatenated'}";
    place
        .call(&format!("train table.toml -q --run alone {still} {alone} --set train.start_from.model=parent"))
        .succeeds();
    let alone = read("alone");
    for path in ["bridge.Linear.layers.0.weight", "decoder.readout.context"] {
        assert!(rows(&alone, path, 0..32) == rows(&parent, path, 0..32), "{path}");
    }
    let wide = "--set streams.how.encoder.hidden=5 --set train.start_from.model=parent";
    let said = place.call(&format!("train table.toml -q --run wide {still} {wide}")).refuses();
    for path in ["bridge.Linear.layers.0.weight", "decoder.readout.context"] {
        assert!(said.contains(&format!("\n  {path}: has 8 rows for `how` there, and 10 here\n")), "{said}");
    }
}

#[test]
fn what_is_looked_at_is_told_of_every_run_that_has_streams() {
    let place = place_with_streams();
    let equal = "--set streams.how.encoder.hidden=16 --set streams.reason.encoder.hidden=16 --set train.epochs=1";
    for kind in ["each", "concatenated"] {
        place.call(&format!("train table.toml {equal} --set model.memories.kind={kind}")).succeeds();
    }
    let listed = place.call("runs").succeeds();
    assert!(listed.contains("memories.kind") && listed.contains("concatenated"), "{listed}");
    let found = place.call("runs --where memories.kind=concatenated").succeeds();
    assert!(found.contains("concatenated") || found.lines().count() == 2, "{found}");
}
