//! Sweeps: cells, what is found again, what is interrupted, what fails, what is chosen.

use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::place::{Called, Place, pairs};

const GRID: &str = r#"
extends = "tiny.toml"

[train]
epochs = 1

[sweep]
metric = "sequence_error_rate"
seeds = [1, 2]

[sweep.over]
"model.encoder.kind" = ["gru", "rnn"]
"train.optimizer.learning_rate" = [1e-2, 1e-3]
"#;

fn place(sweep: &str) -> Place {
    let place = Place::new();
    place.write("sweep.toml", sweep);
    place
}

/// The only sweep's folder.
fn folder(place: &Place) -> PathBuf {
    let mut all = std::fs::read_dir(place.path("runs/sweeps")).expect("there are sweeps");
    let one = all.next().expect("a sweep").expect("an entry").path();
    assert!(all.next().is_none());
    one
}

/// The folders of all runs, in the order of their names.
fn runs(place: &Place) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(place.path("runs")).map(|entries| entries.map(|e| e.unwrap().path()));
    let mut runs: Vec<PathBuf> =
        entries.into_iter().flatten().filter(|path| path.join("manifest.json").exists()).collect();
    runs.sort();
    runs
}

fn json(path: PathBuf) -> Value {
    serde_json::from_slice(&std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))).unwrap()
}

fn tested(place: &Place) -> Vec<PathBuf> {
    runs(place)
        .into_iter()
        .filter(|run| run.join("results.json").exists() && json(run.join("results.json"))["test"].is_object())
        .collect()
}

#[test]
fn a_dry_run_lists_every_cell_and_runs_none() {
    let place = place(GRID);
    let out = place.call("sweep sweep.toml --dry-run").succeeds();
    assert_eq!(out.lines().filter(|line| line.ends_with("to run")).count(), 8, "{out}");
    assert!(out.contains("3-seed-2  model.encoder.kind=rnn train.optimizer.learning_rate=0.01"), "{out}");
    assert!(
        out.contains("4 cells, 8 runs; compared by sequence_error_rate on the validation split, less is better"),
        "{out}"
    );
    assert!(!place.path("runs").exists());
    // Without its data there is still a list.
    std::fs::remove_dir_all(place.path("data")).unwrap();
    assert!(place.call("sweep sweep.toml --dry-run").succeeds().lines().any(|line| line.ends_with('?')));
    let answer = place.call("sweep sweep.toml").refuses();
    assert!(answer.contains("data/train.tsv: no such file") && !place.path("runs").exists(), "{answer}");
}

#[test]
fn everything_wrong_is_told_before_anything_runs() {
    let wrong = GRID.replace("model.encoder.kind", "model.encoder.knd").replace("1e-3]", "-1.0]");
    let place = place(&wrong);
    let answer = place.call("sweep sweep.toml").refuses();
    for expected in [
        "error: sweep.toml: 2 problems\n",
        "model.encoder.knd (line 12): no such key; did you mean `kind`?",
        "train.optimizer.learning_rate (line 13): must be more than 0, got -1.0 (in 2 of 4 cells, the first is ",
    ] {
        assert!(answer.contains(expected), "{answer}");
    }
    for (from, to, expected) in [
        ("[sweep.over]", "[sweep.ovr]", "sweep.ovr (line 11): no such key; did you mean `over`?"),
        (
            "[sweep]",
            "[sweep]\nstrategy = { kind = \"grd\" }",
            "sweep.strategy.kind (line 8): no such kind: \"grd\"; did you mean `grid`?",
        ),
        ("sequence_error_rate", "bleu", "sweep.metric (line 8): the validation split gives no `bleu`; it gives "),
        (
            "\"model.encoder.kind\"",
            "seed",
            "sweep.over.seed (line 12): cannot be varied: name the seeds in `sweep.seeds`",
        ),
    ] {
        place.write("sweep.toml", GRID.replace(from, to));
        let answer = place.call("sweep sweep.toml").refuses();
        assert!(answer.contains(expected), "{to}: {answer}");
        assert_eq!(place.call("check sweep.toml").refuses(), answer, "a check checks every cell");
    }
    let answer = place.call("sweep tiny.toml").refuses();
    assert!(answer.starts_with("error: tiny.toml: has no `[sweep]`: add one"), "{answer}");
    assert!(!place.path("runs").exists());
}

