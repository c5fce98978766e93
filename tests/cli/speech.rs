//! Follows `docs/speech.md` with tones for letters: what is trained, asked, measured and transcribed are recordings.

use std::path::Path;

use serde_json::Value;

use crate::place::{Called, Place};

const RATE: usize = 8000;

/// What makes the guide's model small.
pub(crate) const SMALL: &[(&str, &str)] = &[
    ("ANTIPHON__THREADS", "1"),
    ("ANTIPHON__FEATURES__FILTERS", "12"),
    ("ANTIPHON__MODEL__DECODER__HIDDEN", "24"),
    ("ANTIPHON__MODEL__TARGET__SIZE", "8"),
    (
        "ANTIPHON__MODEL__ENCODER__STAGES",
        "[{ kind = 'gru', hidden = 16 }, { kind = 'time_reduction' }, { kind = 'gru', hidden = 16 }]",
    ),
    ("ANTIPHON__TRAIN__EPOCHS", "16"),
    ("ANTIPHON__TRAIN__OPTIMIZER__LEARNING_RATE", "1e-2"),
    ("ANTIPHON__BATCH__COUNT", "400"),
];

/// One step that changes no bit of what is not zero.
const STILL: &str = "--set train={replace=true,steps=1,optimizer={kind='sgd',learning_rate=1e-37}}";

/// A word over three letters: two to four of them.
fn word(number: usize) -> String {
    let mut rest = (number as u32).wrapping_mul(2_654_435_761) >> 12;
    let letters = 2 + rest as usize % 3;
    let letter = |_| {
        rest = rest.wrapping_mul(1_103_515_245).wrapping_add(12_345);
        char::from(b'a' + (rest >> 16) as u8 % 3)
    };
    (0..letters).map(letter).collect()
}

/// A tone of 80 ms for each letter, with 40 ms of faint noise before, between and behind them.
fn sound(word: &str) -> Vec<i16> {
    let mut noise = word.bytes().fold(1_u32, |seed, byte| seed.wrapping_mul(31).wrapping_add(byte.into()));
    let mut samples = Vec::new();
    let mut add = |tone: Option<f64>, milliseconds: usize| {
        for t in 0..RATE * milliseconds / 1000 {
            noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let hiss = f64::from(noise >> 16) / 65536.0 - 0.5;
            let wave = tone.map_or(0.0, |hertz| (std::f64::consts::TAU * hertz * t as f64 / RATE as f64).sin());
            samples.push((8000.0 * wave + 100.0 * hiss) as i16);
        }
    };
    add(None, 40);
    for letter in word.bytes() {
        add(Some([450.0, 950.0, 2100.0][usize::from(letter - b'a')]), 80);
        add(None, 40);
    }
    samples
}

fn wav(samples: &[i16]) -> Vec<u8> {
    let (rate, bytes) = (RATE as u32, 2 * samples.len() as u32);
    let mut file = b"RIFF".to_vec();
    file.extend((36 + bytes).to_le_bytes());
    file.extend(b"WAVEfmt \x10\0\0\0\x01\0\x01\0");
    file.extend(rate.to_le_bytes());
    file.extend((2 * rate).to_le_bytes());
    file.extend(b"\x02\0\x10\0data");
    file.extend(bytes.to_le_bytes());
    file.extend(samples.iter().flat_map(|sample| sample.to_le_bytes()));
    file
}

fn page() -> String {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/speech.md");
    std::fs::read_to_string(page).expect("the guide is there")
}

fn block(page: &str, language: &str) -> String {
    let (_, rest) = page.split_once(&format!("```{language}\n")).expect("a block");
    rest.split_once("```").expect("a block ends").0.to_owned()
}

/// A place with recordings and the guide's config.
fn place() -> Place {
    let place = Place::new();
    furnish(&place);
    place
}

