//! What a user can get wrong, and the answer: file, place and remedy, exit code 2.

use crate::place::{CONFIG, Called, Place, finished};

#[test]
fn all_problems_of_a_config_are_one_answer() {
    let place = Place::new();
    let text = CONFIG.replace("hidden = 16\ndropout", "hiden = 16\ndropout").replace("epochs = 2", "epochs = 0");
    place.write("bad.toml", text + "min_length = 5000\n");
    for command in ["check", "run", "train"] {
        assert_eq!(
            place.call(&format!("{command} bad.toml")).refuses(),
            "error: bad.toml: 3 problems\n  \
             model.decoder.hiden (line 26): no such key; did you mean `hidden`?\n  \
             train.epochs (line 36): must be at least 1, got 0\n  \
             search.min_length (line 46): must be below `max_length.limit` (500), got 5000"
        );
    }
    assert!(!place.path("runs").exists());
}

#[test]
fn assignments_and_the_environment_are_checked_like_files() {
    let place = Place::new();
    let answer = place.call("check tiny.toml --set search.wdth=3 --set seed=-1").refuses();
    assert!(answer.contains("search.wdth (--set): ") && answer.contains("seed (--set): "), "{answer}");
    let mut command = place.command("check tiny.toml");
    let output = command.env("ANTIPHON__SEARCH__WIDTH", "0").output().unwrap();
    let answer = crate::place::Called(output).refuses();
    assert!(answer.contains("search.width (environment variable ANTIPHON__SEARCH__WIDTH): "), "{answer}");
    let answer = place.call("check none.toml").refuses();
    assert!(answer.starts_with("error: none.toml: "), "{answer}");
}

#[test]
fn a_good_config_is_printed_with_the_places_of_its_settings() {
    let out = Place::new().call("check tiny.toml --set seed=7").succeeds();
    assert!(out.contains("model.decoder.hidden = 16  # tiny.toml line 26\n"), "{out}");
    assert!(out.contains("seed = 7  # --set\n") && out.ends_with("no problems; the run is called tiny\n"), "{out}");
}

#[test]
fn a_missing_corpus_names_what_prepares_it() {
    let place = Place::new();
    let answer = place.call("run tiny.toml --set data.train=cmudict/train.tsv --set data.recipe=cmudict").refuses();
    assert!(answer.starts_with("error: data/cmudict/train.tsv: no such file"), "{answer}");
    assert!(answer.contains("; set --data-dir or ANTIPHON_DATA_DIR, or prepare it with "), "{answer}");
    assert!(answer.ends_with(&format!("`{} data cmudict`", env!("CARGO_BIN_EXE_antiphon"))), "{answer}");
}

#[test]
fn a_broken_corpus_names_file_line_and_remedy() {
    let place = Place::new();
    let good = String::from_utf8(place.read("data/train.tsv")).unwrap();
    for (content, expected) in [
        (good.clone() + "no tab here\n", "line 601: no tab: write `source<TAB>target`"),
        (good.clone() + "ab\t\n", "line 601: the target is empty"),
        (String::new(), "data/train.tsv: "),
    ] {
        place.write("data/train.tsv", content);
        let answer = place.call("run tiny.toml").refuses();
        assert!(answer.starts_with("error: data/train.tsv: ") && answer.contains(expected), "{answer}");
    }
    place.write("data/train.tsv", [good.as_bytes(), b"a\xFF\tA\n"].concat());
    let answer = place.call("run tiny.toml").refuses();
    assert!(answer.contains("line 601: byte 2 is not UTF-8"), "{answer}");

    // Where the config asks for it, such lines are left out and counted.
    let err = place.call("train tiny.toml --set data.on_bad_line=skip --set train.epochs=1").err();
    assert!(err.contains("warning: data/train.tsv: left out as unusable: ") && err.contains("not UTF-8"), "{err}");
}

#[test]
fn an_example_over_the_limits_is_named_or_left_out() {
    let place = Place::new();
    let answer = place.call("run tiny.toml --set data.max_source=4").refuses();
    assert!(answer.contains("the source has 5 tokens, more than data.max_source = 4"), "{answer}");
    let words = "run tiny.toml --set data.max_source=4 --set data.too_long=skip --set train.epochs=1";
    let out = place.call(words).succeeds();
    let skipped = out.lines().find(|line| line.starts_with("skipped")).unwrap_or_default();
    let counts: Vec<u32> = skipped.split_whitespace().skip(1).map(|n| n.parse().unwrap()).collect();
    assert!(counts.len() == 2 && counts.iter().all(|&n| n > 0), "{out}");
}

