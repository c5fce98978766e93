//! `antiphon tune`: choose settings of the search, and of how answers are ranked, on the validation split.

mod choice;

use antiphon_core::random::Key;
use antiphon_core::{Error, Judged, Place, Result};
use antiphon_data::Split;
use antiphon_decode::SearchConfig;
use antiphon_eval::MetricConfig;
use antiphon_eval::significance::{Bootstrap, SignificanceConfig, paired_bootstrap};
use antiphon_lab::Run;
use serde_json::{Map, Value};

use super::models::Models;
use super::target::{Begin, changed, check_section, key, section};
use super::{DataFolder, Ending, OnDevice, RunsFolder, Sets, Threads, finished};
use crate::console::Console;
use crate::device::start_threads;
use crate::experiment::{Answered, Corpora, Evaluator, ExperimentConfig, RerankConfig, SavedModels};
use crate::interrupt::stop_flag;
use crate::output::{columns, command, print};

/// Answer the validation split under every combination of some settings of the search, and say which is best
///
/// A setting of [search] or [rerank] with several values, parted by commas, is tried with each: --set search.ctc_weight=0.1,0.3,0.5. The
/// model is read once, and the splits to learn from and to report on have no part in it. Where combinations differ only in the weights
/// of [rerank], answers are searched once.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    models: Models,
    /// By which metric they are held against each other [default: that by which the model was chosen if a search gives it, else
    /// the first of evaluate.metrics]
    #[arg(long, value_name = "METRIC")]
    metric: Option<String>,
    /// Choose only among combinations that lose at most so many percent of the best figure by this other metric: `bleu=10`
    #[arg(long, value_name = "METRIC=PERCENT")]
    within: Vec<String>,
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

/// A setting with the values that are tried, each as an assignment.
#[derive(Debug, Clone, PartialEq)]
struct Axis {
    key: String,
    values: Vec<String>,
}

/// What one combination answered.
struct Tried {
    /// The values of the axes, in their order.
    values: Vec<String>,
    judged: Vec<Judged>,
}

impl Arguments {
    pub(super) fn perform(self) -> Result<Ending> {
        let (axes, plain) = axes(&self.sets.set)?;
        let mut console = Console::new(self.quiet);
        let asked = self.threads.threads.map(usize::from);
        let begin = |run: Option<&Run>| {
            let own = run.map(Run::manifest).transpose()?;
            start_threads(asked.or(own.map(|manifest| manifest.threads)))
        };
        let begin = Begin { threads: asked, begin: &begin };
        let targets = self.models.find(&plain, &self.runs.runs(), &self.data, &begin)?;
        let models = self.models.read(&targets, self.device.device)?;
        let (config, file, data_dir) = (&models.first().config, targets[0].path.as_path(), self.data.path());
        let (label, metric) = self.metric(config)?;
        let within = self.within.iter().map(|within| bound(within, config)).collect::<Result<Vec<_>>>()?;
        if !config.data.has(Split::Validation) {
            let message = "its config names no file of the validation split, on which settings are chosen";
            return Err(Error::new(message).in_file(self.models.name()));
        }
        // All are right before the first is tried.
        let all = combinations(&axes);
        let all: Vec<(Vec<String>, ExperimentConfig)> = all
            .into_iter()
            .map(|values| {
                let config = changed(config, file, &assignments(&axes, &values)).map_err(|e| e.in_file(file))?;
                models.check_search(&config.search)?;
                Ok((values, config))
            })
            .collect::<Result<_>>()?;
        let own = targets[0].own_config()?;
        let corpus = Corpora::open_split(config, Split::Validation, &data_dir, &mut console)?;
        let evaluator = Evaluator::new(config, &models.first().tokenizers, &corpus)?;
        let (count, stop) = (all.len(), stop_flag()?);
        let mut tried = Vec::with_capacity(count);
        let mut searched: Vec<Searched> = Vec::new();
        for (i, (values, config)) in all.iter().enumerate() {
            let what = format!("{} of {count}: sentences answered", i + 1);
            let sources = evaluator.sources() as u64;
            let mut progress = |done: usize| console.progress(&what, done as u64, sources);
            let judged: Vec<Judged> = match config.reranking() {
                None => {
                    let answers = evaluator.answers_by(&config.search, None, &models, &stop, &mut progress)?;
                    let Some(answers) = answers else { return Ok(Ending::Interrupted) };
                    answers.iter().map(Answered::judged).collect()
                }
                Some(rerank) => {
                    if !searched.iter().any(|searched| searched.serves(&config.search, rerank)) {
                        // All that any of the others that differ in weights alone needs to know.
                        let others = all.iter().filter(|(_, other)| other.search == config.search);
                        let others = others.filter_map(|(_, other)| other.reranking());
                        let alike = others.filter(|other| other.asks_the_same(rerank));
                        let rerank = alike.fold(rerank.clone(), |one, other| one.with_larger_weights(other));
                        let widened = rerank.widened(&config.search)?;
                        let answers = evaluator.answers_by(&widened, Some(&rerank), &models, &stop, &mut progress)?;
                        let Some(answers) = answers else { return Ok(Ending::Interrupted) };
                        searched.push(Searched { search: config.search.clone(), rerank, answers });
                    }
                    let found = searched.iter().find(|searched| searched.serves(&config.search, rerank));
                    found.expect("it was just searched").ranked_by(rerank)
                }
            };
            console.clear();
            tried.push(Tried { values: values.clone(), judged });
        }
        let others = config.searched().map(|(label, metric)| (label, metric.clone()));
        let others = others.filter(|(other, _)| *other != label).collect();
        let found = Found { axes, plain, all, tried, own, label, metric, others, within };
        print(&self.told(&found, &models)?)?;
        Ok(Ending::Done)
    }

