//! `antiphon distil`: what models answer, as a table that another learns from.

use std::collections::{BTreeMap, HashSet};
use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use antiphon_core::disk::Unfinished;
use antiphon_core::{Error, Place, Result};
use antiphon_data::corpus::TableFormat;
use antiphon_data::lines::file_fault;
use antiphon_data::{CorpusConfig, Example, InputRules, Split};
use antiphon_decode::{Combination, SearchConfig, rename_sources};
use antiphon_lab::sha256_file;
use clap::ValueEnum;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::lines::{Input, Limits, Line};
use super::models::Models;
use super::target::{Begin, Target};
use super::{DataFolder, Ending, OnDevice, RunsFolder, Sets, Threads};
use crate::console::Console;
use crate::device::start_threads;
use crate::experiment::{Answer, Corpora, ExperimentConfig, Question, SavedModel, SavedModels, Searcher, files, named};
use crate::interrupt::stop_flag;
use crate::output::{print, shell, tell};

/// How many batches a thread are answered between two looks at how far it is.
const TOGETHER: usize = 16;

/// Answer a corpus with a model, or several together, into a table that another model learns from
///
/// Each source is answered once, by the search of the first model's settings (Kim and Rush 2016, sequence-level distillation). The
/// table has the columns of the model's own, or `source` and `target`, with the answer's `score` behind, as `predict --json` has it. Beside it
/// stands FILE.json: which models answered which files by which search, what was left out and why. Left out are always sources that
/// are too long, and answers that were cut off, are empty or hold the unknown symbol.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    models: Models,
    /// The table to write: tab-separated (.tsv), or JSON lines (.jsonl)
    #[arg(long, value_name = "FILE")]
    output: PathBuf,
    /// Whose sources are answered
    #[arg(long, value_enum, default_value = "train")]
    split: Asked,
    /// Answer the sources in this file instead, in the format that `predict` reads
    #[arg(long, value_name = "FILE", conflicts_with = "split")]
    input: Option<PathBuf>,
    /// Leave answers out whose score is less, as in --min-score -0.5
    #[arg(long, value_name = "SCORE", allow_negative_numbers = true)]
    min_score: Option<f64>,
    /// Leave answers out that less than this share of the models gives alone, from 0 to 1; each then answers once more by itself,
    /// and the table has a column `agreement`
    #[arg(long, value_name = "SHARE", allow_negative_numbers = true)]
    agreement: Option<f64>,
    /// Write lines of source<TAB>target and nothing else, as a corpus of `pairs` has them
    #[arg(long)]
    pairs: bool,
    #[command(flatten)]
    sets: Sets,
    #[command(flatten)]
    threads: Threads,
    #[command(flatten)]
    device: OnDevice,
    #[command(flatten)]
    data: DataFolder,
    #[command(flatten)]
    runs: RunsFolder,
    /// Say nothing but warnings and results
    #[arg(long, short)]
    quiet: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Asked {
    Train,
    Validation,
    Test,
}

impl Asked {
    fn split(self) -> Split {
        match self {
            Asked::Train => Split::Train,
            Asked::Validation => Split::Validation,
            Asked::Test => Split::Test,
        }
    }
}

/// How the table is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Pairs,
    Tsv,
    JsonLines,
}

/// A source: the number of its line, and its texts, that of each stream.
type Asking = (u64, Vec<String>);

/// `FILE.json`: what was made from what. Without times, so that the same command writes the same bytes.
#[derive(Serialize)]
struct Record<'a> {
    version: &'static str,
    output: String,
    sha256: String,
    /// The files that the models were read from, with their SHA-256.
    files: BTreeMap<String, String>,
    models: Vec<OfModel>,
    combination: Combination,
    search: &'a SearchConfig,
    seed: u64,
    split: Option<&'static str>,
    sources: BTreeMap<String, String>,
    min_score: Option<f64>,
    agreement: Option<f64>,
    counts: Counts,
}

/// A model that answered. The weights of all sum up to 1.
#[derive(Serialize)]
struct OfModel {
    model: String,
    name: String,
    steps: u64,
    weight: f64,
}

#[derive(Default, Serialize)]
struct Counts {
    sources: u64,
    written: u64,
    left_out: BTreeMap<&'static str, u64>,
}