#[test]
fn equal_cells_and_settings_without_effect_are_told_before_anything_runs() {
    let rates = "\"train.optimizer.learning_rate\" = [1e-2, 1e-3]";
    let place = place(&GRID.replace(rates, "\"train.l2\" = [0, 0.0]"));
    let answer = place.call("sweep sweep.toml").refuses();
    assert!(answer.contains("(line 13): `0.0` is the same setting as `0`: remove one of the two"), "{answer}");
    // In two ways the same, as only the meaning of the settings tells.
    place.write("sweep.toml", GRID.replace("[1e-2, 1e-3]", "[1e-2]\n\"evaluate.show\" = [1, 2]"));
    let answer = place.call("sweep sweep.toml").refuses();
    assert!(answer.contains("(line 14): `2` gives the same settings as `1`: remove one of the two"), "{answer}");

    let idle = "\"model.encoder.layers\" = [1, 2]\n\"model.encoder.dropout\" = [0.0, 0.2, 0.4]";
    place.write("sweep.toml", GRID.replace(rates, idle));
    let called = place.call("sweep sweep.toml --dry-run");
    for expected in [
        "model.encoder.dropout (line 14): has no effect with a single layer (in 4 of 12 cells, the first is ",
        "sweep.over.\"model.encoder.dropout\" (line 14): 8 of 24 runs only repeat others, because \
         `model.encoder.dropout` has no effect there: the first is cell 5 (",
    ] {
        assert!(called.err().contains(expected), "{}", called.err());
        assert!(place.call("check sweep.toml").err().contains(expected));
    }
    assert_eq!(called.succeeds().lines().filter(|line| line.ends_with("to run")).count(), 24);
    // The default of 2 has an effect, where 10 has none: nothing is repeated, but by what has no effect either.
    let schedule = "\n[train.schedule]\nkind = \"plateau\"\n";
    for (patience, repeats) in [("[2, 10]", false), ("[10, 12]", true)] {
        let patience = format!(
            "\"train.epochs\" = [5]\n\"train.validate.every_epochs\" = [1]\n\
                                \"train.schedule.patience\" = {patience}"
        );
        place.write("sweep.toml", GRID.replace(rates, &patience) + schedule);
        let said = place.call("check sweep.toml").err();
        assert!(
            said.contains("has no effect: the run is validated 5 times, and ends before patience can run out"),
            "{said}"
        );
        assert_eq!(said.contains("only repeat others"), repeats, "{said}");
    }
    // As it says.
    let when = "[sweep.when]\n\"model.encoder.dropout\" = { \"model.encoder.layers\" = [2] }\n";
    place.write("sweep.toml", GRID.replace(rates, idle) + when);
    let called = place.call("sweep sweep.toml --dry-run");
    assert_eq!(called.err(), "");
    assert!(called.succeeds().contains("8 cells, 16 runs; "));
    // Equal by what stays as it is: one cell.
    let sizes =
        "size = [{ \"model.encoder.hidden\" = 8 }, { \"model.encoder.hidden\" = 8, \"model.encoder.layers\" = 1 }]";
    place.write("sweep.toml", GRID.replace(rates, sizes));
    let called = place.call("sweep sweep.toml --dry-run");
    assert!(
        called.err().contains(" model.encoder.layers=1: these are the settings of model.encoder.hidden=8 "),
        "{}",
        called.err()
    );
    assert!(called.succeeds().contains("2 cells, 4 runs; "));
}