/// Recordings of two speakers who sound alike, their manifests, and the guide's config.
pub(crate) fn furnish(place: &Place) {
    for (split, numbers) in [("train", 0..240), ("validation", 240..270), ("test", 270..300)] {
        let mut manifest = "path\ttext\tspeaker\n".to_owned();
        for (i, number) in numbers.enumerate() {
            let word = word(number);
            place.write(&format!("data/mine/sound/{split}-{i}.wav"), wav(&sound(&word)));
            manifest += &format!("sound/{split}-{i}.wav\t{word}\t{}\n", ["ann", "bob"][i % 2]);
        }
        place.write(&format!("data/mine/{split}.tsv"), manifest);
    }
    place.write("speech.toml", block(&page(), "toml"));
}

fn call(place: &Place, words: &str) -> Called {
    Called(place.command(words).envs(SMALL.iter().copied()).output().expect("the program starts"))
}

fn json(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).expect("JSON")
}

#[test]
fn the_guide_can_be_followed_as_it_stands() {
    let place = place();
    let page = page();
    // What is said of language models and of CTC alone needs configs of their own.
    let (road, _) = page.split_once("## A language model in the search").expect("the road ends before it");
    let commands = road.split("```sh\n").skip(1).map(|rest| rest.split_once("```").expect("a block ends").0);
    let commands: Vec<String> = commands
        .flat_map(str::lines)
        .map(|line| line.strip_prefix("cargo xtask ").expect("a command").to_owned())
        .collect();
    let mut said = Vec::new();
    for command in &commands {
        let called = call(&place, command);
        assert!(!called.err().contains("warning: "), "{command}\n{}", called.err());
        said.push(called.succeeds());
    }
    let results = json(&place.read("runs/mine/results.json"));
    let test = &results["test"];
    let score = &test["metrics"]["word_error_rate"];
    assert!(score["value"].as_f64().is_some_and(|wrong| wrong <= 20.0), "{results}");
    let parts = &score["parts"];
    let edits: u64 =
        ["substitutions", "deletions", "insertions"].iter().map(|kind| parts[kind].as_u64().unwrap()).sum();
    assert_eq!(parts["reference_length"], 30);
    let rate = 100.0 * edits as f64 / 30.0;
    assert!((score["value"].as_f64().unwrap() - rate).abs() < 1e-9, "{score}");
    let speakers = test["by"]["speaker"].as_array().expect("speakers");
    assert_eq!(speakers.iter().map(|of| of["examples"].as_u64().unwrap()).collect::<Vec<_>>(), [15, 15]);
    assert!(test["losses"]["ctc"].is_number() && test["counts"]["source_frames"].is_number(), "{test}");
    // Who is asked by row, or by file, says what was measured.
    let answered = place.read("runs/mine/predictions-test.jsonl");
    let answered: Vec<Value> = answered.split(|&b| b == b'\n').filter(|line| !line.is_empty()).map(json).collect();
    let best: Vec<&str> = answered.iter().map(|answer| answer["answers"][0]["text"].as_str().unwrap()).collect();
    assert_eq!(said[3].lines().collect::<Vec<_>>(), best);
    let transcribed: Vec<_> = said[4].lines().map(|line| line.split_once('\t').expect("a file's name").1).collect();
    assert_eq!(transcribed, best[..2]);
    assert_eq!(said[5].lines().count(), 30);
    // Features were made once for each split.
    let kept = std::fs::read_dir(place.path("data/.features")).expect("a folder").filter(|entry| {
        entry.as_ref().is_ok_and(|entry| Path::new(&entry.file_name()).extension().is_some_and(|e| e == "features"))
    });
    assert_eq!(kept.count(), 3);
    what_no_path_says_counts_nothing(&place, test);
    parts_and_faults(&place, &best);
    words_have_times(&place);
    long_recordings_are_cut(&place);
    the_page_shows_what_is_heard(&place);
    several_together(&place);
    draws_do_not_depend_on_batches(&place);
}

/// What is drawn for a file is drawn under its number, however many are answered together.
fn draws_do_not_depend_on_batches(place: &Place) {
    let same = ["data/mine/sound/test-0.wav"; 9].join(" ");
    let drawn = |rows: usize| {
        let sample = "--set search={replace=true,kind='sample',temperature=9.0}";
        call(place, &format!("transcribe runs/mine {same} {sample} --threads 1 --set evaluate.rows={rows}")).succeeds()
    };
    let few = drawn(1);
    assert_eq!(few, drawn(8));
    let (first, behind): (Vec<_>, Vec<_>) = few.lines().enumerate().partition(|(i, _)| *i < 4);
    assert!(
        first.iter().zip(&behind).any(|((_, a), (_, b))| a != b),
        "the fifth file is not drawn as the first: {few}"
    );
}