    /// The metric with its label.
    fn metric(&self, config: &ExperimentConfig) -> Result<(String, MetricConfig)> {
        let known: Vec<(String, MetricConfig)> =
            config.searched().map(|(label, metric)| (label, metric.clone())).collect();
        let find = |wanted: &str| known.iter().find(|(label, _)| label == wanted).cloned();
        if let Some(wanted) = &self.metric {
            let names = known.iter().map(|(label, _)| format!("`{label}`")).collect::<Vec<_>>().join(", ");
            let message = format!(
                "answers are judged by no `{wanted}`; there are {names}, and others by `--set evaluate.metrics=…`"
            );
            return find(wanted).ok_or_else(|| Error::new(message).at(Place::text("--metric")));
        }
        find(&config.train.validate.metric).or_else(|| known.first().cloned()).ok_or_else(|| {
            let message = if config.data.has_source() {
                "its answers are judged by nothing; name metrics: `--set evaluate.metrics=[{kind='word_error_rate'}]`"
            } else {
                "is a language model, which answers nothing that could be judged"
            };
            Error::new(message).in_file(self.models.name())
        })
    }

    /// The table, what of it changes anything, the best combination, how it is written in a config, and how it is reported on.
    fn told(&self, found: &Found, models: &SavedModels) -> Result<String> {
        let Found { axes, plain, all, tried, own, label, metric, others, within } = found;
        let config = SignificanceConfig::default();
        let idle: Vec<&Axis> =
            axes.iter().enumerate().filter(|&(i, _)| choice::is_idle(i, tried)).map(|(_, axis)| axis).collect();
        let changes_nothing = idle.len() == axes.len();
        let allowed = found.allowed()?;
        let (figures, best) = found.best(&models.first().config, &allowed)?;
        let head = axes.iter().map(|axis| axis.key.clone());
        let head = head.chain([label.to_owned(), format!("{:.0} % interval", 100.0 * config.confidence), "p".into()]);
        let head = head.chain(others.iter().map(|(label, _)| label.clone()));
        let mut rows = vec![head.collect::<Vec<_>>()];
        for (i, tried_one) in tried.iter().enumerate() {
            let key = Key::from_seed(0).named("tune");
            let Bootstrap { first, p_value, .. } =
                paired_bootstrap(metric, &tried_one.judged, &tried[best].judged, &config, key)?;
            let interval = format!("{:.2} to {:.2}", first.interval.low, first.interval.high);
            let p = match (changes_nothing, i == best) {
                (true, _) => "same".into(),
                (false, true) => "best".into(),
                (false, false) if !allowed[i] => "beyond".into(),
                (false, false) => format!("{p_value:.3}"),
            };
            let other = |(_, metric): &(String, MetricConfig)| {
                Ok(format!("{:.2}", metric.build().score(&tried_one.judged)?.value))
            };
            let others = others.iter().map(other).collect::<Result<Vec<String>>>()?;
            let own = [format!("{:.2}", first.value), interval, p];
            rows.push(tried_one.values.iter().cloned().chain(own).chain(others).collect());
        }
        let examples = tried[best].judged.len();
        let of = if models.members().len() == 1 { "" } else { " of all together" };
        let mut text = format!(
            "{label}{of} on {examples} sources of the validation split; p: how likely it is luck that the best is better \
             (paired bootstrap, one-sided, {} trials)\n\n{}\n",
            config.trials,
            columns(&rows),
        );
        let bounds = within.iter().map(|Bound { label, percent, .. }| format!("{percent} % of the best {label}"));
        let bounds = bounds.collect::<Vec<_>>().join(" and ");
        if !bounds.is_empty() {
            let kept = allowed.iter().filter(|allowed| **allowed).count();
            text += &format!("within {bounds}: {kept} of {}\n", tried.len());
        }
        text.extend(idle.iter().map(|axis| format!("`{}` changes no answer\n", axis.key)));
        // What was given one value was not tried, unless it only names the language model whose weight was.
        let weighs = axes.iter().any(|axis| choice::is_of_language_model(&axis.key));
        if changes_nothing && plain.iter().all(|set| weighs && choice::is_of_language_model(key(set))) {
            return Ok(text + "nothing of this is worth setting: leave the search as the model has it\n");
        }
        let equal =
            figures.iter().zip(&allowed).filter(|&(figure, allowed)| *allowed && *figure == figures[best]).count();
        if equal > 1 {
            text += &format!(
                "{equal} are equally good; of these the best is the one nearest to the model's own settings\n"
            );
        }
        let chosen = assignments(axes, &tried[best].values);
        let mut sets: Vec<&String> = chosen.iter().chain(plain).collect();
        let searched = &all[best].1.search;
        let without = String::from("search.language_model.weight=0");
        if searched.language_model().is_none() && sets.iter().any(|set| choice::is_of_language_model(key(set))) {
            text += "the search is best without a language model: leave `search.language_model` out\n";
            sets.retain(|set| !choice::is_of_language_model(key(set)));
            sets.extend(own.search.language_model().map(|_| &without));
        }
        let is_written = |key: &&str| {
            section(key) == "rerank"
                || section(key) == "search"
                    && (searched.language_model().is_some() || !choice::is_of_language_model(key))
        };
        let lines = written(&all[best].1, sets.iter().map(|set| key(set).trim()).filter(is_written))?;
        if !lines.trim().is_empty() {
            text += &format!("the best, as it is written in a config:\n\n{lines}\n");
        }
        let mut named: Vec<std::ffi::OsString> = vec!["evaluate".into()];
        named.extend(self.models.words());
        named.extend(sets.into_iter().flat_map(|set| ["--set".into(), set.into()]));
        named.extend(self.data.words().into_iter().chain(self.runs.words()));
        Ok(text + &finished::next(&[command(named)]))
    }
}