#[test]
fn settings_that_move_together_are_one_axis() {
    let size = "size = [\n  { label = \"small\", \"model.encoder.hidden\" = 8, \"model.decoder.hidden\" = 8 },\n  \
                { label = \"large\", \"model.encoder.hidden\" = 16, \"model.decoder.hidden\" = 12 },\n]";
    let place = place(
        &GRID
            .replace("\"train.optimizer.learning_rate\" = [1e-2, 1e-3]", size)
            .replace("[1, 2]", "[1]")
            .replace("[\"gru\", \"rnn\"]", "[\"gru\"]"),
    );
    let out = place.call("sweep sweep.toml --dry-run").succeeds();
    assert!(out.contains("1-seed-1  size=small model.encoder.kind=gru") && out.contains("2 cells, 2 runs"), "{out}");
    assert!(out.contains("\nsize=small: model.decoder.hidden=8 model.encoder.hidden=8\n"), "{out}");
    let out = place.call("sweep sweep.toml -q").succeeds();
    let large = "size=large: model.decoder.hidden=12 model.encoder.hidden=16";
    assert!(out.contains(&format!("\n- {large}\n")) && out.contains("Chosen: cell "), "{out}");
    let best = std::fs::read_to_string(folder(&place).join("best.toml")).unwrap();
    assert!(best.contains("size=") && best.contains("\n# size="), "{best}");
    let widths = |run: &PathBuf| {
        let config = std::fs::read_to_string(run.join("config.toml")).unwrap();
        config.lines().filter(|line| line.starts_with("hidden = ")).map(str::to_owned).collect::<Vec<_>>().join(" ")
    };
    let mut all: Vec<String> = runs(&place).iter().map(widths).collect();
    all.sort();
    assert_eq!(all, ["hidden = 12 hidden = 16", "hidden = 8 hidden = 8"]);
    place.write(
        "sweep.toml",
        std::fs::read_to_string(place.path("sweep.toml"))
            .unwrap()
            .replace("decoder.hidden\" = 12", "decoder.hiden\" = 12"),
    );
    let answer = place.call("sweep sweep.toml").refuses();
    assert!(answer.contains("model.decoder.hiden (line 13): no such key; did you mean `hidden`?"), "{answer}");
    place.write(
        "sweep.toml",
        format!("{GRID}size = [{{ model.encoder.hidden = 8 }}, {{ model.encoder.hidden = 9 }}]\n"),
    );
    let answer = place.call("sweep sweep.toml").refuses();
    let expected =
        "sweep.over.size (line 14): is no setting; those that move together stand in tables of dotted keys, in quotes";
    assert!(answer.contains(expected), "{answer}");
}

#[test]
fn a_sweep_chooses_by_validation_and_tests_the_chosen_cell_alone() {
    let place = place(GRID);
    let called = place.call("sweep sweep.toml --jobs 2");
    assert!(called.err().contains("finished 1-seed-1: sequence_error_rate "), "{}", called.err());
    let out = called.succeeds();
    assert_eq!(runs(&place).len(), 8);
    // The table is that of the runs' own files.
    let mut means: Vec<(f64, String)> = Vec::new();
    for kind in ["gru", "rnn"] {
        for rate in ["0.01", "0.001"] {
            let of_cell = |run: &PathBuf| {
                let config = std::fs::read_to_string(run.join("config.toml")).unwrap();
                let encoder = config.split("[model.encoder]").nth(1).unwrap();
                encoder.contains(&format!("kind = \"{kind}\"")) && config.contains(&format!("learning_rate = {rate}\n"))
            };
            let figures: Vec<f64> = runs(&place)
                .into_iter()
                .filter(of_cell)
                .map(|run| {
                    json(run.join("results.json"))["validation"]["metrics"]["sequence_error_rate"]["value"]
                        .as_f64()
                        .unwrap()
                })
                .collect();
            assert_eq!(figures.len(), 2);
            let label = format!("model.encoder.kind={kind} train.optimizer.learning_rate={rate}");
            means.push((figures.iter().sum::<f64>() / 2.0, label));
        }
    }
    for (mean, label) in &means {
        assert!(
            out.lines().any(|line| line.contains(label) && line.contains(&format!("| {mean:.4} "))),
            "{mean} {label}\n{out}"
        );
    }
    let best = means.iter().map(|(mean, _)| *mean).fold(f64::INFINITY, f64::min);
    let chosen = out.lines().find(|line| line.starts_with("Chosen: cell ")).unwrap_or_else(|| panic!("{out}"));
    assert!(means.iter().any(|(mean, label)| *mean == best && chosen.contains(label)), "{out}");
    assert!(out.contains("paired approximate randomization") && out.contains("p = "), "{out}");
    assert!(out.contains("\nCost: ") && out.contains(" core-minutes, all 8 finished runs together.\n"), "{out}");
    assert_eq!(tested(&place).len(), 2, "the two seeds of one cell");

    // The same command does nothing and says the same.
    let before: Vec<Vec<u8>> =
        runs(&place).iter().map(|run| std::fs::read(run.join("manifest.json")).unwrap()).collect();
    let again = place.call("sweep sweep.toml --jobs 2");
    assert!(
        again.err().contains("4 cells, 8 runs: 8 finished") && !again.err().contains("finished 1"),
        "{}",
        again.err()
    );
    assert_eq!(again.succeeds(), out);
    let after: Vec<Vec<u8>> =
        runs(&place).iter().map(|run| std::fs::read(run.join("manifest.json")).unwrap()).collect();
    assert_eq!(before, after);
    // The best cell's config is the experiment that was run.
    let best = folder(&place).join("best.toml");
    let called = place.call(&format!("run {}", best.display()));
    assert!(called.err().contains(": finished; --again"), "{}", called.err());
    assert_eq!(
        std::fs::read_to_string(folder(&place).join("results.md")).unwrap(),
        out[..out.find("\nthe page").unwrap()]
    );
}

