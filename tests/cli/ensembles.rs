//! Several models that answer together, and what they leave behind.

use std::sync::OnceLock;

use serde_json::Value;

use crate::place::{Place, pairs};

/// Two seeds of one config, another architecture that reads bytes, and a model of another vocabulary.
struct Company {
    place: Place,
    a: String,
    b: String,
    bytes: String,
    letters: String,
}

fn company() -> &'static Company {
    static COMPANY: OnceLock<Company> = OnceLock::new();
    COMPANY.get_or_init(|| {
        let place = Place::new();
        let run = |name: &str, sets: &[&str]| {
            let sets: String = sets.iter().map(|set| format!(" --set {set}")).collect();
            place.call(&format!("run tiny.toml --run runs/{name}{sets}")).succeeds();
            format!("runs/{name}")
        };
        let (a, b) = (run("a", &["seed=1"]), run("b", &["seed=2"]));
        let bytes = run("bytes", &["tokenizer.source.kind=byte", "model.encoder.kind=lstm", "train.epochs=1"]);
        let letters = run("letters", &["tokenizer.target.kind=character", "train.epochs=1"]);
        Company { place, a, b, bytes, letters }
    })
}

/// Lines of JSON.
fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect()
}

/// The numbers of `score --json`, line after line.
fn scored(place: &Place, models: &str, input: &str) -> Vec<Vec<f64>> {
    let out = place.call_with(&format!("score --json {models}"), input).succeeds();
    let numbers = |line: &Value| line["log_probs"].as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect();
    lines(&out).iter().map(numbers).collect()
}

/// The figures of a table by their labels, as they are printed.
fn figures(table: &str) -> Vec<(String, f64)> {
    let of = |line: &str| {
        let mut words = line.split_whitespace();
        let (label, value) = (words.next()?, words.next()?.parse().ok()?);
        words.next().is_none().then(|| (label.to_owned(), value))
    };
    table.lines().filter_map(of).collect()
}

fn figure(table: &str, label: &str) -> f64 {
    let found = figures(table).into_iter().find(|(own, _)| own == label);
    found.unwrap_or_else(|| panic!("no {label}: {table}")).1
}

#[test]
fn a_model_beside_itself_is_that_model() {
    let Company { place, a, .. } = company();
    let sources: String =
        pairs(640..680).lines().map(|line| line.split('\t').next().unwrap().to_owned() + "\n").collect();
    let alone = place.call_with(&format!("predict {a} --json"), &sources).succeeds();
    // The vocabulary is small, so that all of it is combined: a model alone has it screened, which moves the last digits.
    let is_like = |one: f64, other: f64| (one - other).abs() < 1e-5 * one.abs().max(1.0);
    for words in [format!("{a} {a}"), format!("{a} {a}/model.safetensors {a} --weights 1,2,1")] {
        let both = place.call_with(&format!("predict --json {words}"), &sources).succeeds();
        for (one, other) in lines(&both).iter().zip(lines(&alone)) {
            let (one, other) = (&one["answers"][0], &other["answers"][0]);
            assert_eq!((&one["text"], &one["finished"]), (&other["text"], &other["finished"]), "{words}");
            for number in ["score", "log_prob"] {
                assert!(is_like(one[number].as_f64().unwrap(), other[number].as_f64().unwrap()), "{one} {other}");
            }
        }
        assert_eq!(scored(place, &words, &pairs(640..650)), scored(place, a, &pairs(640..650)));
        // By the steps of a search or by the pass over a whole target, which round differently.
        let words = format!("evaluate --quiet {words}");
        let (one, other) = (place.call(&format!("evaluate --quiet {a}")).succeeds(), place.call(&words).succeeds());
        for ((label, one), (same, other)) in figures(&one).into_iter().zip(figures(&other)) {
            assert!(label == same && (one - other).abs() <= 1.1e-3, "{label}: {one} {other}");
        }
    }
    let texts = |out: &str| lines(out).iter().map(|line| line["answers"][0]["text"].clone()).collect::<Vec<_>>();
    let both = place.call_with(&format!("predict --json {a} {a} --combine log-linear"), &sources).succeeds();
    assert_eq!(texts(&both), texts(&alone));
}

