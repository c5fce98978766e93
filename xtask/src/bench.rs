//! `cargo xtask bench`: how fast the operations are, beside this machine's matrix product and beside a peer, and how fast
//! whole models train and search.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use antiphon_core::Error;
use antiphon_core::disk::write_atomically;
use serde::Deserialize;

use crate::cargo::Features;
use crate::growth::Growth;
use crate::scaling::{Measurement, Who};
use crate::stop::{Outcome, Stop};
use crate::{bundle, cargo, scaling};

/// Time the operations (GFLOP/s, and the share of what one matrix product of this machine reaches) and whole models
#[derive(Debug, PartialEq, clap::Args)]
#[command(args_override_self = true)]
pub(crate) struct Arguments {
    /// Only benchmarks whose names match this expression (`lstm-train`, `gru-.*/64,25`)
    #[arg(long, value_name = "EXPRESSION")]
    pub(crate) filter: Option<String>,
    /// Keep the figures under this name
    #[arg(long, value_name = "NAME", conflicts_with = "compare")]
    save: Option<String>,
    /// Say what changed since the figures kept under this name
    #[arg(long, value_name = "NAME")]
    compare: Option<String>,
    /// A folder with a peer's script `torch_rnn.py`, which is run in turn with ours
    #[arg(long, value_name = "DIR")]
    pub(crate) peers: Option<PathBuf>,
    /// The interpreter of the peer's environment
    #[arg(long, value_name = "FILE", default_value = "python3", requires = "peers")]
    pub(crate) python: PathBuf,
    /// How often everything is measured; figures are medians
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) rounds: u16,
    /// Draw how the cost of a token grows (`--filter growth`) into this SVG file
    #[arg(long, value_name = "FILE")]
    picture: Option<PathBuf>,
    /// Measure with each of these numbers of threads (`1,2,4,8`) and say how speed grows with them; without --filter only a few
    /// benchmarks
    #[arg(
        long,
        value_name = "LIST",
        action = clap::ArgAction::Set,
        num_args = 1,
        value_delimiter = ',',
        value_parser = clap::value_parser!(u16).range(1..),
        conflicts_with_all = ["save", "compare", "picture"]
    )]
    pub(crate) threads: Vec<u16>,
    /// Add every figure of --threads to this file as soon as it is known, a line of JSON each
    #[arg(long, value_name = "FILE", requires = "threads")]
    pub(crate) json: Option<PathBuf>,
    /// Measure nothing, but put the built benchmarks into this new or empty folder, with a script `bench.sh` that runs them on a
    /// machine without a toolchain; with --peers the peer's script too
    #[arg(
        long,
        value_name = "DIR",
        conflicts_with_all = ["filter", "save", "compare", "picture", "threads", "json", "prebuilt", "rounds", "python"]
    )]
    bundle: Option<PathBuf>,
    /// Measure this device: `flex` is the CPU; `wgpu` is a GPU by Vulkan, of which layers, decoders and losses are measured
    #[arg(long, value_enum, default_value_t = BenchDevice::Flex, conflicts_with_all = ["threads", "save", "compare"])]
    device: BenchDevice,
    /// Run the benchmarks that lie in this folder, as --bundle makes it, and build nothing
    #[arg(long, value_name = "DIR")]
    pub(crate) prebuilt: Option<PathBuf>,
}

/// What computes while it is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum BenchDevice {
    Flex,
    Wgpu,
}

impl BenchDevice {
    fn name(self) -> &'static str {
        match self {
            BenchDevice::Flex => "flex",
            BenchDevice::Wgpu => "wgpu",
        }
    }

    /// What the benchmarks are built with.
    fn features(self) -> Features {
        let mut features = Features::default();
        if self == BenchDevice::Wgpu {
            features.add("antiphon/vulkan,antiphon-kernels/vulkan");
        }
        features
    }

    /// Which programs measure something on it.
    fn benchmarks(self) -> &'static [&'static str] {
        match self {
            BenchDevice::Flex => &BENCHMARKS,
            BenchDevice::Wgpu => &BENCHMARKS[..1],
        }
    }

    /// What is measured without `--filter`; all, if `None`.
    fn filter(self) -> Option<&'static str> {
        (self == BenchDevice::Wgpu).then_some(OF_GPU)
    }
}