const RESTARTS: &str = r#"
extends = "tiny.toml"

[train]
epochs = 1

[evaluate]
metrics = [{ kind = "exact_match" }]
pass_mark = { exact_match = 0.0 }

[sweep]
restarts = true
seeds = [1, 2, 3]

[sweep.over]
task = [{ label = "one", "data.train" = "train.tsv" }, { label = "two", "data.train" = "few.tsv" }]
"#;

#[test]
fn of_restarts_the_best_on_validation_is_taken_of_each_task() {
    let place = place(RESTARTS);
    place.write("data/few.tsv", pairs(700..800));
    let called = place.call("sweep sweep.toml --dry-run").succeeds();
    assert!(called.contains("2 cells, 6 runs; the runs of a cell are restarts, compared by loss "), "{called}");
    let out = place.call("sweep sweep.toml --jobs 2").succeeds();
    let all = runs(&place);
    assert_eq!(all.len(), 6);
    let (mut taken, mut mean, mut minutes) = (Vec::new(), 0.0, 0.0);
    for task in ["train.tsv", "few.tsv"] {
        let is_own = |run: &&PathBuf| {
            std::fs::read_to_string(run.join("config.toml")).unwrap().contains(&format!("train = \"{task}\""))
        };
        let loss =
            |run: &PathBuf| json(run.join("results.json"))["validation"]["losses"]["per_token"].as_f64().unwrap();
        let best = all.iter().filter(is_own).min_by(|a, b| loss(a).total_cmp(&loss(b))).unwrap();
        assert!(out.lines().any(|line| line.contains(&format!("| {:.4} ", loss(best)))), "{out}");
        mean += json(best.join("results.json"))["test"]["metrics"]["exact_match"]["value"].as_f64().unwrap() / 2.0;
        taken.push(best.clone());
    }
    for run in &all {
        minutes += json(run.join("manifest.json"))["cpu_seconds"].as_f64().unwrap() / 60.0;
    }
    taken.sort();
    assert_eq!(tested(&place), taken, "one run of each task");
    let line = |name: &str| out.lines().find(|line| line.contains(name)).unwrap_or_else(|| panic!("{name}\n{out}"));
    assert!(line("| mean over 2 cells ").trim_end_matches([' ', '|']).ends_with(&format!(" {mean:.2}")), "{out}");
    assert!(line("| passed ").contains("| 2 of 2, ≥ 0 "), "{out}");
    assert!(out.contains(&format!("\nCost: {minutes:.1} core-minutes, all 6 finished runs together.\n")), "{out}");

    // The same command does nothing and says the same; what was taken is the experiment that was run.
    assert_eq!(place.call("sweep sweep.toml --jobs 2").succeeds(), out);
    let folder = folder(&place);
    for cell in ["1", "2"] {
        let called = place.call(&format!("run {}", folder.join(format!("best/{cell}.toml")).display()));
        assert!(called.err().contains(": finished; --again"), "{}", called.err());
    }
    assert!(!folder.join("best.toml").exists());
    let called = place.call_with(&format!("predict --sweep {} --cell 2", folder.display()), "abc\n");
    assert!(called.err().contains("cell 2 (task=two), its best run"), "{}", called.err());
    let own = taken.iter().map(|run| place.call_with(&format!("predict {}", run.display()), "abc\n").succeeds());
    assert!(own.collect::<Vec<_>>().contains(&called.succeeds()));
    let answer = place.call(&format!("predict --sweep {}", folder.display())).refuses();
    assert!(answer.contains("--cell: each of its 2 cells is a task of its own, and none the best"), "{answer}");
    let answer = place.call("sweep sweep.toml --keep-ensemble").refuses();
    assert!(answer.contains("--keep-ensemble: each cell is a task of its own"), "{answer}");
    place.write("sweep.toml", RESTARTS.replace("[1, 2, 3]", "[1]"));
    let answer = place.call("sweep sweep.toml").refuses();
    assert!(answer.contains("sweep.restarts (line 12): restarts differ by their seeds"), "{answer}");
}