/// Words lie where their tones do, those of a part in its file; subtitles show them there.
fn words_have_times(place: &Place) {
    let words = [270, 271].map(word);
    let seconds = |word: &str| sound(word).len() as f64 / RATE as f64;
    let middle = seconds(&words[0]);
    let parts = "predict runs/mine --input parts.tsv --json --set data.start=from --set data.end=to";
    let answered = call(place, parts).succeeds();
    let answered: Vec<Value> = answered.lines().map(|line| json(line.as_bytes())).collect();
    let mut right = 0;
    for ((answered, word), begins) in answered.iter().zip(&words).zip([0.0, middle]) {
        let answer = &answered["answers"][0];
        let [told] = answer["words"].as_array().expect("words").as_slice() else { panic!("one word: {answer}") };
        assert_eq!(told["word"], answer["text"]);
        let number = |key: &str| told[key].as_f64().expect("a number");
        assert!((0.0..=1.0).contains(&number("confidence")) && number("start") < number("end"), "{told}");
        let end = begins + seconds(word);
        assert!(number("start") >= begins && number("end") <= end, "{told}");
        if answer["text"] == word.as_str() {
            // It begins with its first tone, and ends with its last.
            assert!((begins..begins + 0.16).contains(&number("start")), "{told} {begins}");
            assert!((end - 0.16..=end).contains(&number("end")), "{told} {end}");
            right += 1;
        }
    }
    assert!(right > 0, "{answered:?}");
    let alone = call(place, "transcribe runs/mine data/mine/sound/test-0.wav --json").succeeds();
    assert_eq!(json(alone.as_bytes())["answers"][0]["words"], answered[0]["answers"][0]["words"]);
    let srt = call(place, "transcribe runs/mine data/mine/sound/test-0.wav --srt").succeeds();
    let shown: Vec<&str> = srt.lines().collect();
    assert_eq!((shown[0], shown[2]), ("1", answered[0]["answers"][0]["text"].as_str().expect("a text")), "{srt}");
    // The word would be shown for a second, but the recording ends earlier.
    let (from, to) = shown[1].split_once(" --> ").expect("two times");
    assert!(from.starts_with("00:00:00,") && to == format!("00:00:00,{:03}", (1000.0 * middle) as usize), "{srt}");
    let refused = call(place, "transcribe runs/mine both.wav both.wav --vtt").refuses();
    assert!(refused.contains("--vtt") && refused.contains("one recording"), "{refused}");
    // Who asks for no words is told none.
    let plain = call(place, "predict runs/mine --input data/mine/test.tsv").succeeds();
    assert!(!plain.contains("words"), "{plain}");
}

/// Seconds, of a time as subtitles have it.
fn clock(time: &str) -> f64 {
    time.replace(',', ".").split(':').fold(0.0, |sum, part| 60.0 * sum + part.parse::<f64>().expect("a number"))
}