/// What tells the benchmarks of the operations which device to measure.
const DEVICE: &str = "ANTIPHON_BENCH_DEVICE";

/// What is measured of a GPU without `--filter`: the layers of the published comparisons, decoders and losses.
const OF_GPU: &str = "^((lstm|gru)-(forward|train)/(64,25,512,512|32,25,256,256|64,100,128,128|16,50,512,1024)|decoder-train/.*|loss-train/.*)$";

/// The programs that hold the benchmarks.
pub(crate) const BENCHMARKS: [&str; 3] = ["layers", "models", "sound"];

/// The peer's script.
pub(crate) const PEER: &str = "torch_rnn.py";

/// The benchmark that says what the machine can do.
const PEAK: &str = "product/2048";

/// The file, beside the figures of a benchmark, that says how many cores it kept busy.
const BUSY: &str = "busy.json";

/// Groups of benchmarks that count something else than operations, and what.
const COUNTED: [(&str, &str); 5] = [
    ("train/", "target tokens/s"),
    ("step-", "target tokens/s"),
    ("search/", "sentences/s"),
    ("growth-", "tokens/s"),
    ("sound/", "seconds of sound/s"),
];

/// What is counted in a nanosecond in each round (GFLOP/s of an operation), by the benchmark's name.
type Speeds = BTreeMap<String, Vec<f64>>;

pub(crate) fn bench(arguments: &Arguments) -> Outcome {
    match &arguments.bundle {
        Some(folder) => bundle::write(folder, arguments.peers.as_deref(), &arguments.device.features()),
        None if arguments.threads.is_empty() => arguments.measure_rounds(),
        None => scaling::scale(arguments),
    }
}

impl Arguments {
    /// Measures in rounds and prints the tables.
    fn measure_rounds(&self) -> Outcome {
        let (mut ours, mut times, mut peer) = (Speeds::new(), Speeds::new(), Speeds::new());
        let filter = self.filter.as_deref().or_else(|| self.device.filter());
        let filter = filter.map(|filter| format!("^{PEAK}$|{filter}"));
        for round in 1..=self.rounds {
            eprintln!("round {round} of {}", self.rounds);
            for Figure { name, nanoseconds, speed, .. } in self.measure(&self.home(), filter.as_deref(), &[])? {
                times.entry(name.clone()).or_default().extend(nanoseconds.map(|nanoseconds| nanoseconds / 1e6));
                speed.into_iter().for_each(|speed| ours.entry(name.clone()).or_default().push(speed));
            }
            for Figure { name, speed, .. } in self.measure_peer(&[])? {
                peer.entry(name).or_default().extend(speed);
            }
        }
        let growth = Growth::of(ours.iter().map(|(name, speeds)| (name.as_str(), median(speeds))));
        ours.retain(|name, _| !Growth::counts(name));
        times.retain(|name, _| !Growth::counts(name));
        print!("{}{}", table(&ours, &times, &peer), growth.table());
        if let Some(file) = &self.picture {
            write_atomically(file, growth.picture()?.as_bytes())?;
        }
        Ok(())
    }

    /// Measures with a number of threads.
    pub(crate) fn measure_threads(&self, threads: u16, round: u16) -> Outcome<Vec<Measurement>> {
        let filter = scaling::filter(self.filter.as_deref());
        // Each number of threads has a folder, lest figures of one be called better or worse than those of another.
        let home = self.home().join(format!("threads-{threads}"));
        let figures = self.measure(&home, Some(filter), &[("RAYON_NUM_THREADS", &threads.to_string())])?;
        Ok(figures.into_iter().map(|figure| figure.measured(threads, round, Who::Ours)).collect())
    }