/// All that was tried.
struct Found {
    axes: Vec<Axis>,
    /// The settings that are the same for all, each as an assignment.
    plain: Vec<String>,
    /// The combinations, and the settings with each.
    all: Vec<(Vec<String>, ExperimentConfig)>,
    /// What each answered, in the same order.
    tried: Vec<Tried>,
    /// The settings of the model, or of the first, without any assignment.
    own: ExperimentConfig,
    /// What they are judged by.
    label: String,
    metric: MetricConfig,
    /// The other metrics, which are told.
    others: Vec<(String, MetricConfig)>,
    /// What must not be lost by other metrics.
    within: Vec<Bound>,
}

/// What may be lost by a metric.
struct Bound {
    label: String,
    metric: MetricConfig,
    /// Of the best figure.
    percent: f64,
}

/// What `--within` says.
fn bound(text: &str, config: &ExperimentConfig) -> Result<Bound> {
    let refuse = |message: String| Err(Error::new(message).at(Place::text("--within")));
    let Some((label, percent)) = text.split_once('=') else {
        return refuse(format!("`{text}` lacks its percent: `{text}=10`"));
    };
    let Some((label, metric)) = config.searched().find(|(known, _)| known == label.trim()) else {
        let names = config.searched().map(|(label, _)| format!("`{label}`")).collect::<Vec<_>>().join(", ");
        return refuse(format!("answers are judged by no `{label}`; there are {names}"));
    };
    match percent.trim().parse::<f64>() {
        Ok(percent) if (0.0..=100.0).contains(&percent) => Ok(Bound { label, metric: metric.clone(), percent }),
        _ => refuse(format!("`{percent}` is no percentage from 0 to 100")),
    }
}