#[test]
fn what_they_say_is_the_mean_of_what_each_says() {
    let Company { place, a, b, bytes, .. } = company();
    let input = pairs(640..680);
    for (models, weights) in
        [(vec![a, b], [1.0, 1.0, 0.0]), (vec![a, b], [1.0, 3.0, 0.0]), (vec![a, b, bytes], [2.0, 1.0, 1.0])]
    {
        let each: Vec<Vec<Vec<f64>>> = models.iter().map(|model| scored(place, model, &input)).collect();
        let of_models = &weights[..models.len()];
        let given: Vec<String> = of_models.iter().map(f64::to_string).collect();
        let words: Vec<&str> = models.iter().map(|model| model.as_str()).collect();
        let words = format!("{} --weights {}", words.join(" "), given.join(","));
        let total: f64 = of_models.iter().sum();
        let together = scored(place, &words, &input);
        for (line, tokens) in together.iter().enumerate() {
            for (t, log_prob) in tokens.iter().enumerate() {
                let mean: f64 =
                    each.iter().zip(of_models).map(|(one, weight)| weight / total * one[line][t].exp()).sum();
                assert!((log_prob - mean.ln()).abs() < 1e-4, "{words}: {log_prob} {}", mean.ln());
            }
        }
        // What `evaluate` makes of whole batches is what `score` makes of lines; so is the geometric mean, which needs all tokens.
        for how in ["linear", "log-linear"] {
            let words = format!("{words} --combine {how}");
            let all = scored(place, &words, &input).concat();
            let nats = -all.iter().sum::<f64>() / all.len() as f64;
            let table = place.call(&format!("evaluate --quiet {words}")).succeeds();
            assert!((figure(&table, "loss_per_token") - nats).abs() < 2e-4, "{words}: {nats}\n{table}");
            assert!(figure(&table, "sequence_error_rate") <= 100.0);
        }
    }
}

#[test]
fn their_order_does_not_matter() {
    let Company { place, a, b, bytes, .. } = company();
    let sources = "abcd\ncab\ndd\n";
    for how in ["linear", "log-linear"] {
        let ask = |words: &str| {
            lines(&place.call_with(&format!("predict --json --combine {how} {words}"), sources).succeeds())
        };
        let (one, other) =
            (ask(&format!("{a} {b} {bytes} --weights 1,2,3")), ask(&format!("{b} {bytes} {a} --weights 2,3,1")));
        for (one, other) in one.iter().zip(&other) {
            let (one, other) = (&one["answers"][0], &other["answers"][0]);
            assert_eq!(one["text"], other["text"]);
            assert!((one["log_prob"].as_f64().unwrap() - other["log_prob"].as_f64().unwrap()).abs() < 1e-4);
        }
    }
}

/// What is too long for one of them is too long for all, in whatever order they come.
#[test]
fn the_limits_of_each_are_those_of_all() {
    let Company { place, a, b, .. } = company();
    for (narrow, reads) in [("narrow", "character"), ("narrow-bytes", "byte")] {
        let sets = format!("--set data.max_source=3 --set data.too_long=skip --set tokenizer.source.kind={reads}");
        place.call(&format!("train tiny.toml -q --run {narrow} --set train.epochs=1 {sets}")).succeeds();
        let test = pairs(640..680);
        let short: Vec<&str> = test.lines().filter(|line| line.split('\t').next().unwrap().len() <= 3).collect();
        assert!((5..35).contains(&short.len()));
        place.write("short.tsv", short.join("\n") + "\n");
        let evaluate = |words: &str| place.call(&format!("evaluate --quiet {words}")).succeeds();
        let expected = figures(&evaluate(&format!("{a} {b} {narrow} --input short.tsv")));
        assert!(expected.len() > 3);
        for models in [format!("{a} {b} {narrow}"), format!("{narrow} {a} {b}"), format!("{a} {narrow} {b}")] {
            let found = figures(&evaluate(&format!("{models} --set data.too_long=skip")));
            for label in ["examples", "target_tokens", "loss_per_token", "sequence_error_rate", "phone_error_rate"] {
                let of =
                    |figures: &[(String, f64)]| figures.iter().find(|(own, _)| own == label).map(|(_, value)| *value);
                let (Some(found), Some(expected)) = (of(&found), of(&expected)) else {
                    panic!("no {label}: {expected:?}")
                };
                assert!((found - expected).abs() < 1.1e-3, "{models} {label}: {found} {expected}");
            }
        }
        let answer = place.call(&format!("evaluate {a} {narrow}")).refuses();
        assert!(answer.contains("data.max_source = 3"), "{answer}");
    }
}