#[test]
fn a_run_that_fails_costs_its_cell_and_is_tried_again_when_asked() {
    let place = place(&GRID.replace("1e-3]", "1e38]").replace("seeds = [1, 2]", "seeds = [1]"));
    let called = place.call("sweep sweep.toml");
    assert_eq!(called.err().matches("\nfailed   ").count(), 2, "{}", called.err());
    let out = called.succeeds();
    assert!(out.contains("Not ranked:") && out.contains("2-seed-1 failed: the loss is "), "{out}");
    assert_eq!(tested(&place).len(), 1);
    let again = place.call("sweep sweep.toml");
    assert!(again.err().contains("2 finished, 2 failed (--retry-failed tries them again)"), "{}", again.err());
    assert!(again.err().contains("failed   2-seed-1: the loss is "), "{}", again.err());
    assert_eq!(again.succeeds(), out);
    let log = std::fs::read_to_string(folder(&place).join("logs/2-seed-1.log")).unwrap();
    assert_eq!(log.matches("error: ").count(), 1);
    place.call("sweep sweep.toml --retry-failed").succeeds();
    let log = std::fs::read_to_string(folder(&place).join("logs/2-seed-1.log")).unwrap();
    assert_eq!(log.matches("error: ").count(), 2);
}

#[test]
fn a_best_cell_that_cannot_be_measured_stays_the_best() {
    let place = place(&format!("{GRID}\n[data]\nmax_source = 20\n").replace("seeds = [1, 2]", "seeds = [1]"));
    place.write("data/test.tsv", format!("{}\tA\n", "a".repeat(21)));
    let chosen = |called: Called| {
        let err = called.err();
        let line = err.lines().find(|line| line.starts_with("chosen ")).unwrap_or_else(|| panic!("{err}"));
        assert!(called.refuses().contains("the chosen cell could not be measured on the test split"));
        line.to_owned()
    };
    let first = chosen(place.call("sweep sweep.toml"));
    assert_eq!(chosen(place.call("sweep sweep.toml")), first);
    assert!(!folder(&place).join("best.toml").exists() && tested(&place).is_empty());
}

#[test]
fn a_sweep_of_which_nothing_is_left_says_so() {
    let place = place(&GRID.replace("[1e-2, 1e-3]", "[1e38]").replace("seeds = [1, 2]", "seeds = [1]"));
    let called = place.call("sweep sweep.toml");
    assert!(called.err().ends_with("no cell has all its runs; the table says why\n"), "{}", called.err());
    assert_eq!(called.0.status.code(), Some(1));
}

#[test]
fn the_test_split_can_be_left_for_later() {
    let place = Place::new();
    let out = place.call("run tiny.toml --no-test").succeeds();
    let run = place.path(&place.only_run());
    let first = json(run.join("results.json"));
    assert!(
        first["test"].is_null() && first["validation"].is_object() && !run.join("predictions-test.jsonl").exists(),
        "{out}"
    );
    assert!(place.call("run tiny.toml --no-test").err().contains("finished; --again"));
    let called = place.call("run tiny.toml");
    assert!(!called.err().contains("train    "), "nothing is trained again: {}", called.err());
    called.succeeds();
    let both = json(run.join("results.json"));
    assert_eq!(both["validation"], first["validation"]);
    // One experiment, however it came about.
    let other = Place::new();
    other.call("run tiny.toml").succeeds();
    let at_once = json(other.path(&other.only_run()).join("results.json"));
    assert_eq!((&at_once["test"], &at_once["validation"]), (&both["test"], &both["validation"]));
}