impl Counts {
    fn leave_out(&mut self, why: &'static str) {
        *self.left_out.entry(why).or_default() += 1;
    }
}

impl Arguments {
    pub(super) fn perform(self) -> Result<Ending> {
        let threads = self.threads.threads.map(usize::from);
        start_threads(threads)?;
        let form = self.form()?;
        let begin = Begin::quietly(threads);
        let targets = self.models.find(&self.sets.set, &self.runs.runs(), &self.data, &begin)?;
        let mut read = files_of(targets.iter().map(|target| target.path.clone()))?;
        let models = self.models.read(&targets, self.device.device)?;
        let again = files_of(targets.iter().map(|target| target.path.clone()))?;
        if let Some((file, _)) = again.iter().find(|(file, digest)| read.get(*file) != Some(*digest)) {
            return Err(Error::new("was changed while it was read; give the same command again").in_file(file));
        }
        let config = &models.first().config;
        if !config.data.has_source() {
            let message = "is a language model, which answers no sources; `generate` lets it write";
            return Err(Error::new(message).in_file(self.models.name()));
        }
        if config.data.as_manifest().is_some() {
            let message = "answers recordings, and a table of texts could not hold them; `predict` and `transcribe` write down what is \
                           said";
            return Err(Error::new(message).in_file(self.models.name()));
        }
        self.check_filters(models.members().len())?;
        models.check_search(&config.search)?;
        // And of the language model that they search with.
        read.extend(files_of(config.files_of_search().into_iter().map(|(_, path)| path))?);
        let columns = columns(config);
        if form == Form::Pairs && columns.sources.len() > 1 {
            let message = "pairs have one source, and this model reads several; leave it out, and a table is written";
            return Err(Error::new(message).at(Place::text("--pairs")));
        }
        columns.check(self.agreement.is_some(), form)?;
        let record_path = record_path(&self.output);
        self.check_output(&record_path, &targets, &models)?;
        let (asked, sources) = self.sources(config)?;
        // What cannot be written is found before the work.
        let begin = |path: &Path| Unfinished::create(path).map_err(|error| Error::io(path, "write", &error));
        let (output, record_output) = (begin(&self.output)?, begin(&record_path)?);
        let mut console = Console::new(self.quiet);
        let stop = stop_flag()?;
        let Some((text, counts)) = self.answered(&models, asked, form, &columns, &mut console, &stop)? else {
            return Ok(Ending::Interrupted);
        };
        console.clear();
        if counts.written == 0 {
            let message = format!("there is nothing to be written: {}", left_out(&counts));
            return Err(Error::new(message).in_file(&self.output));
        }
        finish(output, &self.output, text.as_bytes())?;
        let record = Record {
            version: env!("CARGO_PKG_VERSION"),
            output: self.output.display().to_string(),
            sha256: sha256_file(&self.output)?,
            files: read,
            models: of_models(&models),
            combination: models.mixture().combination(),
            search: &config.search,
            seed: config.seed,
            split: self.input.is_none().then(|| self.split.split().name()),
            sources,
            min_score: self.min_score,
            agreement: self.agreement,
            counts,
        };
        let json =
            serde_json::to_string_pretty(&record).map_err(|e| Error::new(e.to_string()).in_file(&record_path))?;
        finish(record_output, &record_path, (json + "\n").as_bytes())?;
        let Counts { sources, written, .. } = record.counts;
        print(&format!(
            "{written} of {sources} sources answered{}\nthe table  {}\nthe record {}\n",
            left_out(&record.counts),
            shell(&self.output),
            shell(&record_path)
        ))?;
        Ok(Ending::Done)
    }

    fn form(&self) -> Result<Form> {
        let is_gzip = self.output.extension().is_some_and(|end| end.eq_ignore_ascii_case("gz"));
        match TableFormat::of_name(&self.output).filter(|_| !is_gzip) {
            _ if self.pairs => Ok(Form::Pairs),
            Some(TableFormat::Tsv) => Ok(Form::Tsv),
            Some(TableFormat::JsonLines) => Ok(Form::JsonLines),
            Some(TableFormat::Csv) | None => {
                let message = "the name does not tell how the table is written: let it end with `.tsv` or `.jsonl`";
                Err(Error::new(message).in_file(&self.output).at(Place::text("--output")))
            }
        }
    }