/// A long recording is answered piece by piece, with the times of the whole; a short one as ever.
fn long_recordings_are_cut(place: &Place) {
    let pause = |number: usize| (0..RATE * 3 / 10).map(move |t| ((t * 7919 + number * 31) % 200) as i16 - 100);
    let samples: Vec<i16> =
        (270..290).flat_map(|number| sound(&word(number)).into_iter().chain(pause(number))).collect();
    place.write("long.wav", wav(&samples));
    let seconds = samples.len() as f64 / RATE as f64;
    let transcribed = call(place, "transcribe runs/mine long.wav data/mine/sound/test-0.wav --json --max-seconds 1.5");
    assert!(!transcribed.err().contains("warning: "), "{}", transcribed.err());
    let transcribed = transcribed.succeeds();
    let lines: Vec<Value> = transcribed.lines().map(|line| json(line.as_bytes())).collect();
    let pieces = lines[0]["pieces"].as_array().expect("pieces");
    let mut reached = 0.0;
    for piece in pieces {
        let [start, end] = ["start", "end"].map(|key| piece[key].as_f64().expect("seconds"));
        assert!(start == reached && end > start && end - start <= 1.501, "{piece} behind {reached}");
        reached = end;
    }
    assert!(pieces.len() >= 7 && (reached - seconds).abs() < 0.001, "{pieces:?}");
    let answer = &lines[0]["answers"][0];
    let texts: Vec<&str> =
        pieces.iter().filter_map(|piece| piece["text"].as_str()).filter(|text| !text.is_empty()).collect();
    assert_eq!(answer["text"], texts.join(" "));
    let words = answer["words"].as_array().expect("words");
    assert!(words.iter().map(|word| word["word"].as_str().unwrap()).eq(texts.iter().flat_map(|text| text.split(' '))));
    let starts: Vec<f64> = words.iter().map(|word| word["start"].as_f64().unwrap()).collect();
    assert!(starts.is_sorted() && starts.iter().any(|&start| start > seconds - 3.0), "{starts:?}");
    let srt = call(place, "transcribe runs/mine long.wav --srt --max-seconds 1.5").succeeds();
    let ends: Vec<f64> = srt.lines().filter_map(|line| Some(clock(line.split_once(" --> ")?.1))).collect();
    assert!(ends.is_sorted() && ends.last().is_some_and(|&last| last > seconds - 3.0 && last <= seconds), "{srt}");
    // The short one beside it is answered as a whole.
    let alone = call(place, "transcribe runs/mine data/mine/sound/test-0.wav --json").succeeds();
    assert!(lines[1].get("pieces").is_none() && lines[1] == json(alone.as_bytes()), "{alone}");

    place.write("silence.wav", wav(&vec![7; RATE * 50]));
    let refused = call(place, "transcribe runs/mine silence.wav").refuses();
    assert!(refused.contains("silence.wav: it is silent from beginning to end"), "{refused}");
    let half: Vec<i16> = (0..RATE * 25).map(|t| if t < RATE * 22 { 7 } else { samples[t % samples.len()] }).collect();
    place.write("half.wav", wav(&half));
    let text = call(place, "transcribe runs/mine half.wav silence.wav --skip-bad").succeeds();
    assert!(text.lines().count() == 2 && text.ends_with("silence.wav\t\n"), "{text}");
    let refused = call(place, "transcribe runs/mine half.wav --max-seconds 0.5").refuses();
    assert!(refused.contains("1 at least"), "{refused}");
}

/// The page of the run has some recordings with what is heard in them; without the recordings it says why it has none.
fn the_page_shows_what_is_heard(place: &Place) {
    let page = String::from_utf8(place.read("runs/mine/report.html")).unwrap();
    // Features and attention of each.
    assert_eq!(page.matches("class=\"raster\"").count(), 12, "{}", page.len());
    assert!(page.len() < 1_000_000, "{}", page.len());
    call(place, "report runs/mine --output again.html").succeeds();
    assert!(place.read("again.html") == page.as_bytes());
    call(place, "report runs/mine --output elsewhere.html --data-dir nowhere").succeeds();
    let page = String::from_utf8(place.read("elsewhere.html")).unwrap();
    assert!(!page.contains("class=\"raster\"") && page.contains("What the model hears is not shown: "));
}

/// Several models hear the same recording, and their CTC has no say; what one says twice over, it says alone.
fn several_together(place: &Place) {
    let asked = "--input data/mine/test.tsv --set search.ctc_weight=0.0";
    let alone = call(place, &format!("predict runs/mine {asked}")).succeeds();
    assert_eq!(call(place, &format!("predict runs/mine runs/mine {asked}")).succeeds(), alone);
    let table = call(place, "evaluate runs/mine runs/mine --set search.ctc_weight=0.0").succeeds();
    assert!(table.contains("word_error_rate") && !table.contains("ctc_loss"), "{table}");
    let refused = call(place, "predict runs/mine runs/mine --input data/mine/test.tsv").refuses();
    assert!(refused.contains("search.ctc_weight"), "{refused}");
}

