//! `cargo xtask bench`: how fast the operations are, beside this machine's matrix product and beside a peer, and how fast
//! whole models train and search.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use antiphon_core::Error;
use antiphon_core::disk::write_atomically;
use serde::Deserialize;

use crate::cargo;
use crate::growth::Growth;
use crate::stop::{Outcome, Stop};

/// Time the operations (GFLOP/s, and the share of what one matrix product of this machine reaches) and whole models
#[derive(Debug, PartialEq, clap::Args)]
pub(crate) struct Arguments {
    /// Only benchmarks whose names match this expression (`lstm-train`, `gru-.*/64,25`)
    #[arg(long, value_name = "EXPRESSION")]
    filter: Option<String>,
    /// Keep the figures under this name
    #[arg(long, value_name = "NAME", conflicts_with = "compare")]
    save: Option<String>,
    /// Say what changed since the figures kept under this name
    #[arg(long, value_name = "NAME")]
    compare: Option<String>,
    /// A folder with a peer's script `torch_rnn.py`, which is run in turn with ours
    #[arg(long, value_name = "DIR")]
    peers: Option<PathBuf>,
    /// The interpreter of the peer's environment
    #[arg(long, value_name = "FILE", default_value = "python3", requires = "peers")]
    python: PathBuf,
    /// How often everything is measured; figures are medians
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// Draw how the cost of a token grows (`--filter growth`) into this SVG file
    #[arg(long, value_name = "FILE")]
    picture: Option<PathBuf>,
}

/// The benchmark that says what the machine can do.
const PEAK: &str = "product/2048";

/// Groups of benchmarks that count something else than operations, and what.
const COUNTED: [(&str, &str); 2] = [("train/", "target tokens/s"), ("search/", "sentences/s")];

/// What is counted in a nanosecond in each round (GFLOP/s of an operation), by the benchmark's name.
type Speeds = BTreeMap<String, Vec<f64>>;

pub(crate) fn bench(arguments: &Arguments) -> Outcome {
    let (mut ours, mut times, mut peer) = (Speeds::new(), Speeds::new(), Speeds::new());
    for round in 1..=arguments.rounds {
        eprintln!("round {round} of {}", arguments.rounds);
        let home = measure(arguments)?;
        read_figures(&home, &mut ours, &mut times)?;
        if let Some(folder) = &arguments.peers {
            run_peer(&arguments.python, &folder.join("torch_rnn.py"), &mut peer)?;
        }
    }
    let growth = Growth::of(ours.iter().map(|(name, speeds)| (name.as_str(), median(speeds))));
    ours.retain(|name, _| !Growth::counts(name));
    times.retain(|name, _| !Growth::counts(name));
    print!("{}{}", table(&ours, &times, &peer), growth.table());
    if let Some(file) = &arguments.picture {
        write_atomically(file, growth.picture()?.as_bytes())?;
    }
    Ok(())
}

/// Runs the benchmarks once; → the folder of their figures.
fn measure(arguments: &Arguments) -> Outcome<PathBuf> {
    let home = cargo::root().join("target/criterion");
    let filter = arguments.filter.as_ref().map(|filter| format!("^{PEAK}$|{filter}"));
    let mut words = vec!["--workspace", "--profile", "dev", "--bench", "layers", "--bench", "models", "--", "--noplot"];
    words.extend(filter.as_deref());
    let kept = [("--save-baseline", &arguments.save), ("--baseline", &arguments.compare)];
    for (option, name) in kept.iter().filter_map(|(option, name)| name.as_deref().map(|name| (*option, name))) {
        words.extend([option, name]);
    }
    // Figures of an earlier call must not pass for this one's.
    for figures in figures_below(&home) {
        std::fs::remove_file(&figures).map_err(|e| Error::new(format!("cannot remove: {e}")).in_file(&figures))?;
    }
    let words: Vec<String> = words.into_iter().map(str::to_owned).collect();
    cargo::call("bench", &words, &[("CRITERION_HOME", &home.to_string_lossy())])?;
    Ok(home)
}

/// Every `new/estimates.json` below a folder, in the order of their names.
fn figures_below(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let Ok(entries) = std::fs::read_dir(folder) else { return found };
    let mut entries: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir()).collect();
    entries.sort();
    for entry in entries {
        let figures = entry.join("estimates.json");
        if entry.ends_with("new") && figures.exists() {
            found.push(figures);
        } else {
            found.extend(figures_below(&entry));
        }
    }
    found
}

#[derive(Deserialize)]
struct Estimates {
    median: Estimate,
}

#[derive(Deserialize)]
struct Estimate {
    /// Nanoseconds.
    point_estimate: f64,
}

#[derive(Deserialize)]
struct Benchmark {
    full_id: String,
    throughput: Option<BTreeMap<String, f64>>,
}

fn read_figures(home: &Path, speeds: &mut Speeds, times: &mut Speeds) -> Outcome {
    for path in figures_below(home) {
        let estimates: Estimates = read(&path)?;
        let benchmark: Benchmark = read(&path.with_file_name("benchmark.json"))?;
        let nanoseconds = estimates.median.point_estimate;
        times.entry(benchmark.full_id.clone()).or_default().push(nanoseconds / 1e6);
        if let Some(operations) = benchmark.throughput.and_then(|given| given.get("Elements").copied()) {
            speeds.entry(benchmark.full_id).or_default().push(operations / nanoseconds);
        }
    }
    Ok(())
}