    /// That what is written is none of the files that are read, or that the models have learned from.
    fn check_output(&self, record: &Path, targets: &[Target], models: &SavedModels) -> Result<()> {
        let data_dir = self.data.path();
        let of_models = models.members().flat_map(|(_, saved)| files(&saved.config.data, None, &data_dir));
        let of_search = models.first().config.files_of_search().into_iter().map(|(_, path)| path);
        let read =
            targets.iter().map(|target| target.path.clone()).chain(of_models.map(|(_, path)| path)).chain(of_search);
        let read: Vec<PathBuf> = read.chain(self.input.clone()).filter_map(|path| path.canonicalize().ok()).collect();
        for path in [&self.output, record] {
            if path.is_dir() {
                return Err(Error::new("is a folder; name a file").in_file(path).at(Place::text("--output")));
            }
            if path.canonicalize().is_ok_and(|path| read.contains(&path)) {
                let message = "is a file that these models, or their corpora, consist of: nothing of that is overwritten; name another \
                               file";
                return Err(Error::new(message).in_file(path).at(Place::text("--output")));
            }
        }
        Ok(())
    }

    fn check_filters(&self, models: usize) -> Result<()> {
        let refuse = |option: &str, message: &str| Err(Error::new(message).at(Place::text(option)));
        match self.agreement {
            Some(share) if !(0.0..=1.0).contains(&share) => {
                refuse("--agreement", "is a share of the models: from 0 to 1, as in --agreement 0.67")
            }
            Some(_) if models == 1 => {
                refuse("--agreement", "there is one model, which agrees with itself; name several")
            }
            _ if self.min_score.is_some_and(f64::is_nan) => refuse("--min-score", "is no number"),
            _ => Ok(()),
        }
    }

    /// What is to be answered, each source once, and the files that it comes from with their SHA-256.
    fn sources(&self, config: &ExperimentConfig) -> Result<(Vec<Asking>, BTreeMap<String, String>)> {
        let mut known = HashSet::new();
        let mut asked = Vec::new();
        let mut add = |line: u64, texts: Vec<String>| {
            if known.insert(texts.clone()) {
                asked.push((line, texts));
            }
        };
        if let Some(path) = &self.input {
            if let Some(fault) = file_fault(path) {
                return Err(Error::new(fault).in_file(path).at(Place::text("--input")));
            }
            let input = Input::of(path);
            let mut rules = InputRules::of_sources(&config.data, &config.further_columns(), Some(path))?;
            let mut incoming = input.open(&mut rules)?;
            loop {
                let lines = incoming.batch(&rules, 1 << 12, false).map_err(|e| Error::io(path, "read", &e))?;
                if lines.is_empty() {
                    break;
                }
                if let Some(warning) = incoming.header_warning() {
                    tell(&format!("warning: {}: {warning}", path.display()));
                }
                for Line { number, text } in lines {
                    let texts = text.and_then(|text| rules.sources(&text));
                    let bad = |fault: antiphon_data::Fault| {
                        Error::new(fault.to_string()).at(Place::line(number as usize)).in_file(path)
                    };
                    add(number, texts.map_err(bad)?);
                }
            }
            return Ok((asked, [(path.display().to_string(), sha256_file(path)?)].into()));
        }
        let (split, data_dir) = (self.split.split(), self.data.path());
        if !config.data.has(split) {
            let message = format!("its config names no file of the {split} split; name one with `--input FILE`");
            return Err(Error::new(message).in_file(self.models.name()));
        }
        let corpus = Corpora::open_split(config, split, &data_dir, &mut Console::new(true))?;
        for example in corpus.iter() {
            let Example { source, further, line, .. } = example?;
            add(line as u64, source.into_iter().chain(further).collect());
        }
        let files = corpus.files().map(|(file, sha256)| (named(file, &data_dir), sha256.to_owned())).collect();
        Ok((asked, files))
    }