/// The loss of CTC is that of what its paths say, while the decoder can say anything.
fn what_no_path_says_counts_nothing(place: &Place, test: &Value) {
    let figure = |table: &str, label: &str| -> f64 {
        let line = table.lines().find(|line| line.starts_with(label)).unwrap_or_else(|| panic!("no {label}: {table}"));
        line.split_whitespace().nth(1).expect("a figure").parse().expect("a number")
    };
    let manifest = String::from_utf8(place.read("data/mine/test.tsv")).unwrap();
    place.write("data/mine/lost.tsv", format!("{manifest}sound/test-0.wav\t{}\tann\n", "abc".repeat(30)));
    let table = call(place, "evaluate runs/mine --input data/mine/lost.tsv").succeeds();
    assert_eq!(figure(&table, "without_path"), 1.0);
    let (with, without) = (figure(&table, "ctc_loss"), test["losses"]["ctc"].as_f64().unwrap());
    assert!((with - without).abs() < 1e-3 * (1.0 + without), "{with}, not {without}");
    let (with, without) = (figure(&table, "loss_per_token"), test["losses"]["per_token"].as_f64().unwrap());
    assert!(with > 2.0 * without, "the decoder is asked: {with} beside {without}");
}

/// Parts of a file are answered as files of their own; a file that cannot be used is told.
fn parts_and_faults(place: &Place, best: &[&str]) {
    let (first, second) = (sound(&word(270)), sound(&word(271)));
    place.write("both.wav", wav(&[first.clone(), second.clone()].concat()));
    let seconds = |samples: usize| samples as f64 / RATE as f64;
    let (middle, end) = (seconds(first.len()), seconds(first.len() + second.len()));
    place.write("parts.tsv", format!("path\tfrom\tto\nboth.wav\t\t{middle}\nboth.wav\t{middle}\t{end}\n"));
    let parts = "predict runs/mine --input parts.tsv --set data.start=from --set data.end=to";
    assert_eq!(call(place, parts).succeeds().lines().collect::<Vec<_>>(), best[..2]);

    // Twice as many samples a second are brought to what the model has learned from.
    let between = |pair: &[i16]| [pair[0], ((i32::from(pair[0]) + i32::from(pair[1])) / 2) as i16];
    let mut fine = wav(&first.windows(2).flat_map(between).collect::<Vec<_>>());
    fine[24..28].copy_from_slice(&(2 * RATE as u32).to_le_bytes());
    place.write("fine.wav", fine);
    let refused = call(place, "transcribe runs/mine fine.wav").refuses();
    assert!(refused.contains("set features.resample = true"), "{refused}");
    let said = call(place, "transcribe runs/mine fine.wav --set features.resample=true").succeeds();
    assert_eq!(said, format!("{}\n", best[0]));

    place.write("page.wav", "%PDF-1.7 no sound at all");
    let refused = call(place, "transcribe runs/mine data/mine/sound/test-0.wav page.wav").refuses();
    assert!(refused.contains("page.wav") && refused.contains("--skip-bad"), "{refused}");
    let skipped = call(place, "transcribe runs/mine page.wav data/mine/sound/test-0.wav --skip-bad");
    assert!(skipped.err().contains("warning: ") && skipped.err().contains("page.wav"), "{}", skipped.err());
    assert_eq!(skipped.succeeds(), format!("page.wav\t\ndata/mine/sound/test-0.wav\t{}\n", best[0]));
    let refused = call(place, "transcribe runs/mine nowhere.wav").refuses();
    assert!(refused.contains("nowhere.wav"), "{refused}");
    // Whoever names a second model hears how that is done.
    for model in ["runs/mine", "mine", "runs/mine/model.safetensors", "speech.toml"] {
        let refused = call(place, &format!("transcribe runs/mine {model} fine.wav --skip-bad")).refuses();
        assert!(refused.contains(&format!("{model}: is a model and no recording")), "{refused}");
        assert!(refused.contains("`predict`, which takes a list of models"), "{refused}");
    }

    // A file without the speakers is measured without them.
    let asked = "evaluate runs/mine --input data/mine/nobody.tsv";
    place.write("data/mine/nobody.tsv", format!("path\ttext\nsound/test-0.wav\t{}\n", word(270)));
    let called = call(place, asked);
    let warning = "warning: data/mine/nobody.tsv: has no column `speaker`, which evaluate.by names: no figures by it";
    assert!(called.err().contains(warning), "{}", called.err());
    assert!(!called.succeeds().contains("split by"));
    // In a corpus its line is named, or it is left out and counted.
    let manifest = String::from_utf8(place.read("data/mine/test.tsv")).unwrap();
    place.write("data/mine/bad.tsv", manifest.replace("sound/test-1.wav", "../../page.wav"));
    let bad = "run speech.toml --run runs/bad --set data.test=mine/bad.tsv";
    let refused = call(place, bad).refuses();
    assert!(refused.contains("bad.tsv: line 3: ") && refused.contains("page.wav"), "{refused}");
    assert!(refused.contains("data.on_bad_line = \"skip\""), "{refused}");
    let skips = "evaluate runs/mine --input data/mine/bad.tsv --set data.on_bad_line=skip";
    let table = call(place, skips).succeeds();
    let skipped = table.lines().find(|line| line.starts_with("skipped")).expect("a count");
    assert!(skipped.trim_end().ends_with(" 1"), "{table}");
}