#[test]
fn a_warm_up_longer_than_the_run_is_found_before_there_is_a_run() {
    let place = Place::new();
    let long = "tiny.toml --set train.schedule={kind='linear',warmup=100}";
    for command in ["check", "run", "train"] {
        let answer = place.call(&format!("{command} {long}")).refuses();
        assert!(answer.starts_with("error: tiny.toml: train.schedule.warmup"), "{answer}");
        assert!(answer.ends_with("the warm-up takes 100 steps, but the run has only 38: lower it or train longer"));
    }
    assert!(!place.path("runs").exists());
    // By tokens, the number of batches is known only when the text is cut.
    let batches = "--set batch={replace=true,kind='tokens',count=100000}";
    let short = long.replace("100}", "2}");
    place.call(&format!("check {short}")).succeeds();
    assert!(place.call(&format!("check {short} {batches}")).refuses().contains("the run has only 2: "));
    std::fs::remove_dir_all(place.path("data")).unwrap();
    let called = place.call(&format!("check {short}"));
    let missing = "warning: tiny.toml: data.train (line 6): no such file `data/train.tsv`; set --data-dir or ";
    assert!(
        called.err().contains(missing) && called.err().contains("is not known without its data"),
        "{}",
        called.err()
    );
    called.succeeds();
}

#[test]
fn a_check_names_the_files_that_are_missing() {
    let place = Place::new();
    assert_eq!(place.call("check tiny.toml").err(), "");
    let words = "check tiny.toml --set data.validation=none.tsv --set data.test=../data --set tokenizer.source={kind='file',path='t.json'}";
    let err = place.call(words).err();
    let expected = [
        "data.validation (--set): no such file `data/none.tsv`; set --data-dir or ANTIPHON_DATA_DIR",
        "data.test (--set): not a file `data/../data`; set --data-dir or ANTIPHON_DATA_DIR",
        "tokenizer.source.path (--set): no such file `data/t.json`; name another file",
    ];
    let expected: Vec<String> = expected.iter().map(|line| format!("warning: tiny.toml: {line}")).collect();
    assert_eq!(err.lines().collect::<Vec<_>>(), expected);
    place.call(words).succeeds();
    let err = place.call("check tiny.toml --set data.validation=data/none.tsv").err();
    assert!(
        err.contains("no such file `data/data/none.tsv`; it is named from that folder on: write `none.tsv`"),
        "{err}"
    );
    // Whoever names the folder means these files.
    let answer = place.call(&format!("{words} --data-dir data")).refuses();
    assert!(answer.starts_with("error: tiny.toml: 3 problems\n  data.validation (--set): no such file"), "{answer}");
    let err = place.call("check tiny.toml --set data.test=train.tsv --data-dir data").err();
    assert!(err.contains("data.test (--set): is the file of `data.train` too: "), "{err}");
}

#[test]
fn a_check_names_the_missing_files_of_all_cells_and_every_warning() {
    let place = Place::new();
    place
        .write("sweep.toml", "extends = \"tiny.toml\"\n[sweep.over]\n\"data.train\" = [\"train.tsv\", \"more.tsv\"]\n");
    let err = place.call("check sweep.toml").err();
    let expected = "sweep.over.\"data.train\" (line 3): no such file `data/more.tsv`; set --data-dir";
    assert!(err.contains(expected), "{err}");
    let called = place.call("check sweep.toml --data-dir data --set model.encoder.dropout=0.5");
    assert!(called.refuses().contains("no such file `data/more.tsv`"), "{}", called.err());
    assert!(called.err().contains("warning: sweep.toml: model.encoder.dropout"), "{}", called.err());
}

#[test]
fn a_setting_that_names_several_missing_files_is_named_once() {
    let place = Place::new();
    let files = "{ source = \"s\", target = \"t\" }";
    let test = "{ source = \"s\", target = [\"a\", \"b\"] }";
    let data = format!("data={{ kind = \"parallel\", train = {files}, validation = {files}, test = {test} }}");
    let sets = ["run", "tiny.toml", "--set", &data];
    let answer = Called(place.command("").args(sets).output().unwrap()).refuses();
    let expected = ", data.test.source, data.test.target; set --data-dir";
    assert!(answer.contains(": data.train.source names it") && answer.contains(expected), "{answer}");
}

#[test]
fn a_taken_folder_is_left_alone() {
    let place = Place::new();
    place.write("mine/notes.txt", "precious");
    let answer = place.call("run tiny.toml --run mine").refuses();
    assert!(answer.starts_with("error: mine: is taken, and nothing is overwritten"), "{answer}");
    assert_eq!(place.read("mine/notes.txt"), b"precious");
    assert_eq!(std::fs::read_dir(place.path("mine")).unwrap().count(), 1);
}