    /// The table as text, and what was counted; `None` if `stop` was raised before the end.
    fn answered(
        &self,
        models: &SavedModels,
        asked: Vec<Asking>,
        form: Form,
        columns: &Columns,
        console: &mut Console,
        stop: &AtomicBool,
    ) -> Result<Option<(String, Counts)>> {
        let saved = models.first();
        let (search, rows, seed) = (&saved.config.search, saved.config.evaluate.rows, saved.config.seed);
        let searcher = Searcher::new(models, &saved.tokenizers, search, seed, rows)?;
        let searcher = searcher.with_rerank(search, saved.config.reranking())?;
        // Each of several alone, if they are asked.
        let each = models.members().enumerate().filter(|_| self.agreement.is_some());
        let each = each.map(|(i, (_, own))| Searcher::new(&models.member(i), &own.tokenizers, search, seed, rows));
        let each: Vec<Searcher<'_>> = each.collect::<Result<_>>()?;
        let limits = Limits::of(models);
        let mut counts = Counts { sources: asked.len() as u64, ..Counts::default() };
        let mut text = if form == Form::Tsv { columns.header(self.agreement.is_some()) } else { String::new() };
        let mut done = 0;
        for part in asked.chunks(rows * TOGETHER * rayon::current_num_threads()) {
            let (mut questions, mut texts) = (Vec::new(), Vec::new());
            for (line, own) in part {
                let question = searcher.question(*line, own).map_err(|e| e.at(Place::line(*line as usize)))?;
                match limits.check_sources(&question) {
                    Ok(()) => {
                        questions.push(question);
                        texts.push(own);
                    }
                    Err(_) => counts.leave_out("source too long"),
                }
            }
            let Some(answers) = best(&searcher, &questions, stop)? else { return Ok(None) };
            let mut agreed = vec![0_usize; questions.len()];
            for (member, alone) in each.iter().enumerate() {
                let reading = models.reading(member);
                let as_read = |question: &Question| Question {
                    sources: question.reading(reading).to_vec(),
                    readings: Vec::new(),
                    ..question.clone()
                };
                let own: Vec<Question> = questions.iter().map(as_read).collect();
                let Some(own) = best(alone, &own, stop)? else { return Ok(None) };
                let same = answers.iter().zip(&own).map(|(one, other)| one.text == other.text);
                agreed.iter_mut().zip(same).for_each(|(agreed, same)| *agreed += usize::from(same));
            }
            for ((source, answer), agreed) in texts.into_iter().zip(answers).zip(agreed) {
                let share = self.agreement.map(|_| agreed as f64 / each.len() as f64);
                match self.why_not(&answer, share, source, form) {
                    Some(why) => counts.leave_out(why),
                    None => {
                        text += &columns.row(source, &answer, share, form);
                        counts.written += 1;
                    }
                }
            }
            done += part.len() as u64;
            console.progress("sources answered", done, counts.sources);
        }
        Ok(Some((text, counts)))
    }

    /// Why an answer is left out, if it is.
    fn why_not(&self, answer: &Answer, agreement: Option<f64>, source: &[String], form: Form) -> Option<&'static str> {
        let is_plain = |text: &String| !text.contains(['\t', '\n', '\r']);
        // A share that is given in few digits is met by the fraction that it stands for.
        const DIGITS: f64 = 0.005;
        if !answer.finished {
            Some("answer cut off")
        } else if answer.text.trim().is_empty() {
            Some("answer empty")
        } else if !answer.unknown.is_empty() {
            Some("answer with the unknown symbol")
        } else if self.min_score.is_some_and(|least| answer.score < least) {
            Some("score too low")
        } else if self.agreement.zip(agreement).is_some_and(|(least, share)| share + DIGITS < least) {
            Some("models disagree")
        } else if form != Form::JsonLines && !source.iter().chain([&answer.text]).all(is_plain) {
            Some("tab or line end, which only JSON lines can hold")
        } else {
            None
        }
    }
}

/// Writes a file that has been begun.
fn finish(mut output: Unfinished, path: &Path, bytes: &[u8]) -> Result<()> {
    let done = output.write_all(bytes).and_then(|()| output.finish());
    done.map_err(|error| Error::io(path, "write", &error))
}

