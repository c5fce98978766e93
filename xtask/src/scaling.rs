//! How speed grows with the number of threads: `cargo xtask bench --threads LIST`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Write;
use std::path::Path;

use antiphon_core::{Error, Place};
use serde::{Deserialize, Serialize};

use crate::bench::{Arguments, median, spread, unit};
use crate::stop::Outcome;

/// What is measured unless `--filter` says otherwise: few benchmarks, of few rows and of many, and whole training steps.
const USUAL: &str = "^(lstm-train/(64,25,512,512|32,25,256,256)|lstm-forward/1,200,512,512|\
                     (train|step-forward|step-loss|step-backward)/(quickstart|input-feeding))$";

/// Whose program was measured.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Who {
    Ours,
    Peer,
}

/// One benchmark, measured once.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Measurement {
    pub(crate) threads: u16,
    pub(crate) round: u16,
    pub(crate) name: String,
    pub(crate) who: Who,
    pub(crate) nanoseconds: Option<f64>,
    /// GFLOP/s of an operation, something a second of a model.
    pub(crate) rate: Option<f64>,
    /// How many cores were kept busy, where that was measured.
    pub(crate) cores_busy: Option<f64>,
}

/// Which benchmarks are measured.
pub(crate) fn filter(given: Option<&str>) -> &str {
    given.unwrap_or(USUAL)
}

/// Refuses numbers of threads that do not ascend.
///
/// # Errors
/// If a number stands behind one that is not less.
pub(crate) fn check(threads: &[u16]) -> Outcome {
    let Some(pair) = threads.windows(2).find(|pair| pair[0] >= pair[1]) else { return Ok(()) };
    let sorted: BTreeSet<u16> = threads.iter().copied().collect();
    let sorted: Vec<String> = sorted.iter().map(u16::to_string).collect();
    let message = format!(
        "{} stands behind {}: give each number once, in ascending order: `--threads {}`",
        pair[1],
        pair[0],
        sorted.join(",")
    );
    Err(Error::new(message).at(Place::text("--threads")).into())
}

/// The shapes of recurrent layers among benchmarks' names, as the peer's script takes them: `64,25,512,512`.
pub(crate) fn shapes<'n>(names: impl Iterator<Item = &'n str>) -> BTreeSet<&'n str> {
    let shape = |name: &'n str| {
        let (group, shape) = name.split_once('/')?;
        let kind = group.strip_suffix("-train").or(group.strip_suffix("-forward"))?;
        let numbers = shape.split(',').filter(|number| number.parse::<usize>().is_ok()).count();
        (["lstm", "gru"].contains(&kind) && numbers == 4).then_some(shape)
    };
    names.filter_map(shape).collect()
}

/// Measures with each number of threads in turn, in each round, and prints the table.
pub(crate) fn scale(arguments: &Arguments) -> Outcome {
    check(&arguments.threads)?;
    arguments.try_peer()?;
    let mut kept = Kept::new(arguments.json.as_deref())?;
    for round in 1..=arguments.rounds {
        for &threads in &arguments.threads {
            eprintln!("round {round} of {}, threads: {threads}", arguments.rounds);
            let ours = arguments.measure_threads(threads, round)?;
            kept.add(ours.clone())?;
            let names = ours.iter().map(|measurement| measurement.name.as_str());
            kept.add(arguments.peer_with_threads(threads, round, &shapes(names))?)?;
        }
    }
    if kept.all.is_empty() {
        let error =
            Error::new("no benchmark has such a name: leave `--filter` out, or let it name one of `cargo xtask bench`");
        return Err(error.at(Place::text("--filter")).into());
    }
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    print!("{}", table(&kept.all, cores));
    Ok(())
}

/// All measurements, which also go to a file as they come.
struct Kept<'p> {
    all: Vec<Measurement>,
    file: Option<(&'p Path, File)>,
}

impl<'p> Kept<'p> {
    fn new(path: Option<&'p Path>) -> Outcome<Self> {
        let open = |path| File::options().create(true).append(true).open(path).map(|file| (path, file));
        let file = path.map(|path| open(path).map_err(|e| Error::io(path, "write", &e))).transpose()?;
        Ok(Self { all: Vec::new(), file })
    }

    fn add(&mut self, measurements: Vec<Measurement>) -> Outcome {
        if let Some((path, file)) = &mut self.file {
            for measurement in &measurements {
                let line = serde_json::to_string(measurement).expect("figures are JSON");
                let written = writeln!(file, "{line}").and_then(|()| file.flush());
                written.map_err(|e| Error::io(*path, "write", &e))?;
            }
        }
        self.all.extend(measurements);
        Ok(())
    }
}