/// What was searched once for all combinations that differ in the weights of its ranking alone.
struct Searched {
    search: SearchConfig,
    rerank: RerankConfig,
    /// With all answers that are ranked.
    answers: Vec<Answered>,
}

impl Searched {
    fn serves(&self, search: &SearchConfig, rerank: &RerankConfig) -> bool {
        self.search == *search && self.rerank.asks_the_same(rerank)
    }

    /// The best answers by these weights.
    fn ranked_by(&self, rerank: &RerankConfig) -> Vec<Judged> {
        let ranked = |answered: &Answered| {
            // Equals stay as the search has them, whatever was tried before.
            let mut answered = answered.clone();
            rerank.rank(&mut answered.answers);
            answered.judged()
        };
        self.answers.iter().map(ranked).collect()
    }
}

impl Found {
    /// Which combinations lose no more by other metrics than they may.
    fn allowed(&self) -> Result<Vec<bool>> {
        let mut allowed = vec![true; self.tried.len()];
        for Bound { metric, percent, .. } in &self.within {
            let metric = metric.build();
            let figure = |tried: &Tried| Ok(metric.score(&tried.judged)?.value);
            let figures: Vec<f64> = self.tried.iter().map(figure).collect::<Result<_>>()?;
            let keeps = choice::within(&figures, metric.lower_is_better(), *percent);
            allowed.iter_mut().zip(keeps).for_each(|(allowed, keeps)| *allowed &= keeps);
        }
        if allowed.contains(&true) {
            return Ok(allowed);
        }
        let message = "no combination is within all of these of the best; allow more, or name fewer";
        Err(Error::new(message).at(Place::text("--within")))
    }

    /// The figure of each combination, turned so that less is better, and which is the best of those that are allowed; `given` are the
    /// settings of the model with the assignments that are the same for all.
    fn best(&self, given: &ExperimentConfig, allowed: &[bool]) -> Result<(Vec<f64>, usize)> {
        let metric = self.metric.build();
        let sign = if metric.lower_is_better() { 1.0 } else { -1.0 };
        let figure = |tried: &Tried| Ok(sign * metric.score(&tried.judged)?.value);
        let figures: Vec<f64> = self.tried.iter().map(figure).collect::<Result<_>>()?;
        let effective = |config: &ExperimentConfig| choice::effective(&config.search, config.rerank.as_ref());
        let mut base = effective(given);
        // A language model that is tried is none of the model's own.
        base["search"]["language_model"] = effective(&self.own)["search"]["language_model"].take();
        let kept = |(_, config): &(_, ExperimentConfig)| choice::kept(&self.axes, &base, &effective(config));
        let kept: Vec<usize> = self.all.iter().map(kept).collect();
        let best = choice::best(&figures, &kept, allowed);
        Ok((figures, best))
    }
}

/// Which assignments have several values, all below `search` or `rerank`, and which have one.
fn axes(sets: &[String]) -> Result<(Vec<Axis>, Vec<String>)> {
    let (mut axes, mut plain) = (Vec::<Axis>::new(), Vec::new());
    for set in sets {
        let (key, value) = set.split_once('=').unwrap_or((set, ""));
        let (key, values) = (key.trim().to_owned(), parts(value));
        if values.len() == 1 {
            plain.push(set.clone());
            continue;
        }
        if !["search", "rerank"].contains(&section(&key)) {
            check_section(set)?;
            let message =
                format!("`{key}` is no setting of the search, and cannot be tried without training; `sweep` does that");
            return Err(Error::new(message).at(Place::text("--set")));
        }
        if values.iter().any(|value| value.is_empty()) {
            return Err(Error::new(format!("`{set}`: a value is empty")).at(Place::text("--set")));
        }
        axes.push(Axis { key, values });
    }
    if axes.is_empty() {
        let message =
            "nothing to choose from: give a setting of the search several values, as in --set search.width=2,8";
        return Err(Error::new(message).at(Place::text("--set")));
    }
    let named: Vec<&str> =
        axes.iter().map(|axis| axis.key.as_str()).chain(plain.iter().map(|set| key(set).trim())).collect();
    let twice = axes.iter().find(|axis| named.iter().filter(|name| **name == axis.key).count() > 1);
    if let Some(Axis { key, .. }) = twice {
        return Err(
            Error::new(format!("`{key}` is given twice: name all of its values at once")).at(Place::text("--set"))
        );
    }
    Ok((axes, plain))
}