#[test]
fn who_cannot_answer_together_is_told_why() {
    let Company { place, a, b, letters, .. } = company();
    let answer = place.call_with(&format!("predict {a} {letters}"), "ab\n").refuses();
    assert!(answer.contains("runs/letters/model.safetensors: its target vocabulary is not that of"), "{answer}");
    assert!(answer.contains("runs/a/model.safetensors") && answer.contains("tokens, not"), "{answer}");
    let answer = place.call_with(&format!("score {a} {b} --weights 1"), "ab\tA B\n").refuses();
    assert!(answer.contains("--weights: there are 1 weights for 2 models"), "{answer}");
    let answer = place.call_with(&format!("score {a} {b} --weights 1,0"), "ab\tA B\n").refuses();
    assert!(answer.contains("--weights: a model's weight must be a number above 0, not 0"), "{answer}");
    let answer = place.call_with(&format!("score {a} {b} --weights 1e-200,1e200"), "ab\tA B\n").refuses();
    assert!(answer.contains("--weights: a weight of 0.000") && answer.contains("leave the model out"), "{answer}");
    // What does nothing is refused.
    for (option, says) in
        [("--weights 3", "--weights: there is one model"), ("--combine linear", "--combine: there is one model")]
    {
        let answer = place.call_with(&format!("predict {a} {option}"), "ab\n").refuses();
        assert!(answer.contains(says), "{answer}");
    }
    let answer = place.call(&format!("generate {a} {b}")).refuses();
    assert!(answer.contains("`predict`"), "{answer}");
    let answer = place.call(&format!("predict {a} runs/none")).refuses();
    assert!(answer.contains("runs/none: no such run"), "{answer}");
    let answer = place.call("predict --sweep nowhere").refuses();
    assert!(answer.contains("nowhere: is no folder of a sweep"), "{answer}");
}

#[test]
fn language_models_speak_together() {
    let place = Place::new();
    let text: String = pairs(0..400).lines().map(|line| line.split('\t').next().unwrap().to_owned() + " ").collect();
    let text: String =
        text.as_bytes().chunks(40).map(|line| String::from_utf8_lossy(line).into_owned() + "\n").collect();
    place.write("data/a.txt", &text);
    place.write("data/b.txt", &text[..700]);
    place.write(
        "lm.toml",
        "threads = 1\n[data]\nkind = 'stream'\ntrain = 'a.txt'\ntest = 'b.txt'\nrows = 4\nlength = 16\n[model]\nkind = 'language_model'\n\
         [model.target]\nkind = 'embedding'\nsize = 8\n[model.decoder]\nkind = 'gru'\nhidden = 16\n[train]\nsteps = 20\n",
    );
    for seed in [1, 2] {
        place.call(&format!("run lm.toml --run runs/lm{seed} --set seed={seed}")).succeeds();
    }
    let both = "runs/lm1 runs/lm2";
    for how in ["linear", "log-linear"] {
        let generate =
            |words: &str| place.call(&format!("generate --prompt ab --length 30 --seed 3 {words}")).succeeds();
        assert_eq!(generate("runs/lm1 runs/lm1"), generate("runs/lm1"));
        let together = generate(&format!("{both} --combine {how} --json --count 3"));
        assert_eq!(lines(&together).len(), 3);
        // A text is as probable behind its prompt as the whole is beyond the prompt.
        let evaluate = |words: &str| place.call(&format!("evaluate --quiet {words}")).succeeds();
        let losses = [evaluate("runs/lm1"), evaluate("runs/lm2")].map(|table| figure(&table, "loss_per_token"));
        let table = evaluate(&format!("{both} --combine {how} --set evaluate.reset=32"));
        let loss = figure(&table, "loss_per_token");
        // The mean of probabilities is no worse than the mean of losses, and neither is their normalised geometric mean.
        assert!(loss <= (losses[0] + losses[1]) / 2.0 + 1e-3, "{loss} {losses:?}");
        assert!(figure(&table, "loss_per_token_reset") > 0.0);
    }
    let scores = |words: &str| scored(&place, words, "abc ab\nd\n").concat();
    let (a, b, both) = (scores("runs/lm1"), scores("runs/lm2"), scores(both));
    assert!(a.iter().zip(&b).zip(&both).all(|((a, b), both)| (((a.exp() + b.exp()) / 2.0).ln() - both).abs() < 1e-4));
}