/// What all rounds say about a benchmark with one number of threads.
#[derive(Default)]
struct Figures {
    milliseconds: Vec<f64>,
    rates: Vec<f64>,
    busy: Vec<f64>,
    peer: Vec<f64>,
}

impl Figures {
    fn note(&mut self, measurement: &Measurement) {
        match measurement.who {
            Who::Peer => self.peer.extend(measurement.rate),
            Who::Ours => {
                self.milliseconds.extend(measurement.nanoseconds.map(|nanoseconds| nanoseconds / 1e6));
                self.rates.extend(measurement.rate);
                self.busy.extend(measurement.cores_busy);
            }
        }
    }
}

/// The median with some digits; nothing of nothing.
fn middle(figures: &[f64], digits: usize) -> String {
    if figures.is_empty() { String::new() } else { format!("{:.digits$}", median(figures)) }
}

/// `median (least–greatest)`; nothing of nothing.
fn range(figures: &[f64]) -> String {
    if figures.is_empty() { String::new() } else { spread(figures) }
}

/// A row a benchmark and number of threads.
fn table(all: &[Measurement], cores: usize) -> String {
    let mut benchmarks: BTreeMap<&str, BTreeMap<u16, Figures>> = BTreeMap::new();
    for measurement in all {
        let counts = benchmarks.entry(&measurement.name).or_default();
        counts.entry(measurement.threads).or_default().note(measurement);
    }
    let counts: BTreeSet<u16> = all.iter().map(|measurement| measurement.threads).collect();
    let least = counts.first().copied().unwrap_or(1);
    let base = if least == 1 { "one thread".to_owned() } else { format!("{least} threads") };
    let mut text = "| benchmark | threads | ms | rate | speedup | efficiency | cores busy | peer GFLOP/s | ratio |\n\
         |---|---|---|---|---|---|---|---|---|\n"
        .to_owned();
    for (name, counts) in &benchmarks {
        let first = counts.get(&least).filter(|figures| !figures.milliseconds.is_empty());
        for (&threads, figures) in counts.iter().filter(|(_, figures)| !figures.milliseconds.is_empty()) {
            text += &row(name, threads, figures, first.map(|first| (least, first)));
        }
    }
    text + &explanation(&counts, &base, cores)
}

/// A row of the table, beside the figures of the least number of threads.
fn row(name: &str, threads: u16, figures: &Figures, first: Option<(u16, &Figures)>) -> String {
    let times = first.map(|(_, first)| median(&first.milliseconds) / median(&figures.milliseconds));
    let share = first.zip(times).map(|((least, _), times)| times * f64::from(least) / f64::from(threads));
    let two = |figure: Option<f64>| figure.map(|figure| format!("{figure:.2}")).unwrap_or_default();
    let both = !figures.rates.is_empty() && !figures.peer.is_empty();
    let ratio = both.then(|| median(&figures.rates) / median(&figures.peer));
    let rate =
        if figures.rates.is_empty() { String::new() } else { format!("{} {}", spread(&figures.rates), unit(name)) };
    format!(
        "| {name} | {threads} | {} | {rate} | {} | {} | {} | {} | {} |\n",
        middle(&figures.milliseconds, 2),
        two(times),
        two(share),
        middle(&figures.busy, 2),
        range(&figures.peer),
        two(ratio),
    )
}

