//! `[search]`: which strategy, and its settings.

use std::sync::Arc;

use antiphon_core::random::Key;
use antiphon_core::{Error, Problem, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::beam::{Beam, BeamConfig};
use crate::best_path::{BestPath, BestPathConfig};
use crate::fused::{Beside, FusionConfig, LanguageModel};
use crate::greedy::{Greedy, GreedyConfig};
use crate::length::{GnmtPenalty, LengthPenalty, MaxLength};
use crate::sample::{Sample, SampleConfig};
use crate::search::{Ending, Strategy};

/// How answers are searched.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum SearchConfig {
    /// At each step the most probable token.
    Greedy(GreedyConfig),
    /// At each step the `width` most probable beginnings.
    Beam(BeamConfig),
    /// At each step of the source the most probable token, of a model with CTC.
    BestPath(BestPathConfig),
    /// At each step a token drawn by its probability.
    Sample(SampleConfig),
}

impl Default for SearchConfig {
    fn default() -> Self {
        Self::Beam(BeamConfig::default())
    }
}

impl SearchConfig {
    /// The strategy itself.
    ///
    /// # Errors
    /// All [`problems`](Self::problems) at once, or if there are [texts](Self::stop) at which it must stop, or a
    /// [language model](Self::language_model) that it must hear.
    pub fn build(&self) -> Result<Box<dyn Strategy>> {
        if !self.stop().is_empty() {
            return Err(Error::new("only who knows what tokens say can find these").at("stop"));
        }
        self.strategy(None, None)
    }

    /// The strategy itself; `ending` says where an answer ends at these [texts](Self::stop), and is called if there are any;
    /// `language_model` is the one that its [settings](Self::language_model) name.
    ///
    /// # Errors
    /// All [`problems`](Self::problems) at once, or if a language model is named and not given.
    pub fn build_with(
        &self,
        ending: impl FnOnce(&[String]) -> Arc<dyn Ending>,
        language_model: Option<LanguageModel>,
    ) -> Result<Box<dyn Strategy>> {
        self.strategy((!self.stop().is_empty()).then(|| ending(self.stop())), language_model)
    }

    fn strategy(
        &self,
        ending: Option<Arc<dyn Ending>>,
        language_model: Option<LanguageModel>,
    ) -> Result<Box<dyn Strategy>> {
        let problems = self.problems();
        if !problems.is_empty() {
            return Err(Error { file: None, problems });
        }
        let beside = match (self.language_model(), language_model) {
            (None, _) => None,
            (Some(FusionConfig { weight, .. }), Some(model)) => Some(Beside { model, weight: *weight }),
            (Some(_), None) => return Err(Error::new("only who can read it can search with it").at("language_model")),
        };
        Ok(match self {
            Self::Greedy(config) => Box::new(Greedy::new(config.clone(), beside)),
            Self::Beam(config) => Box::new(Beam::new(config.clone(), beside)),
            Self::BestPath(config) => Box::new(BestPath::new(config.clone())),
            Self::Sample(config) => Box::new(Sample::new(config.clone(), ending)),
        })
    }

    /// The language model that is named, whatever its weight.
    pub fn fusion(&self) -> Option<&FusionConfig> {
        match self {
            Self::Greedy(config) => config.language_model.as_ref(),
            Self::Beam(config) => config.language_model.as_ref(),
            Self::BestPath(_) | Self::Sample(_) => None,
        }
    }

    /// The language model that has a say, if there is one.
    pub fn language_model(&self) -> Option<&FusionConfig> {
        self.fusion().filter(|config| config.weight > 0.0)
    }

    /// The texts at which an answer ends.
    pub fn stop(&self) -> &[String] {
        match self {
            Self::Greedy(_) | Self::Beam(_) | Self::BestPath(_) => &[],
            Self::Sample(config) => &config.stop,
        }
    }

    /// Whether equal requests may be answered differently, by their keys.
    pub fn draws(&self) -> bool {
        match self {
            Self::Greedy(_) | Self::Beam(_) | Self::BestPath(_) => false,
            Self::Sample(_) => true,
        }
    }