#[test]
fn the_seeds_of_a_sweep_answer_together_and_stay_so() {
    let place = Place::new();
    place.write(
        "sweep.toml",
        "extends = 'tiny.toml'\ntrain.epochs = 2\ndata.max_source = 5\n[sweep]\nmetric = 'phone_error_rate'\nseeds = [1, 2]\n\
         [sweep.over]\n'train.optimizer.learning_rate' = [1e-5, 1e-2]\n",
    );
    let out = place.call("sweep sweep.toml --keep-ensemble").succeeds();
    let kept = out.lines().find_map(|line| line.strip_prefix("together   ")).expect(&out).to_owned();
    let folder = kept.strip_suffix("/ensemble.safetensors").expect("in the sweep's folder").to_owned();
    let name = folder.rsplit('/').next().unwrap();
    // The second cell learns something.
    let called = place.call_with(&format!("predict --json --sweep {folder}"), "abc\ndd\n");
    assert!(called.err().contains("cell 2 (train.optimizer.learning_rate=0.01), 2 runs"), "{}", called.err());
    let best = called.succeeds();
    let same = |words: &str| {
        assert_eq!(place.call_with(&format!("predict --json {words}"), "abc\ndd\n").succeeds(), best, "{words}")
    };
    same(&kept);
    same(&format!("--sweep {name} --cell 2"));
    same(&format!("--sweep {folder} --cell best --weights 3,3"));
    let other = place.call_with(&format!("predict --json --sweep {name} --cell 1"), "abc\ndd\n").succeeds();
    assert_ne!(other, best);
    let answer = place.call(&format!("predict --sweep {name} --cell 3")).refuses();
    assert!(answer.contains("--cell: has 2 cells, and none of number 3"), "{answer}");
    let answer = place.call(&format!("predict --sweep {name} --set model.encoder.hidden=3")).refuses();
    assert!(answer.contains("cannot be changed for a model that is trained"), "{answer}");
    // The file needs neither runs nor sweep, and is written again as it was. Where they lie is nothing of it.
    let bytes = place.read(&kept);
    assert!(!String::from_utf8_lossy(&bytes).contains("runs/"));
    place.call("sweep sweep.toml --keep-ensemble").succeeds();
    assert!(place.read(&kept) == bytes);
    // Where it cannot be written, what was found is on disk all the same.
    std::fs::remove_file(place.path(&kept)).unwrap();
    std::fs::create_dir(place.path(&kept)).unwrap();
    let results = place.read(&format!("{folder}/results.md"));
    std::fs::remove_file(place.path(&format!("{folder}/results.md"))).unwrap();
    let answer = place.call("sweep sweep.toml --keep-ensemble").refuses();
    assert!(answer.contains("ensemble.safetensors: cannot write"), "{answer}");
    assert!(place.read(&format!("{folder}/results.md")) == results);
    std::fs::remove_dir(place.path(&kept)).unwrap();
    // Runs of equal settings that are not the sweep's: one goes on with another, one has learned from other data.
    let cell = format!("{folder}/cells/2-seed-1.toml");
    place.call(&format!("run {cell} -q --run runs/first --set train.epochs=1")).succeeds();
    place.call("extend runs/first -q --run runs/second --epochs 1").succeeds();
    same(&format!("--sweep {folder}"));
    for (name, numbers) in [("train", 100..700), ("validation", 700..740), ("test", 740..780)] {
        place.write(&format!("other/{name}.tsv"), pairs(numbers));
    }
    place.call(&format!("run {cell} -q --run runs/third --data-dir other")).succeeds();
    same(&format!("--sweep {folder}"));
    same(&format!("--sweep {folder} --cell 2"));
    std::fs::rename(place.path("data"), place.path("away")).unwrap();
    let answer = place.call(&format!("predict --sweep {folder} --cell 2")).refuses();
    assert!(answer.contains("/2-seed-1.toml: 2 runs have these settings") && answer.contains("runs/third"), "{answer}");
    std::fs::rename(place.path("away"), place.path("data")).unwrap();
    place.write("alone.safetensors", &bytes);
    std::fs::remove_dir_all(place.path("runs")).unwrap();
    same("alone.safetensors");
    // Settings that are changed are changed for each of them.
    let answer = place.call_with("predict alone.safetensors", "abcdab\n").refuses();
    assert!(answer.contains("data.max_source = 5"), "{answer}");
    place.call_with("predict alone.safetensors --set data.max_source=6", "abcdab\n").succeeds();
    // Where one model is needed, it says how many it is.
    let answer = place.call("train tiny.toml --set train.start_from.model=alone.safetensors").refuses();
    assert!(answer.contains("alone.safetensors: holds 2 models that answer together"), "{answer}");
    // Beside another, its members keep their shares.
    same("alone.safetensors alone.safetensors");
    let table = place.call("evaluate --quiet alone.safetensors").succeeds();
    assert!(figure(&table, "phone_error_rate") < 100.0);
}