    /// Lets the peer measure its layers of these shapes with a number of threads.
    pub(crate) fn peer_with_threads(
        &self,
        threads: u16,
        round: u16,
        shapes: &BTreeSet<&str>,
    ) -> Outcome<Vec<Measurement>> {
        if shapes.is_empty() {
            return Ok(Vec::new());
        }
        let threads_word = threads.to_string();
        let mut words = vec!["--threads", &threads_word];
        words.extend(shapes.iter().flat_map(|shape| ["--shape", shape]));
        let figures = self.measure_peer(&words)?;
        Ok(figures.into_iter().map(|figure| figure.measured(threads, round, Who::Peer)).collect())
    }

    /// The folder of the benchmarks' figures.
    fn home(&self) -> PathBuf {
        match &self.prebuilt {
            Some(folder) => folder.join("criterion"),
            None => cargo::root().join("target/criterion"),
        }
    }

    /// Runs the benchmarks once, with a folder for their figures; → these.
    fn measure(&self, home: &Path, filter: Option<&str>, environment: &[(&str, &str)]) -> Outcome<Vec<Figure>> {
        let mut words = vec!["--noplot"];
        words.extend(filter);
        let kept = [("--save-baseline", &self.save), ("--baseline", &self.compare)];
        for (option, name) in kept.iter().filter_map(|(option, name)| name.as_deref().map(|name| (*option, name))) {
            words.extend([option, name]);
        }
        forget(home)?;
        let home_text = home.to_string_lossy();
        let environment: Vec<(&str, &str)> = environment
            .iter()
            .copied()
            .chain([("CRITERION_HOME", &*home_text), (DEVICE, self.device.name())])
            .collect();
        match &self.prebuilt {
            Some(folder) => run_prebuilt(folder, self.device, &words, &environment)?,
            None => run_built(self.device, &words, &environment)?,
        }
        read_figures(home)
    }

    /// Runs the peer's script, if there is one; → its figures.
    fn measure_peer(&self, words: &[&str]) -> Outcome<Vec<Figure>> {
        match &self.peers {
            Some(folder) => Ok(peer_figures(&run_peer(&self.python, &folder.join(PEER), words)?)),
            None => Ok(Vec::new()),
        }
    }

    /// Makes sure that the peer can be run, before hours are spent on ours.
    pub(crate) fn try_peer(&self) -> Outcome {
        match &self.peers {
            Some(folder) => run_peer(&self.python, &folder.join(PEER), &["--help"]).map(drop),
            None => Ok(()),
        }
    }
}

/// Lets cargo build the benchmarks and run them.
fn run_built(device: BenchDevice, words: &[&str], environment: &[(&str, &str)]) -> Outcome {
    let mut all: Vec<String> = ["--workspace", "--profile", "dev"].map(str::to_owned).into();
    all.extend(device.features().words());
    all.extend(device.benchmarks().iter().flat_map(|name| ["--bench", name]).map(str::to_owned));
    all.extend(["--"].iter().chain(words).map(|&word| word.to_owned()));
    cargo::call("bench", &all, environment)
}

/// Runs the benchmarks that lie in a folder.
fn run_prebuilt(folder: &Path, device: BenchDevice, words: &[&str], environment: &[(&str, &str)]) -> Outcome {
    for program in device.benchmarks().iter().map(|name| folder.join(name)) {
        let mut command = Command::new(&program);
        command.arg("--bench").args(words).envs(environment.iter().copied());
        let status = command.status().map_err(|e| {
            let remedy = "`cargo xtask bench --bundle DIR` makes a folder that --prebuilt can run";
            Error::new(format!("cannot start this benchmark: {e}; {remedy}")).in_file(&program)
        })?;
        Stop::unless_success(status)?;
    }
    Ok(())
}