const HALVING: &str = r#"
extends = "tiny.toml"

[train]
epochs = 4
schedule = { kind = "cosine" }

[sweep]
halving = { budget = "train.epochs", least = 1, eta = 2 }

[sweep.over]
"train.optimizer.learning_rate" = [1e-5, 1e-4, 1e-3, 1e-2]
"#;

#[test]
fn halving_stops_poor_cells_early_and_repeats_no_work() {
    let place = place(HALVING);
    let called = place.call("sweep sweep.toml");
    let out = called.err();
    let climbs: Vec<&str> = out.lines().filter(|line| line.starts_with("rung ")).map(|line| &line[..15]).collect();
    // Each cell is better than the one before.
    assert_eq!(
        climbs,
        [
            "rung 1/3 cell 1",
            "rung 1/3 cell 2",
            "rung 2/3 cell 2",
            "rung 1/3 cell 3",
            "rung 2/3 cell 3",
            "rung 3/3 cell 3",
            "rung 1/3 cell 4",
            "rung 2/3 cell 4",
            "rung 3/3 cell 4"
        ],
        "{out}"
    );
    let page = called.succeeds();
    assert!(
        page.contains("ended early: loss ")
            && page.contains("within 1 epochs")
            && page.contains("within 2 epochs")
            && page.contains("Chosen: cell 4"),
        "{page}"
    );
    // What was left on a rung is not what has never run.
    let listed = place.call("sweep sweep.toml --dry-run").succeeds();
    let stands = |word: &str| listed.lines().filter(|line| line.contains(&format!("  {word} sweep-"))).count();
    assert_eq!((stands("begun"), stands("finished"), listed.contains("to run")), (2, 2, false), "{listed}");
    // The run that climbed in three sessions is the run that nobody stopped.
    let whole = Place::new();
    whole.write("sweep.toml", HALVING);
    whole.call("run sweep.toml --set train.optimizer.learning_rate=1e-2").succeeds();
    let chosen = tested(&place);
    assert_eq!(chosen.len(), 1);
    assert_eq!(
        std::fs::read(chosen[0].join("model.safetensors")).unwrap(),
        whole.read(&format!("{}/model.safetensors", whole.only_run()))
    );
    let steps = std::fs::read_to_string(chosen[0].join("metrics.jsonl")).unwrap();
    assert_eq!(steps.lines().filter(|line| line.contains("\"kind\":\"step\"")).count(), 4 * 19);
    // The same command climbs no more.
    let again = place.call("sweep sweep.toml");
    assert!(!again.err().contains("rung "), "{}", again.err());
    assert_eq!(again.succeeds(), page);
}

#[test]
fn halving_is_checked() {
    let place = place(&HALVING.replace("least = 1", "least = 4"));
    let answer = place.call("sweep sweep.toml").refuses();
    assert!(answer.contains("sweep.halving.least (line 9): must be below `train.epochs` (4), got 4"), "{answer}");
    place.write("sweep.toml", HALVING.replace("[sweep]", "[sweep]\nmetric = \"sequence_error_rate\""));
    let answer = place.call("sweep sweep.toml").refuses();
    assert!(
        answer.contains("is not measured while training") && answer.contains("evaluate.validation_examples"),
        "{answer}"
    );
    place.write("sweep.toml", HALVING.replace("epochs = 4", "epochs = 4\nvalidate = { every_epochs = 2 }"));
    let answer = place.call("sweep sweep.toml").refuses();
    assert!(answer.contains("the first comes only after 2"), "{answer}");
    let mut command = place.command("sweep sweep.toml --launcher slurm");
    place.write("sweep.toml", HALVING);
    let answer = Called(command.env("PATH", "/nowhere").output().unwrap()).refuses();
    assert!(answer.contains("sweep.halving") && answer.contains("--launcher local"), "{answer}");
}