#[test]
fn a_training_that_is_paused_goes_on_as_if_it_had_not_been() {
    let place = place();
    let run = "run speech.toml --quiet --set train.epochs=2 --set train.checkpoint.every_steps=5 --set spec_augment.speed=0.1 \
               --set spec_augment.frequency_warp=0.1 --set spec_augment.noise=0.1 --run";
    call(&place, &format!("{run} runs/whole")).succeeds();
    call(&place, &format!("{run} runs/parts --pause-after-steps 7"));
    assert!(!place.path("runs/parts/model.safetensors").exists());
    call(&place, &format!("{run} runs/parts")).succeeds();
    assert!(place.read("runs/whole/model.safetensors") == place.read("runs/parts/model.safetensors"));
    // The encoder may learn by its own loss alone.
    let lone = "--set model.ctc.weight=1.0 --set search.ctc_weight=1.0 --set train.validate.metric=ctc_loss";
    call(&place, &format!("{run} runs/lone {lone}")).succeeds();
    // What is hidden of the frames is a part of it.
    call(&place, &format!("{run} runs/plain --set spec_augment.time_masks=0")).succeeds();
    assert!(place.read("runs/whole/model.safetensors") != place.read("runs/plain/model.safetensors"));
}

#[test]
fn every_setting_that_the_guide_names_is_one() {
    let page = page();
    let keys = antiphon_config::keys::<antiphon::ExperimentConfig>();
    let sections = ["data.", "features.", "model.", "batch.", "search.", "evaluate."];
    let named = page.split('`').skip(1).step_by(2).filter(|text| sections.iter().any(|s| text.starts_with(s)));
    let named: Vec<&str> = named.filter_map(|text| text.split([' ', '=']).next()).collect();
    assert!(named.len() > 12, "{named:?}");
    let unknown: Vec<_> = named.iter().filter(|key| !keys.contains(&(**key).to_owned())).collect();
    assert!(unknown.is_empty(), "no such setting: {unknown:?}");
}