/// What a benchmark says of itself.
#[derive(Debug, PartialEq)]
struct Figure {
    name: String,
    nanoseconds: Option<f64>,
    /// What is counted in a nanosecond.
    speed: Option<f64>,
    cores_busy: Option<f64>,
}

impl Figure {
    fn measured(self, threads: u16, round: u16, who: Who) -> Measurement {
        let Self { name, nanoseconds, speed, cores_busy } = self;
        let rate = speed.map(|speed| if counted(&name).is_some() { speed * 1e9 } else { speed });
        Measurement { threads, round, name, who, nanoseconds, rate, cores_busy }
    }
}

/// What a benchmark counts, if not operations.
fn counted(name: &str) -> Option<&'static str> {
    COUNTED.iter().find(|(group, _)| name.starts_with(group)).map(|(_, unit)| *unit)
}

/// What a benchmark's rate is given in.
pub(crate) fn unit(name: &str) -> &'static str {
    counted(name).unwrap_or("GFLOP/s")
}

/// Removes what the benchmarks said before: figures of an earlier call must not pass for this one's.
fn forget(home: &Path) -> Outcome {
    for figures in figures_below(home) {
        for file in [figures.with_file_name(BUSY), figures].into_iter().filter(|file| file.exists()) {
            std::fs::remove_file(&file).map_err(|e| Error::io(&file, "remove", &e))?;
        }
    }
    Ok(())
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

#[derive(Deserialize)]
struct Busy {
    cores: f64,
}

fn read_figures(home: &Path) -> Outcome<Vec<Figure>> {
    let mut figures = Vec::new();
    for path in figures_below(home) {
        let estimates: Estimates = read(&path)?;
        let benchmark: Benchmark = read(&path.with_file_name("benchmark.json"))?;
        let busy = path.with_file_name(BUSY);
        let busy: Option<Busy> = if busy.exists() { Some(read(&busy)?) } else { None };
        let nanoseconds = estimates.median.point_estimate;
        let count = benchmark.throughput.and_then(|given| given.get("Elements").copied());
        figures.push(Figure {
            name: benchmark.full_id,
            nanoseconds: Some(nanoseconds),
            speed: count.map(|count| count / nanoseconds),
            cores_busy: busy.map(|busy| busy.cores),
        });
    }
    Ok(figures)
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
    forward_ms: Option<f64>,
    train_gflops: Option<f64>,
    train_ms: Option<f64>,
}

/// Runs the peer's script; → what it prints.
fn run_peer(python: &Path, script: &Path, words: &[&str]) -> Outcome<String> {
    if !script.is_file() {
        return Err(Error::new("there is no such script: name the folder that holds it with --peers")
            .in_file(script)
            .into());
    }
    let output = Command::new(python).arg(script).args(words).stderr(Stdio::inherit()).output();
    let output = output.map_err(|e| {
        let remedy = "name the interpreter of the peer's environment with --python";
        Error::new(format!("cannot start the peer: {e}; {remedy}")).in_file(python)
    })?;
    if !output.status.success() {
        let remedy =
            "does the interpreter that --python names have what it imports? Without --peers only ours is measured";
        return Err(Stop::Failed(format!("{}: the peer's script failed; {remedy}", script.display())));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Takes what it understands: lines of other kinds (the peer's own matrix product) are passed over.
fn peer_figures(lines: &str) -> Vec<Figure> {
    let mut figures = Vec::new();
    for line in lines.lines().filter_map(|line| serde_json::from_str::<PeerLine>(line).ok()) {
        let PeerLine { kind, batch, steps, input, hidden, .. } = line;
        let passes = [("forward", line.forward_gflops, line.forward_ms), ("train", line.train_gflops, line.train_ms)];
        for (pass, speed, milliseconds) in passes.into_iter().filter(|(_, speed, _)| speed.is_some()) {
            let name = format!("{}-{pass}/{batch},{steps},{input},{hidden}", kind.to_lowercase());
            let nanoseconds = milliseconds.map(|milliseconds| milliseconds * 1e6);
            figures.push(Figure { name, nanoseconds, speed, cores_busy: None });
        }
    }
    figures
}

/// The middle of some figures; of two in the middle the lower.
pub(crate) fn median(figures: &[f64]) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[(sorted.len() - 1) / 2]
}

/// `median (least–greatest)`, if there are several.
pub(crate) fn spread(figures: &[f64]) -> String {
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
        if let Some(unit) = counted(name) {
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
        let line = r#"{"kind": "LSTM", "batch": 1, "steps": 2, "input": 3, "hidden": 4, "train_gflops": 60.0}"#;
        let figures = peer_figures(&format!("{{\"op\": \"gemm\"}}\n{line}\n")).into_iter();
        let peer = figures.map(|figure| (figure.name, figure.speed.into_iter().collect())).collect();
        let table = table(&ours, &times, &peer);
        assert!(table.contains("| lstm-train/1,2,3,4 | 2.00 | 120 (100–150) | 0.60 | 60 | 2.00 |"), "{table}");
        assert!(table.contains("| decoder | 5.00 |  |  |  |  |"), "{table}");
        assert!(table.ends_with("| train/small | 7.0 | 3000 (2000–4000) target tokens/s |\n"), "{table}");
    }

    #[test]
    fn figures_are_read_with_the_cores_they_kept_busy() {
        let home = tempfile::tempdir().unwrap();
        let folder = home.path().join("train/small/new");
        std::fs::create_dir_all(&folder).unwrap();
        let write = |name: &str, text: &str| std::fs::write(folder.join(name), text).unwrap();
        write("estimates.json", r#"{"median": {"point_estimate": 2e6}}"#);
        write("benchmark.json", r#"{"full_id": "train/small", "throughput": {"Elements": 500}}"#);
        let figure = |cores_busy| Figure {
            name: "train/small".into(),
            nanoseconds: Some(2e6),
            speed: Some(500.0 / 2e6),
            cores_busy,
        };
        assert_eq!(read_figures(home.path()), Ok(vec![figure(None)]));
        write("busy.json", "{\"cores\": 1.5}\n");
        assert_eq!(read_figures(home.path()), Ok(vec![figure(Some(1.5))]));
        let measured = figure(Some(1.5)).measured(2, 3, Who::Ours);
        assert_eq!((measured.threads, measured.round, measured.cores_busy), (2, 3, Some(1.5)));
        assert_eq!(
            (measured.rate, unit("train/small"), unit("lstm-train/1")),
            (Some(250_000.0), "target tokens/s", "GFLOP/s")
        );
        write("busy.json", "busy");
        let Err(Stop::Mistake(error)) = read_figures(home.path()) else { panic!("no mistake") };
        assert!(error.to_string().contains("busy.json: is no figure of a benchmark"), "{error}");
        forget(home.path()).unwrap();
        assert_eq!(read_figures(home.path()), Ok(Vec::new()));
        assert!(!folder.join("busy.json").exists());
    }

    #[test]
    fn what_cannot_be_started_is_named_with_a_remedy() {
        let Err(Stop::Mistake(error)) = run_prebuilt(Path::new("/nowhere"), BenchDevice::Flex, &[], &[]) else {
            panic!("no mistake")
        };
        let text = error.to_string();
        assert!(text.starts_with("/nowhere/layers: cannot start") && text.contains("--bundle"), "{text}");
        let folder = tempfile::tempdir().unwrap();
        let script = folder.path().join(PEER);
        let peer = || run_peer(Path::new("/nowhere/python"), &script, &[]);
        let Err(Stop::Mistake(error)) = peer() else { panic!("no mistake") };
        assert!(error.to_string().contains("--peers"), "{error}");
        std::fs::write(&script, "").unwrap();
        let Err(Stop::Mistake(error)) = peer() else { panic!("no mistake") };
        assert!(error.to_string().starts_with("/nowhere/python: cannot start the peer"), "{error}");
    }
}