    /// The seed of what is drawn, in an experiment with this seed.
    pub fn seed(&self, seed: u64) -> u64 {
        match self {
            Self::Greedy(_) | Self::Beam(_) | Self::BestPath(_) => seed,
            Self::Sample(config) => config.seed.unwrap_or(seed),
        }
    }

    /// What the keys of all requests are made below, in an experiment with this seed.
    pub fn key(&self, seed: u64) -> Key {
        Key::from_seed(self.seed(seed)).named("search")
    }

    /// The longest target allowed.
    pub fn max_length(&self) -> &MaxLength {
        match self {
            Self::Greedy(config) => &config.max_length,
            Self::Beam(config) => &config.max_length,
            Self::BestPath(config) => &config.max_length,
            Self::Sample(config) => &config.max_length,
        }
    }

    /// Every value that is out of range and every pair that contradicts itself; places are keys below this table.
    pub fn problems(&self) -> Vec<Problem> {
        let mut found = Vec::new();
        let mut demand = |holds: bool, place: &str, message: String| {
            if !holds {
                found.push(Problem { place: place.into(), message });
            }
        };
        let min_length = match self {
            Self::Greedy(config) => config.min_length,
            Self::Beam(config) => config.min_length,
            Self::BestPath(_) => 0,
            Self::Sample(config) => config.min_length,
        };
        let MaxLength { ratio, limit, .. } = *self.max_length();
        demand(ratio.is_finite() && ratio >= 0.0, "max_length.ratio", format!("must be at least 0, got {ratio}"));
        demand(limit >= 1, "max_length.limit", format!("must be at least 1, got {limit}"));
        let room = min_length == 0 || min_length < limit;
        demand(room, "min_length", format!("must be below `max_length.limit` ({limit}), got {min_length}"));
        let length_penalty = match self {
            Self::Greedy(_) | Self::BestPath(_) => None,
            Self::Beam(config) => {
                let BeamConfig { width, n_best, patience, .. } = config;
                demand(*width >= 1, "width", format!("must be at least 1, got {width}"));
                demand(*n_best >= 1, "n_best", format!("must be at least 1, got {n_best}"));
                demand(*patience > 0.0, "patience", format!("must be above 0, got {patience}"));
                let weight = config.ctc_weight;
                demand((0.0..=1.0).contains(&weight), "ctc_weight", format!("must be from 0 to 1, got {weight}"));
                Some(&config.length_penalty)
            }
            Self::Sample(config) => {
                let SampleConfig { temperature, top_p, min_p, draws, stop, .. } = config;
                let above = |value: f64| value.is_finite() && value > 0.0;
                demand(above(*temperature), "temperature", format!("must be above 0, got {temperature}"));
                demand(above(*top_p) && *top_p <= 1.0, "top_p", format!("must be above 0 and at most 1, got {top_p}"));
                demand((0.0..=1.0).contains(min_p), "min_p", format!("must be from 0 to 1, got {min_p}"));
                for (value, least, most, place) in [
                    (config.repetition_penalty, 0.1, 10.0, "repetition_penalty"),
                    (config.presence_penalty, -100.0, 100.0, "presence_penalty"),
                ] {
                    let message = format!("must be from {least} to {most}, got {value}");
                    demand((least..=most).contains(&value), place, message);
                }
                demand((1..=65536).contains(draws), "draws", format!("must be from 1 to 65536, got {draws}"));
                for (i, _) in stop.iter().enumerate().filter(|(_, text)| text.is_empty()) {
                    demand(false, &format!("stop.{i}"), "must not be empty".into());
                }
                Some(&config.length_penalty)
            }
        };
        if let Some(LengthPenalty::Gnmt(GnmtPenalty { alpha })) = length_penalty {
            let right = alpha.is_finite() && *alpha >= 0.0;
            demand(right, "length_penalty.alpha", format!("must be at least 0, got {alpha}"));
        }
        let of_fusion = self.fusion().into_iter().flat_map(FusionConfig::problems);
        found.extend(of_fusion.map(|problem| problem.below("language_model")));
        found
    }