#[test]
fn a_check_looks_at_the_first_recordings() {
    let place = place();
    let manifest = String::from_utf8(place.read("data/mine/validation.tsv")).unwrap();
    place.write("data/mine/validation.tsv", manifest.replace("sound/validation-1.wav", "sound/none.wav"));
    let said =
        |answer: &str| answer.contains("validation.tsv: line 3: ") && answer.contains("none.wav: there is no such");
    // Data may be elsewhere, unless their folder is named.
    let warned = call(&place, "check speech.toml");
    assert!(said(&warned.err()) && warned.err().contains("data.validation"), "{}", warned.err());
    // What is said last is true.
    let last = |out: &str| out.lines().last().unwrap_or_default().to_owned();
    assert_eq!(last(&warned.succeeds()), "# speech.toml: 1 warning; the run is called speech");
    let refused = call(&place, "check speech.toml --data-dir data").refuses();
    assert!(said(&refused), "{refused}");
    let skips = call(&place, "check speech.toml --data-dir data --set data.on_bad_line=skip");
    assert!(!skips.err().contains("none.wav"), "{}", skips.err());
    assert_eq!(last(&skips.succeeds()), "# speech.toml: no problems; the run is called speech");
    // Of each kind the first, and how many more.
    place.write("page.wav", "%PDF-1.7 no sound at all");
    let others = manifest.replace("sound/validation-4.wav", "../../page.wav");
    let others = (1..4).fold(others, |text, i| text.replace(&format!("sound/validation-{i}.wav"), "sound/none.wav"));
    place.write("data/mine/validation.tsv", others);
    let warned = call(&place, "check speech.toml");
    assert!(said(&warned.err()), "{}", warned.err());
    assert!(warned.err().contains("(and 2 more with a recording that is not there)\n"), "{}", warned.err());
    assert!(warned.err().contains("validation.tsv: line 6: ") && warned.err().contains("page.wav: is a PDF"));
    assert_eq!(last(&warned.succeeds()), "# speech.toml: 2 warnings; the run is called speech");
    let other = call(&place, "check speech.toml --data-dir data --set features.rate=16000").refuses();
    assert!(other.contains("train.tsv: line 2: ") && other.contains("it has 8000 samples a second"), "{other}");
}

#[test]
fn recordings_that_cannot_be_used_are_told_together_and_counted_by_kind() {
    let place = place();
    let manifest = String::from_utf8(place.read("data/mine/train.tsv")).unwrap();
    let with = |count: usize| {
        let none =
            |text: String, i: usize| text.replace(&format!("sound/train-{i}.wav"), &format!("sound/none-{i}.wav"));
        place.write("data/mine/train.tsv", (0..count).fold(manifest.clone(), none).replace("train-20.", "page."));
        call(&place, "run speech.toml --run runs/bad").refuses()
    };
    place.write("data/mine/sound/page.wav", "%PDF-1.7 no sound at all");
    let few = with(3);
    assert!(few.contains("train.tsv: 4 problems\n"), "{few}");
    for (line, file) in [(2, "none-0.wav"), (3, "none-1.wav"), (4, "none-2.wav"), (22, "page.wav")] {
        let named = few.lines().filter(|told| told.contains(&format!("  line {line}: ")) && told.contains(file));
        assert_eq!(named.count(), 1, "{few}");
    }
    assert!(few.ends_with("; or set data.on_bad_line = \"skip\"") && !few.contains("more such"), "{few}");
    let many = with(14);
    assert_eq!(many.matches("there is no such file").count(), 10, "{many}");
    assert!(many.contains(" (and at least 5 more such recordings); or set data.on_bad_line"), "{many}");
    let told = call(&place, &format!("train speech.toml --run runs/rest {STILL} --set data.on_bad_line=skip"));
    let counted = "left out as unusable: 15 lines skipped: 14 with a recording that is not there (first: line 2), 1 with a \
                   file that is neither wav nor flac (first: line 22)";
    assert!(told.err().contains(counted), "{}", told.err());
    told.succeeds();
}

#[test]
fn contradictions_between_recordings_and_a_model_are_told() {
    let place = place();
    let refused = |sets: &str| call(&place, &format!("check speech.toml {sets}")).refuses();
    let tokens = refused("--set model.source={replace=true,kind='embedding'}");
    assert!(tokens.contains("recordings have no tokens; set `model.source.kind = \"frames\"`"), "{tokens}");
    let width = refused("--set model.source.width=13");
    assert!(width.contains("the frames of `features` have 12 numbers, not 13; leave `width` out"), "{width}");
    let silent = refused("--set model={replace=true,source={kind='frames'}}");
    assert!(silent.contains("the model has no CTC to search with; set `[model.ctc]`"), "{silent}");
    let text = refused("--set data={replace=true,kind='pairs',train='a.tsv'}");
    assert!(text.contains("only a manifest has recordings"), "{text}");
}