#[test]
fn what_they_answer_is_learned_by_another() {
    let Company { place, a, b, .. } = company();
    let distil = |words: &str| place.call(&format!("distil {words}"));
    let said = distil(&format!("{a} {b} --output data/taught.tsv --agreement 1 --min-score -1 --quiet")).succeeds();
    let table = String::from_utf8(place.read("data/taught.tsv")).unwrap();
    let record: Value = serde_json::from_slice(&place.read("data/taught.tsv.json")).unwrap();
    let (header, rows) = table.split_once('\n').unwrap();
    assert_eq!(header, "source\ttarget\tscore\tagreement");
    let counts = &record["counts"];
    let left_out: u64 = counts["left_out"].as_object().unwrap().values().map(|count| count.as_u64().unwrap()).sum();
    assert_eq!(counts["written"], rows.lines().count());
    assert_eq!(counts["sources"].as_u64().unwrap(), left_out + counts["written"].as_u64().unwrap());
    assert!(left_out > 0 && rows.lines().count() > 50, "{said}");
    assert_eq!(record["models"].as_array().unwrap().len(), 2);
    assert_eq!((&record["split"], &record["combination"]), (&"train".into(), &"linear".into()));
    assert_eq!(record["sources"].as_object().unwrap().keys().collect::<Vec<_>>(), ["train.tsv"]);
    // Each row is what they answer, and what each of them answers.
    let sources: Vec<&str> = rows.lines().map(|row| row.split('\t').next().unwrap()).collect();
    let sources_text: String = sources.iter().map(|source| format!("{source}\n")).collect();
    for models in [format!("{a} {b}"), a.clone(), b.clone()] {
        let answers = place.call_with(&format!("predict {models}"), &sources_text).succeeds();
        assert!(rows.lines().map(|row| row.split('\t').nth(1).unwrap()).eq(answers.lines()), "{models}");
    }
    assert!(
        rows.lines().all(|row| row.ends_with("\t1") && row.split('\t').nth(2).unwrap().parse::<f64>().unwrap() >= -1.0)
    );
    // The same command writes the same bytes.
    let before = (place.read("data/taught.tsv"), place.read("data/taught.tsv.json"));
    distil(&format!("{a} {b} --output data/taught.tsv --agreement 1 --min-score -1 --quiet")).succeeds();
    assert!((place.read("data/taught.tsv"), place.read("data/taught.tsv.json")) == before);
    // Another learns from it.
    place.write(
        "student.toml",
        "extends = 'tiny.toml'\ntrain.epochs = 1\n[data]\nreplace = true\nkind = 'table'\ntrain = 'taught.tsv'\nsource = 'source'\ntarget = 'target'\n",
    );
    place.call("run student.toml").succeeds();

    // Sources without targets, as JSON lines and as pairs.
    place.write("unlabelled.txt", "abcd\nabcd\ndcba\n");
    distil(&format!("{a} --input unlabelled.txt --output more.jsonl")).succeeds();
    let more = lines(&String::from_utf8(place.read("more.jsonl")).unwrap());
    assert!(
        more.len() <= 2 && more.iter().all(|row| row["score"].is_number() && row["target"].is_string()),
        "{more:?}"
    );
    distil(&format!("{a} --input unlabelled.txt --output more.tsv --pairs")).succeeds();
    let pairs = String::from_utf8(place.read("more.tsv")).unwrap();
    assert!(pairs.lines().zip(&more).all(|(line, row)| {
        line == format!("{}\t{}", row["source"].as_str().unwrap(), row["target"].as_str().unwrap())
    }));

    for (words, says) in [
        (format!("{a} --output x.txt"), "--output: the name does not tell"),
        (format!("{a} --output x.tsv --agreement 0.5"), "--agreement: there is one model"),
        (format!("{a} {b} --output x.tsv --agreement 2"), "--agreement: is a share"),
        (format!("{a} --output x.tsv --input none.txt"), "none.txt: --input: no such file"),
        (format!("{a} --output x.tsv --min-score 1"), "there is nothing to be written"),
        // Before anything is answered.
        (format!("{a} --output none/x.tsv --min-score 1"), "none/x.tsv: cannot write"),
        (format!("{a} --output data --pairs --min-score 1"), "data: --output: is a folder"),
        // Nothing that is read is overwritten.
        (format!("{a} --output data/train.tsv"), "data/train.tsv: --output: is a file that these models"),
        (format!("{a} --output data/../data/test.tsv --pairs"), "test.tsv: --output: is a file that these models"),
        (format!("{a} --input in.tsv --output in.tsv"), "in.tsv: --output: is a file that these models"),
        (format!("{a} --input in.tsv.json --output in.tsv"), "in.tsv.json: --output: is a file that these models"),
    ] {
        place.write("in.tsv", "abc\n");
        place.write("in.tsv.json", "abc\n");
        let before = ["data/train.tsv", "data/test.tsv", "in.tsv", "in.tsv.json"].map(|name| place.read(name));
        let answer = distil(&words).refuses();
        assert!(answer.contains(says), "{words}: {answer}");
        assert!(!place.path("x.tsv").exists());
        assert!(["data/train.tsv", "data/test.tsv", "in.tsv", "in.tsv.json"].map(|name| place.read(name)) == before);
        let hidden =
            |entry: std::io::Result<std::fs::DirEntry>| entry.unwrap().file_name().to_string_lossy().ends_with(".tmp");
        assert!(!std::fs::read_dir(place.path("")).unwrap().any(hidden), "{words}");
    }

    // A column of the corpus is not taken for a number of the answers.
    place.write("data/clash.tsv", format!("score\ttarget\n{}", crate::place::pairs(0..100)));
    let clash = "extends = 'student.toml'\n[data]\ntrain = 'clash.tsv'\nsource = 'score'\n";
    place.write("clash.toml", clash);
    place.call("train clash.toml -q --run clash").succeeds();
    let answer = distil("clash --output x.tsv").refuses();
    assert!(answer.contains("--output: would have two columns `score`"), "{answer}");
    distil("clash --output clash.tsv --pairs").succeeds();
}