    /// The same search, handing back the `n` best hypotheses, or as many draws.
    ///
    /// # Errors
    /// If `n` is not 1 and the search is greedy, or takes the best path: it has one answer.
    pub fn with_n_best(mut self, n: u32) -> Result<Self> {
        match &mut self {
            Self::Greedy(_) | Self::BestPath(_) if n == 1 => {}
            Self::Greedy(_) => {
                return Err(Error::new(format!(
                    "greedy search gives one answer, not {n}; use `search.kind = \"beam\"`"
                )));
            }
            Self::BestPath(_) => {
                return Err(Error::new(format!("there is one best path, not {n}; use `search.kind = \"beam\"`")));
            }
            Self::Beam(config) => config.n_best = n,
            Self::Sample(config) => config.draws = n,
        }
        Ok(self)
    }

    /// The same search, with or without attention weights in its answers.
    #[must_use]
    pub fn with_attention(mut self, wanted: bool) -> Self {
        match &mut self {
            Self::Greedy(config) => config.return_attention = wanted,
            Self::Beam(config) => config.return_attention = wanted,
            // A path is no decoder's.
            Self::BestPath(_) => {}
            Self::Sample(config) => config.return_attention = wanted,
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<SearchConfig, String> {
        serde_json::from_str(json).map_err(|e| e.to_string())
    }

    #[test]
    fn every_key_is_read_and_written_again() {
        let beam = r#"{"kind":"beam","width":7,"n_best":3,"length_penalty":{"kind":"gnmt","alpha":0.8},"patience":2.0,"max_length":{"ratio":2.0,"extra":5,"limit":99},"min_length":1,"forbid_unknown":true,"return_attention":true,"ctc_weight":0.3,"language_model":{"model":"runs/lm","weight":0.5}}"#;
        assert_eq!(serde_json::to_string(&read(beam).unwrap()).unwrap(), beam);
        let greedy = r#"{"kind":"greedy","max_length":{"ratio":0.5,"extra":5,"limit":99},"min_length":1,"forbid_unknown":true,"return_attention":true,"language_model":{"model":"a","weight":0.0}}"#;
        assert_eq!(serde_json::to_string(&read(greedy).unwrap()).unwrap(), greedy);
        let sample = r#"{"kind":"sample","temperature":0.8,"top_k":40,"top_p":0.9,"min_p":0.05,"repetition_penalty":1.2,"presence_penalty":0.5,"no_repeat_ngram":3,"stop":["\n\n"],"draws":4,"length_penalty":{"kind":"none"},"seed":7,"max_length":{"ratio":0.5,"extra":5,"limit":99},"min_length":1,"forbid_unknown":true,"return_attention":true}"#;
        assert_eq!(serde_json::to_string(&read(sample).unwrap()).unwrap(), sample);
    }

    #[test]
    fn what_is_left_out_is_the_default() {
        assert_eq!(read(r#"{"kind":"beam"}"#), Ok(SearchConfig::default()));
        assert_eq!(read(r#"{"kind":"greedy"}"#), Ok(SearchConfig::Greedy(GreedyConfig::default())));
        assert_eq!(read(r#"{"kind":"sample"}"#), Ok(SearchConfig::Sample(SampleConfig::default())));
        let gnmt = SearchConfig::Beam(BeamConfig {
            length_penalty: LengthPenalty::Gnmt(GnmtPenalty { alpha: 0.6 }),
            ..BeamConfig::default()
        });
        assert_eq!(read(r#"{"kind":"beam","length_penalty":{"kind":"gnmt"}}"#), Ok(gnmt));
    }

    #[test]
    fn unknown_keys_are_refused_at_every_level() {
        for json in [
            r#"{"kind":"beam","widht":7}"#,
            r#"{"kind":"greedy","width":7}"#,
            r#"{"kind":"beam","max_length":{"limits":7}}"#,
            r#"{"kind":"beam","length_penalty":{"kind":"none","alpha":1}}"#,
            r#"{"kind":"beam","length_penalty":{"kind":"average","alpha":1}}"#,
            r#"{"kind":"sampling"}"#,
            r#"{"kind":"sample","width":7}"#,
            r#"{"kind":"best_path","width":7}"#,
            r#"{"kind":"sample","language_model":{"model":"a"}}"#,
            r#"{"kind":"beam","language_model":{"model":"a","wieght":1}}"#,
            r#"{"kind":"beam","language_model":{"weight":1}}"#,
        ] {
            assert!(read(json).is_err(), "{json}");
        }
    }

    #[test]
    fn all_problems_come_at_once() {
        let text = |json: &str| read(json).unwrap().build().err().map(|e| e.to_string());
        assert_eq!(text(r#"{"kind":"beam"}"#), None);
        assert_eq!(
            text(r#"{"kind":"greedy","min_length":5,"max_length":{"limit":5}}"#).unwrap(),
            "min_length: must be below `max_length.limit` (5), got 5"
        );
        let places =
            |json: &str| read(json).unwrap().problems().into_iter().map(|p| p.place.to_string()).collect::<Vec<_>>();
        assert_eq!(
            places(
                r#"{"kind":"beam","width":0,"n_best":0,"patience":0,"length_penalty":{"kind":"gnmt","alpha":-1},"max_length":{"ratio":-1,"limit":0}}"#
            ),
            ["max_length.ratio", "max_length.limit", "width", "n_best", "patience", "length_penalty.alpha"]
        );
        assert_eq!(
            places(r#"{"kind":"greedy","language_model":{"model":"","weight":-1}}"#),
            ["language_model.model", "language_model.weight"]
        );
        assert_eq!(
            places(
                r#"{"kind":"sample","temperature":0,"top_p":1.1,"min_p":-0.1,"repetition_penalty":0,"presence_penalty":200,"draws":0,"stop":["a",""],"length_penalty":{"kind":"gnmt","alpha":-1}}"#
            ),
            [
                "temperature",
                "top_p",
                "min_p",
                "repetition_penalty",
                "presence_penalty",
                "draws",
                "stop.1",
                "length_penalty.alpha"
            ]
        );
    }

    #[test]
    fn the_schema_states_the_ranges() {
        let schema = serde_json::to_string(&schemars::schema_for!(SearchConfig)).unwrap();
        for key in ["\"width\"", "\"patience\"", "\"temperature\"", "\"exclusiveMinimum\":0"] {
            assert!(schema.contains(key), "{key} in {schema}");
        }
        assert_eq!(schema.matches("\"minimum\":1").count(), 4, "width, n_best, limit, draws");
    }

    #[test]
    fn a_seed_of_its_own_comes_before_that_of_the_experiment() {
        let key = |seed, own| SearchConfig::Sample(SampleConfig { seed: own, ..SampleConfig::default() }).key(seed);
        assert_eq!(key(5, None), key(4, Some(5)));
        assert_eq!(key(5, None), SearchConfig::default().key(5));
        assert_ne!(key(5, None), key(5, Some(4)));
    }

    #[test]
    fn texts_to_stop_at_need_somebody_who_knows_texts() {
        let stopping = SearchConfig::Sample(SampleConfig { stop: vec!["a".into()], ..SampleConfig::default() });
        assert_eq!(stopping.stop(), ["a"]);
        assert!(stopping.build().err().unwrap().to_string().starts_with("stop: "));
    }

    #[test]
    fn one_answer_is_all_that_greedy_has() {
        let greedy = SearchConfig::Greedy(GreedyConfig::default());
        assert_eq!(greedy.clone().with_n_best(1), Ok(greedy.clone()));
        assert!(greedy.with_n_best(2).unwrap_err().to_string().contains("one answer"));
        let SearchConfig::Beam(beam) = SearchConfig::default().with_n_best(4).unwrap().with_attention(true) else {
            panic!("a beam stays a beam");
        };
        assert!(beam.n_best == 4 && beam.return_attention);
        let sample = SearchConfig::Sample(SampleConfig::default());
        let SearchConfig::Sample(sample) = sample.with_n_best(4).unwrap().with_attention(true) else {
            panic!("a sample stays one");
        };
        assert!(sample.draws == 4 && sample.return_attention);
    }
}