/// The parts of a value between commas that stand in no quotes and no brackets.
fn parts(value: &str) -> Vec<String> {
    let (mut parts, mut depth, mut quote) = (vec![String::new()], 0, None);
    for c in value.chars() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (None, '\'' | '"') => quote = Some(c),
            (None, '[' | '{') => depth += 1,
            (None, ']' | '}') => depth -= 1,
            (None, ',') if depth == 0 => {
                parts.push(String::new());
                continue;
            }
            _ => {}
        }
        parts.last_mut().expect("there is one").push(c);
    }
    parts.into_iter().map(|part| part.trim().to_owned()).collect()
}

/// All combinations, the last axis the fastest.
fn combinations(axes: &[Axis]) -> Vec<Vec<String>> {
    axes.iter().fold(vec![Vec::new()], |all, axis| {
        let with = |one: &Vec<String>| -> Vec<Vec<String>> {
            axis.values.iter().map(|value| [one.as_slice(), std::slice::from_ref(value)].concat()).collect()
        };
        all.iter().flat_map(with).collect()
    })
}

fn assignments(axes: &[Axis], values: &[String]) -> Vec<String> {
    axes.iter().zip(values).map(|(axis, value)| format!("{}={value}", axis.key)).collect()
}

/// These settings as a config has them.
fn written<'k>(config: &ExperimentConfig, keys: impl Iterator<Item = &'k str>) -> Result<String> {
    let whole = serde_json::to_value(config).expect("a config is JSON");
    let mut chosen = Value::Object(Map::new());
    for key in keys {
        let Some(value) = choice::at(&whole, key) else { continue };
        let mut at = &mut chosen;
        for part in key.split('.') {
            if !at.is_object() {
                *at = Value::Object(Map::new());
            }
            at = &mut at[part.trim()];
        }
        *at = value.clone();
    }
    antiphon_config::to_toml(&chosen)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sets(sets: &[&str]) -> Vec<String> {
        sets.iter().map(|set| (*set).to_owned()).collect()
    }

    #[test]
    fn commas_part_values_but_in_quotes_and_brackets() {
        assert_eq!(parts("0.1, 0.3,0.5"), ["0.1", "0.3", "0.5"]);
        assert_eq!(parts("{kind='gnmt',alpha=0.6}, {kind='none'}"), ["{kind='gnmt',alpha=0.6}", "{kind='none'}"]);
        assert_eq!(parts("'a,b'"), ["'a,b'"]);
        assert_eq!(parts("[[1,2],[3]],[4]"), ["[[1,2],[3]]", "[4]"]);
        assert_eq!(parts(""), [""]);
    }

    #[test]
    fn every_value_meets_every_other() {
        let given = sets(&["search.width=2,8", "search.n_best=3", "search.ctc_weight=0,0.5,1"]);
        let (axes, plain) = axes(&given).unwrap();
        assert_eq!(plain, ["search.n_best=3"]);
        let all = combinations(&axes);
        let expected = [["2", "0"], ["2", "0.5"], ["2", "1"], ["8", "0"], ["8", "0.5"], ["8", "1"]];
        assert_eq!(all, expected);
        assert_eq!(assignments(&axes, &all[4]), ["search.width=8", "search.ctc_weight=0.5"]);
    }

    #[test]
    fn what_cannot_be_tried_is_told() {
        let refused = |given: &[&str]| axes(&sets(given)).unwrap_err().to_string();
        assert!(refused(&[]).contains("several values"));
        assert!(refused(&["search.width=2"]).contains("several values"));
        assert!(refused(&["model.encoder.hidden=2,3"]).contains("`sweep` does that"));
        assert!(refused(&["search.width=2,"]).contains("a value is empty"));
        for twice in [["search.width=2,3", "search.width=4,5"], ["search.width=2,3", "search.width=4"]] {
            assert!(refused(&twice).contains("given twice"));
        }
        assert!(refused(&["serach.width=2,3"]).contains("did you mean `search.width`"));
    }
}