/// The best answer to each source; `None` if `stop` was raised before the end.
fn best(searcher: &Searcher<'_>, questions: &[Question], stop: &AtomicBool) -> Result<Option<Vec<Answer>>> {
    let line = |i: usize| questions.get(i).map_or_else(String::new, |question| format!("line {}", question.line));
    let found = searcher.answer(questions, stop, &mut |_| {}).map_err(|error| rename_sources(error, line))?;
    Ok(found.map(|found| found.into_iter().map(|mut found| found.answers.swap_remove(0)).collect()))
}

/// What the columns of the table are called.
struct Columns {
    /// That of the source, then that of each stream.
    sources: Vec<String>,
    target: String,
}

/// As those of the model's own table; of other corpora there are a source and a target.
fn columns(config: &ExperimentConfig) -> Columns {
    let streams = config.further_columns().sources.into_iter().map(|(_, column)| column);
    let (source, target) = match &config.data {
        CorpusConfig::Table(table) => {
            let source = if let [one] = table.source.names() { one.as_str() } else { "source" };
            (source, table.target.as_str())
        }
        CorpusConfig::Pairs(_)
        | CorpusConfig::Parallel(_)
        | CorpusConfig::Manifest(_)
        | CorpusConfig::Text(_)
        | CorpusConfig::Stream(_) => ("source", "target"),
    };
    Columns { sources: [source.to_owned()].into_iter().chain(streams).collect(), target: target.to_owned() }
}

impl Columns {
    /// That no two columns have one name.
    fn check(&self, agreement: bool, form: Form) -> Result<()> {
        if form == Form::Pairs {
            return Ok(());
        }
        let all = self.names(agreement);
        let twice = all.iter().enumerate().find(|(i, name)| all[..*i].contains(name));
        twice.map_or(Ok(()), |(_, name)| {
            let message = format!(
                "would have two columns `{name}`: that of the models' own table, and one beside it; rename the former there and in \
                 the settings, or write `--pairs`, which have no columns"
            );
            Err(Error::new(message).at(Place::text("--output")))
        })
    }

    /// Those of a row.
    fn names(&self, agreement: bool) -> Vec<&str> {
        let names = self.sources.iter().chain([&self.target]).map(String::as_str);
        names.chain(["score"]).chain(agreement.then_some("agreement")).collect()
    }

    fn header(&self, agreement: bool) -> String {
        self.names(agreement).join("\t") + "\n"
    }

    fn row(&self, source: &[String], answer: &Answer, agreement: Option<f64>, form: Form) -> String {
        let Answer { text, score, .. } = answer;
        let cells = source.iter().chain([text]).cloned();
        match form {
            Form::Pairs => cells.collect::<Vec<_>>().join("\t") + "\n",
            Form::Tsv => {
                let numbers = [Some(*score), agreement].into_iter().flatten().map(|number| number.to_string());
                cells.chain(numbers).collect::<Vec<_>>().join("\t") + "\n"
            }
            Form::JsonLines => {
                let names = self.sources.iter().chain([&self.target]).cloned();
                let mut row: Map<String, Value> = names.zip(cells.map(Value::from)).collect();
                row.insert("score".into(), json!(score));
                row.extend(agreement.map(|agreement| ("agreement".to_owned(), json!(agreement))));
                Value::Object(row).to_string() + "\n"
            }
        }
    }
}

fn of_models(models: &SavedModels) -> Vec<OfModel> {
    let of = |((name, saved), &weight): ((&str, &SavedModel), &f64)| OfModel {
        model: name.to_owned(),
        name: saved.name.clone(),
        steps: saved.steps,
        weight,
    };
    models.members().zip(models.mixture().weights()).map(of).collect()
}

/// Files with their SHA-256.
fn files_of(paths: impl Iterator<Item = PathBuf>) -> Result<BTreeMap<String, String>> {
    paths.map(|path| Ok((path.display().to_string(), sha256_file(&path)?))).collect()
}

fn record_path(output: &Path) -> PathBuf {
    let mut name: OsString = output.into();
    name.push(".json");
    name.into()
}

fn left_out(counts: &Counts) -> String {
    let reasons: Vec<String> = counts.left_out.iter().map(|(why, count)| format!("{count} {why}")).collect();
    if reasons.is_empty() { String::new() } else { format!(" (left out: {})", reasons.join(", ")) }
}