fn read<T: serde::de::DeserializeOwned>(path: &Path) -> Outcome<T> {
    let text = std::fs::read_to_string(path).map_err(|e| Error::new(format!("cannot read: {e}")).in_file(path))?;
    Ok(serde_json::from_str(&text)
        .map_err(|e| Error::new(format!("is no figure of a benchmark: {e}")).in_file(path))?)
}

/// A line of the peer's script.
#[derive(Deserialize)]
struct PeerLine {
    kind: String,
    batch: usize,
    steps: usize,
    input: usize,
    hidden: usize,
    forward_gflops: Option<f64>,
    train_gflops: Option<f64>,
}

fn run_peer(python: &Path, script: &Path, speeds: &mut Speeds) -> Outcome {
    let output = Command::new(python).arg(script).stderr(Stdio::inherit()).output();
    let output = output.map_err(|e| Error::new(format!("cannot start the peer: {e}")).in_file(python))?;
    if !output.status.success() {
        return Err(Stop::Failed(format!("{}: the peer's script failed", script.display())));
    }
    note_peer(&String::from_utf8_lossy(&output.stdout), speeds);
    Ok(())
}

/// Takes what it understands: lines of other kinds (the peer's own matrix product) are passed over.
fn note_peer(lines: &str, speeds: &mut Speeds) {
    for line in lines.lines().filter_map(|line| serde_json::from_str::<PeerLine>(line).ok()) {
        let PeerLine { kind, batch, steps, input, hidden, .. } = line;
        for (pass, speed) in [("forward", line.forward_gflops), ("train", line.train_gflops)] {
            if let Some(speed) = speed {
                let name = format!("{}-{pass}/{batch},{steps},{input},{hidden}", kind.to_lowercase());
                speeds.entry(name).or_default().push(speed);
            }
        }
    }
}

/// The middle of some figures; of two in the middle the lower.
fn median(figures: &[f64]) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[(sorted.len() - 1) / 2]
}

/// `median (least–greatest)`, if there are several.
fn spread(figures: &[f64]) -> String {
    let (least, greatest) = figures.iter().fold((f64::MAX, f64::MIN), |(a, b), &x| (a.min(x), b.max(x)));
    match figures.len() {
        1 => format!("{:.0}", figures[0]),
        _ => format!("{:.0} ({least:.0}–{greatest:.0})", median(figures)),
    }
}

fn table(ours: &Speeds, times: &Speeds, peer: &Speeds) -> String {
    let peak = ours.get(PEAK).map(|figures| median(figures));
    let mut text =
        format!("| benchmark | ms | GFLOP/s | of `{PEAK}` | peer GFLOP/s | ratio |\n|---|---|---|---|---|---|\n");
    let mut models = String::new();
    for (name, milliseconds) in times {
        if let Some((_, unit)) = COUNTED.iter().find(|(group, _)| name.starts_with(group)) {
            let rate: Vec<f64> = ours.get(name).into_iter().flatten().map(|figure| figure * 1e9).collect();
            models += &format!("| {name} | {:.1} | {} {unit} |\n", median(milliseconds), spread(&rate));
            continue;
        }
        let speed = ours.get(name);
        let share = speed.zip(peak).map(|(speed, peak)| format!("{:.2}", median(speed) / peak));
        let (of_peer, ratio) = match (speed, peer.get(name)) {
            (Some(speed), Some(peer)) => (spread(peer), format!("{:.2}", median(speed) / median(peer))),
            _ => Default::default(),
        };
        let speed = speed.map(|speed| spread(speed)).unwrap_or_default();
        let milliseconds = median(milliseconds);
        let share = share.unwrap_or_default();
        text += &format!("| {name} | {milliseconds:.2} | {speed} | {share} | {of_peer} | {ratio} |\n");
    }
    if !models.is_empty() {
        text += &format!("\n| model | ms | rate |\n|---|---|---|\n{models}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_puts_medians_beside_the_peak_and_the_peer() {
        let speeds = |name: &str, figures: &[f64]| (name.to_owned(), figures.to_vec());
        let ours =
            Speeds::from([speeds(PEAK, &[200.0, 210.0, 190.0]), speeds("lstm-train/1,2,3,4", &[150.0, 100.0, 120.0])]);
        let ours = ours.into_iter().chain([speeds("train/small", &[2e-6, 4e-6, 3e-6])]).collect();
        let times = [("lstm-train/1,2,3,4", &[3.0, 1.0, 2.0][..]), ("decoder", &[5.0]), ("train/small", &[7.0])];
        let times = times.into_iter().map(|(name, figures)| speeds(name, figures)).collect();
        let mut peer = Speeds::new();
        let line = r#"{"kind": "LSTM", "batch": 1, "steps": 2, "input": 3, "hidden": 4, "train_gflops": 60.0}"#;
        note_peer(&format!("{{\"op\": \"gemm\"}}\n{line}\n"), &mut peer);
        let table = table(&ours, &times, &peer);
        assert!(table.contains("| lstm-train/1,2,3,4 | 2.00 | 120 (100–150) | 0.60 | 60 | 2.00 |"), "{table}");
        assert!(table.contains("| decoder | 5.00 |  |  |  |  |"), "{table}");
        assert!(table.ends_with("| train/small | 7.0 | 3000 (2000–4000) target tokens/s |\n"), "{table}");
    }
}