#[test]
fn a_loss_that_is_not_finite_names_the_batch() {
    let place = Place::new();
    let answer = place.call("train tiny.toml --set train.optimizer.learning_rate=1e38").refuses();
    assert!(answer.contains("epoch 1, batch ") && answer.contains("(examples "), "{answer}");
    let manifest = String::from_utf8(place.read(&format!("{}/manifest.json", place.only_run()))).unwrap();
    assert!(manifest.contains("\"failed\""), "{manifest}");
}

#[test]
fn a_run_without_a_checkpoint_names_the_command_only_where_it_means_this_run() {
    let remedy = |place: &Place| place.call(&format!("predict {}", place.only_run())).refuses();
    let words = "train tiny.toml --set train.optimizer.learning_rate=1e38";
    let place = Place::new();
    place.call(words).refuses();
    assert!(remedy(&place).ends_with(&format!(" {words}`")), "{}", remedy(&place));
    let prose = "it is not trained to its end; run its config once more to go on";
    place.write("tiny.toml", CONFIG.replace("width = 3", "width = 4"));
    assert!(remedy(&place).ends_with(prose), "{}", remedy(&place));
    // What a variable said is not in the command.
    let place = Place::new();
    Called(place.command(words).env("ANTIPHON__seed", "9").output().unwrap()).refuses();
    assert!(remedy(&place).ends_with(prose), "{}", remedy(&place));
}

#[test]
fn what_is_no_model_is_told_apart() {
    let (place, run, _) = finished();
    let error = |what: &str| place.call(&format!("predict {what}")).refuses();
    assert!(error("nothing").starts_with("error: nothing: no such run, model or config"));
    assert!(error("data").contains("is not a run folder"), "{}", error("data"));
    assert!(error("data/train.tsv").starts_with("error: data/train.tsv: is damaged or not ours"));

    let model = place.read(&format!("{run}/model.safetensors"));
    let scratch = Place::new();
    for length in [0, 5, model.len() / 2, model.len() - 1] {
        scratch.write("cut.safetensors", &model[..length]);
        let answer = scratch.call("predict cut.safetensors").refuses();
        assert!(answer.starts_with("error: cut.safetensors: is damaged or not ours"), "{length}: {answer}");
    }
    // A checkpoint is no model.
    let checkpoint = std::fs::read_dir(place.path(&format!("{run}/checkpoints"))).unwrap().next().unwrap().unwrap();
    let answer = place.call(&format!("predict {}", crate::place::shown(&checkpoint.path()))).refuses();
    assert!(answer.contains("holds a checkpoint, not a model"), "{answer}");
}

#[test]
fn a_model_of_a_newer_version_says_so() {
    let (place, run, _) = finished();
    let mut model = place.read(&format!("{run}/model.safetensors"));
    // Our metadata lie inside of the file's header, as JSON in a JSON string.
    let old: &[u8] = br#"\"format\":1,\"name\":\"tiny\""#;
    let new: &[u8] = br#"\"format\":9,\"name\":\"tiny\""#;
    let at = model.windows(old.len()).position(|part| part == old).expect("the metadata");
    model[at..at + new.len()].copy_from_slice(new);
    let scratch = Place::new();
    scratch.write("newer.safetensors", model);
    let answer = scratch.call("predict newer.safetensors").refuses();
    assert!(answer.starts_with("error: newer.safetensors: was written by version"), "{answer}");
    assert!(answer.contains("format 9"), "{answer}");
}

#[test]
fn settings_of_a_trained_model_stay() {
    let (place, run, _) = finished();
    let answer = place.call(&format!("predict {run} --set train.epochs=9")).refuses();
    assert!(answer.contains("`train.epochs=9` cannot be changed"), "{answer}");
    for slip in ["seach.width=2", "width=2"] {
        let answer = place.call(&format!("predict {run} --set {slip}")).refuses();
        assert!(answer.contains("no such setting: ") && answer.ends_with("did you mean `search.width`?"), "{answer}");
    }
    let answer = place.call(&format!("evaluate {run} --set search.width=0")).refuses();
    assert!(answer.contains("search.width (--set): must be at least 1"), "{answer}");
    let answer = place.call(&format!("predict {run} --set search.kind=greedy --n-best 2")).refuses();
    assert!(answer.contains("greedy search gives one answer"), "{answer}");
    let answer = place.call("predict tiny.toml --set seed=99").refuses();
    assert!(answer.contains("has not been run with these settings"), "{answer}");
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_an_error() {
    let (place, run, _) = finished();
    let answer = place.call_with(&format!("predict {run} --output /dev/full"), "abc\n").refuses();
    assert!(answer.starts_with("error: /dev/full: cannot write: "), "{answer}");
}