/// What goes on with models of texts goes on with those of recordings: the layer of CTC has a column for each token.
#[test]
fn recordings_are_learned_from_where_a_model_is() {
    use antiphon::SavedModel;
    use antiphon_core::TokenId;
    let place = place();
    let short = "--set train.epochs=1 --no-test";
    call(&place, &format!("run speech.toml -q --run parent {short}")).succeeds();
    let more = String::from_utf8(place.read("data/mine/train.tsv")).unwrap() + "sound/train-0.wav\tdad\tann\n";
    place.write("data/mine/more.tsv", more);
    let start = "--set train.start_from.model=parent --set data.train=mine/more.tsv";
    let frozen = "--set train.parameters.frozen=['encoder']";
    let called = call(&place, &format!("train speech.toml --run child {STILL} {start} {frozen}"));
    assert!(called.err().contains("of `target` 7 of 8 tokens keep their rows, and 1 are drawn\n"), "{}", called.err());
    called.succeeds();
    let read = |run: &str| {
        let file = place.path(&format!("{run}/model.safetensors"));
        let saved = SavedModel::read(&file, &burn::tensor::Device::flex()).expect("a model");
        let weights = antiphon_train::save_weights(&saved.model);
        (saved.tokenizers.target().clone(), weights)
    };
    let ((parent, theirs), (child, own)) = (read("parent"), read("child"));
    let mut compared = 0;
    for (own, theirs) in own.iter().zip(&theirs) {
        assert_eq!(own.path, theirs.path);
        let Some(along) = (0..own.dims.len()).find(|&d| own.dims[d] != theirs.dims[d]) else {
            assert!(own.values == theirs.values, "{}", own.path);
            continue;
        };
        assert_eq!(along, usize::from(own.path == "ctc.weight"), "{}", own.path);
        let of = |weight: &antiphon_train::Weight, id: TokenId| {
            let inner: usize = weight.dims[along + 1..].iter().product();
            let places = (0..weight.values.len()).filter(|i| i / inner % weight.dims[along] == id as usize);
            places.map(|i| weight.values[i]).collect::<Vec<_>>()
        };
        for id in 0..parent.size() as TokenId {
            let mut ids = 0..child.size() as TokenId;
            let now = ids.find(|&now| child.token(now) == parent.token(id)).expect("it is known");
            assert!(of(own, now) == of(theirs, id), "{}: {:?}", own.path, parent.token(id));
            compared += 1;
        }
    }
    assert_eq!(compared, 5 * 7, "embedding, output and CTC, each with its rows and its bias where it has one");
    // Its columns are written as vectors, and read as such.
    let out = call(&place, "vectors parent --table ctc.weight").succeeds();
    let weight = theirs.iter().find(|weight| weight.path == "ctc.weight").unwrap();
    let (width, vocabulary) = (weight.dims[0], weight.dims[1]);
    assert_eq!(out.lines().next(), Some(format!("{vocabulary} {width}").as_str()));
    for (id, line) in out.lines().skip(1).enumerate() {
        let numbers: Vec<f32> = line.split(' ').skip(1).map(|number| number.parse().unwrap()).collect();
        assert!((0..width).all(|m| numbers[m] == weight.values[m * vocabulary + id]), "{line}");
    }
    place.write("data/ctc.txt", &out);
    let vectors = "--set train.start_from.vectors={'ctc.weight'='ctc.txt'}";
    call(&place, &format!("train speech.toml -q --run columns {STILL} {vectors}")).succeeds();
    let (_, columns) = read("columns");
    assert!(columns.iter().find(|weight| weight.path == "ctc.weight") == Some(weight));
    // It goes on.
    call(&place, "extend parent --epochs 1 --run longer -q --no-test").succeeds();
    call(&place, &format!("run speech.toml -q --run whole {short} --set train.epochs=2")).succeeds();
    assert!(place.read("longer/model.safetensors") == place.read("whole/model.safetensors"));

    // Several have no CTC together, which is said before anything is searched.
    let both = "longer parent";
    for words in [format!("predict {both} --input data/mine/test.tsv"), format!("evaluate {both}")] {
        let said = call(&place, &words).refuses();
        assert!(said.contains("longer/model.safetensors: search.ctc_weight: each of several models"), "{said}");
        call(&place, &format!("{words} --set search.ctc_weight=0")).succeeds();
    }
}