/// Follows `docs/ensembles.md`: its configs are right, and its commands work as they stand.
#[cfg(unix)]
#[test]
fn the_guide_can_be_followed_as_it_stands() {
    use crate::guide::{blocks, commands, follow, page, write_cargo, write_configs};
    // What makes its models small.
    let small = [
        ("ANTIPHON__THREADS", "1"),
        ("ANTIPHON__MODEL__SOURCE__SIZE", "12"),
        ("ANTIPHON__MODEL__TARGET__SIZE", "12"),
        ("ANTIPHON__MODEL__ENCODER__HIDDEN", "12"),
        ("ANTIPHON__MODEL__DECODER__HIDDEN", "12"),
        ("ANTIPHON__TRAIN__EPOCHS", "2"),
    ];
    let (page, place) = (page("ensembles.md"), Place::new());
    write_configs(&page, &place);
    write_cargo(&place);
    for (name, numbers) in [("train", 0..600), ("validation", 600..640), ("test", 640..680)] {
        place.write(&format!("data/mine/{name}.tsv"), pairs(numbers));
    }
    place.write("unlabelled.txt", "abba\ncab\nbad\ndada\n");
    // Models that have learned so little are sure of nothing, and hardly agree.
    let page = page.replace("--min-score -1 --agreement 1", "--min-score -9 --agreement 0.5");
    let mut followed = Vec::new();
    for block in blocks(&page, "sh") {
        follow(&place, block, &small);
        followed.extend(commands(block));
    }
    for command in ["sweep", "run", "predict", "evaluate", "score", "distil"] {
        assert!(followed.contains(&command), "{command}: {followed:?}");
    }
    // All figures of the page's models together are printed as those of one are.
    let table = follow(&place, "cargo xtask evaluate runs/four runs/five --split validation", &small).out();
    assert!(figure(&table, "perplexity") > 1.0 && table.contains(" parameters, "), "{table}");
}