#[cfg(unix)]
mod signals {
    use super::*;

    fn send(pid: u32, signal: &str) {
        let status = Command::new("kill").args([signal, &pid.to_string()]).status();
        assert!(status.is_ok_and(|status| status.success()), "kill {signal}");
    }

    fn until(what: &str, mut holds: impl FnMut() -> bool) {
        let began = Instant::now();
        while !holds() {
            assert!(began.elapsed() < Duration::from_secs(60), "{what} does not come");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn lines(run: &Path) -> usize {
        std::fs::read_to_string(run.join("metrics.jsonl")).unwrap_or_default().lines().count()
    }

    fn ends(child: Child) -> Called {
        Called(child.wait_with_output().unwrap())
    }

    /// A sweep of two cells that take seconds.
    fn long() -> Place {
        place(
            &GRID
                .replace("epochs = 1", "epochs = 60\nvalidate = { every_epochs = 20 }")
                .replace("seeds = [1, 2]", "")
                .replace(", 1e-3]", "]"),
        )
    }

    #[test]
    fn a_stopped_sweep_goes_on_where_it_was() {
        let place = long();
        let child = place.start("sweep sweep.toml --jobs 2");
        until("two runs at work", || runs(&place).len() == 2 && runs(&place).iter().all(|run| lines(run) > 30));
        send(child.id(), "-TERM");
        let called = ends(child);
        assert_eq!(called.0.status.code(), Some(130), "{}", called.err());
        assert!(called.err().contains("stopped; go on with the same command (runs/sweeps/"), "{}", called.err());
        for run in runs(&place) {
            assert_eq!(json(run.join("manifest.json"))["status"]["kind"], "stopped");
            assert!(std::fs::read_dir(run.join("checkpoints")).unwrap().count() > 0, "the run saved itself");
        }
        let called = place.call("sweep sweep.toml --jobs 2");
        assert!(called.err().contains("2 runs: 0 finished\n"), "{}", called.err());
        let page = called.succeeds();
        // Unstopped, with one job at a time: the same models, the same page.
        let whole = long();
        assert_eq!(whole.call("sweep sweep.toml").succeeds(), page);
        for (run, other) in runs(&place).iter().zip(runs(&whole)) {
            let model = |run: &PathBuf| std::fs::read(run.join("model.safetensors")).unwrap();
            assert!(model(run) == model(&other), "{}", run.display());
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_crash_costs_a_run_and_not_the_sweep() {
        let place = long();
        let child = place.start("sweep sweep.toml");
        until("a run at work", || runs(&place).iter().any(|run| lines(run) > 30));
        let parent = child.id().to_string();
        let of_ours = |pid: &u32| {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            stat.rsplit_once(')').is_some_and(|(_, rest)| rest.split_whitespace().nth(1) == Some(&parent))
        };
        let mut all = std::fs::read_dir("/proc").unwrap().filter_map(|e| e.unwrap().file_name().to_str()?.parse().ok());
        let run = all.find(of_ours).expect("a child");
        send(run, "-KILL");
        let called = ends(child);
        assert!(called.err().contains("failed   1-seed-1: ended by signal 9"), "{}", called.err());
        let page = called.succeeds();
        assert!(page.contains("1-seed-1 failed: ended by signal 9") && page.contains("Chosen: cell 2"), "{page}");
        let page = place.call("sweep sweep.toml --retry-failed").succeeds();
        assert!(!page.contains("failed") && page.contains("difference"), "{page}");
    }

    #[test]
    fn no_run_outlives_a_sweep_that_is_killed() {
        let place = long();
        let child = place.start("sweep sweep.toml");
        until("a run at work", || runs(&place).iter().any(|run| lines(run) > 30));
        send(child.id(), "-KILL");
        drop(ends(child));
        let status = |run: &PathBuf| json(run.join("manifest.json"))["status"]["kind"].clone();
        until("the end of the run", || runs(&place).iter().all(|run| status(run) == "stopped"));
        // It saved itself, and the sweep goes on from there.
        let again = place.call("sweep sweep.toml");
        assert!(!again.err().contains("failed"), "{}", again.err());
        again.succeeds();
    }

    #[test]
    fn two_processes_do_not_drive_one_sweep() {
        let place = long();
        let child = place.start("sweep sweep.toml");
        until("a run at work", || runs(&place).iter().any(|run| lines(run) > 5));
        let answer = place.call("sweep sweep.toml").refuses();
        assert!(answer.contains("another process drives this sweep"), "{answer}");
        send(child.id(), "-INT");
        assert_eq!(ends(child).0.status.code(), Some(130));
    }
}

/// Against a Slurm that runs here; without one there is nothing to test but the script, which has a test of its own.
mod slurm {
    use super::*;

    fn answers() -> bool {
        let answers = Command::new("sinfo").output().is_ok_and(|output| output.status.success());
        if !answers {
            eprintln!("skipped: no Slurm answers here");
        }
        answers
    }

    /// The number of the job that was submitted.
    fn job(said: &str) -> String {
        said.split("as job ").nth(1).and_then(|rest| rest.split(':').next()).expect("a job").to_owned()
    }

    fn wait(job: &str) {
        let began = Instant::now();
        let listed = || Command::new("squeue").args(["--noheader", "--jobs", job]).output().unwrap().stdout;
        while !listed().is_empty() {
            assert!(began.elapsed() < Duration::from_secs(300), "job {job} does not end");
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    #[test]
    #[ignore = "slow"]
    fn a_job_array_runs_the_same_sweep() {
        if !answers() {
            return;
        }
        let place = place(&GRID.replace("1e-3]", "1e38]"));
        let said = place.call("sweep sweep.toml --launcher slurm").succeeds();
        assert!(said.contains("Slurm has 8 runs"), "{said}");
        assert!(place.call("sweep sweep.toml --launcher slurm").succeeds().contains("is still at work"));
        wait(&job(&said));
        let said = place.call("sweep sweep.toml --launcher slurm").succeeds();
        assert!(said.contains("Slurm has 2 runs"), "the chosen cell is tested: {said}");
        wait(&job(&said));
        let page = place.call("sweep sweep.toml --launcher slurm").succeeds();
        assert!(page.contains("Chosen: cell ") && page.contains("2-seed-1 failed: the loss is "), "{page}");
        assert_eq!(tested(&place).len(), 2);
        // By this process it is the same sweep, and it is done.
        assert!(place.call("sweep sweep.toml").err().contains("8 runs: 4 finished, 4 failed"));
    }

    #[test]
    #[ignore = "slow"]
    fn a_job_whose_time_is_up_is_submitted_again_and_goes_on() {
        if !answers() {
            return;
        }
        let place =
            place(&GRID.replace("epochs = 1", "epochs = 60").replace("seeds = [1, 2]", "").replace(", 1e-3]", "]"));
        let first = job(&place.call("sweep sweep.toml --launcher slurm --jobs 2").succeeds());
        let began = Instant::now();
        let at_work = |run: &PathBuf| std::fs::metadata(run.join("metrics.jsonl")).is_ok_and(|file| file.len() > 3000);
        while runs(&place).len() < 2 || !runs(&place).iter().all(at_work) {
            assert!(began.elapsed() < Duration::from_secs(120), "the runs do not begin");
            std::thread::sleep(Duration::from_millis(20));
        }
        // What Slurm sends a minute before the end of a job's time.
        let told = Command::new("scancel").args(["--batch", "--signal=TERM", &first]).status();
        assert!(told.is_ok_and(|status| status.success()));
        wait(&first);
        for run in runs(&place) {
            assert_eq!(json(run.join("manifest.json"))["status"]["kind"], "stopped");
        }
        let said = place.call("sweep sweep.toml --launcher slurm").succeeds();
        assert!(said.contains("Slurm has 2 runs"), "{said}");
        wait(&job(&said));
        let log = std::fs::read_to_string(folder(&place).join("logs/1-seed-1.log")).unwrap();
        assert!(log.contains("resume   after step "), "{log}");
        assert!(runs(&place).iter().all(|run| json(run.join("manifest.json"))["status"]["kind"] == "finished"));
    }
}