/// What the reader of the table should know.
fn explanation(counts: &BTreeSet<u16>, base: &str, cores: usize) -> String {
    let noun = |count: usize, one: &str| if count == 1 { format!("{count} {one}") } else { format!("{count} {one}s") };
    let mut text = format!(
        "\n`speedup`: how many times as fast as with {base}. `efficiency`: that, divided by how many times as many threads there \
         are. `cores busy` counts a thread that stays awake for work.\n"
    );
    let beyond: Vec<String> = counts.iter().filter(|&&count| usize::from(count) > cores).map(u16::to_string).collect();
    if !beyond.is_empty() {
        text += &format!(
            "This machine has {}: threads share them in the rows of {}.\n",
            noun(cores, "core"),
            beyond.join(", ")
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stop::Stop;

    fn ours(name: &str, threads: u16, round: u16, milliseconds: f64, rate: f64) -> Measurement {
        let nanoseconds = Some(milliseconds * 1e6);
        let name = name.to_owned();
        Measurement { threads, round, name, who: Who::Ours, nanoseconds, rate: Some(rate), cores_busy: None }
    }

    #[test]
    fn numbers_of_threads_ascend() {
        assert_eq!(check(&[1, 2, 16]), Ok(()));
        for (threads, says) in [
            (
                &[4, 2, 1][..],
                "--threads: 2 stands behind 4: give each number once, in ascending order: `--threads 1,2,4`",
            ),
            (&[1, 2, 2], "--threads: 2 stands behind 2"),
        ] {
            let Err(Stop::Mistake(error)) = check(threads) else { panic!("{threads:?}") };
            assert!(error.to_string().starts_with(says), "{error}");
        }
    }

    #[test]
    fn the_peer_is_asked_for_the_shapes_of_its_layers() {
        let names = ["lstm-train/1,2,3,4", "gru-forward/1,2,3,4", "lstm-forward/5,6,7,8", "rnn-train/9,9,9,9"];
        let others = ["train/quickstart", "product/2048", "decoder-train/attention", "lstm-train/x"];
        assert_eq!(shapes(names.into_iter().chain(others)).into_iter().collect::<Vec<_>>(), ["1,2,3,4", "5,6,7,8"]);
    }

    #[test]
    fn the_table_puts_threads_beside_the_least_and_beside_the_peer() {
        let name = "lstm-train/1,2,3,4";
        let mut all = vec![ours(name, 1, 1, 8.0, 50.0), ours(name, 1, 2, 8.0, 50.0), ours(name, 1, 3, 9.0, 40.0)];
        all.extend([ours(name, 4, 1, 4.0, 100.0), ours(name, 4, 2, 3.0, 120.0), ours(name, 4, 3, 5.0, 90.0)]);
        let peer = Measurement { who: Who::Peer, ..ours(name, 4, 1, 10.0, 80.0) };
        let step = Measurement { cores_busy: Some(1.756), ..ours("train/small", 4, 1, 10.0, 3000.0) };
        all.extend([peer, step]);
        let table = table(&all, 2);
        assert!(table.starts_with("| benchmark | threads | ms | rate | speedup | efficiency |"), "{table}");
        assert!(
            table.contains(&format!("| {name} | 1 | 8.00 | 50 (40–50) GFLOP/s | 1.00 | 1.00 |  |  |  |")),
            "{table}"
        );
        let four = format!("| {name} | 4 | 4.00 | 100 (90–120) GFLOP/s | 2.00 | 0.50 |  | 80 | 1.25 |");
        assert!(table.contains(&four), "{table}");
        assert!(table.contains("| train/small | 4 | 10.00 | 3000 target tokens/s |  |  | 1.76 |  |  |"), "{table}");
        assert!(table.ends_with("This machine has 2 cores: threads share them in the rows of 4.\n"), "{table}");
    }

    #[test]
    fn the_least_number_of_threads_need_not_be_one() {
        let all = [ours("a", 2, 1, 8.0, 1.0), ours("a", 8, 1, 4.0, 2.0)];
        let table = table(&all, 8);
        assert!(table.contains("as fast as with 2 threads."), "{table}");
        assert!(table.contains("| a | 8 | 4.00 | 2 GFLOP/s | 2.00 | 0.50 |"), "{table}");
        assert!(!table.contains("share them"), "{table}");
    }

    #[test]
    fn figures_are_in_the_file_as_soon_as_they_are_known() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("scaling.json");
        let lines = || -> Vec<Measurement> {
            let text = std::fs::read_to_string(&path).unwrap();
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
        };
        let (first, second) = (ours("a", 1, 1, 8.0, 50.0), ours("a", 2, 1, 4.0, 99.5));
        let mut kept = Kept::new(Some(&path)).unwrap();
        kept.add(vec![first.clone()]).unwrap();
        assert_eq!(lines(), std::slice::from_ref(&first));
        // A later call adds to the file.
        Kept::new(Some(&path)).unwrap().add(vec![second.clone()]).unwrap();
        assert_eq!(lines(), [first, second]);
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(
            text.contains(r#""threads":2,"round":1,"name":"a","who":"ours","nanoseconds":4000000.0,"rate":99.5"#),
            "{text}"
        );
        let missing = Kept::new(Some(Path::new("/nowhere/scaling.json"))).err();
        assert!(
            matches!(missing, Some(Stop::Mistake(e)) if e.to_string().starts_with("/nowhere/scaling.json: cannot write"))
        );
    }

    #[test]
    fn the_usual_benchmarks_are_few_unless_some_are_named() {
        assert_eq!(filter(Some("gru")), "gru");
        let usual = filter(None);
        assert!(usual.starts_with('^') && usual.ends_with(")$") && !usual.contains(' '), "{usual}");
    }
}
