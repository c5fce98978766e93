//! What the settings mean to those who vary them: the answers that sweeps ask for.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use antiphon_config::Tree;
use antiphon_core::{Error, Result};
use antiphon_data::Split;
use antiphon_lab::sweep::{Checked, Figure, Meaning};
use antiphon_lab::{Beside, Identity, Selective, digest_of};
use serde_json::Value;

use super::config::without_uncounted;
use super::evaluation::figures_of_likelihood;
use super::{Corpora, EvaluateConfig, ExperimentConfig, Loaded, digests, identity};

/// Every figure of a split by its label, as a validation or as results have it; `searches`: whether there are sources to answer.
pub(crate) fn figures(evaluate: &EvaluateConfig, searches: bool) -> BTreeMap<String, Figure> {
    let of_likelihood = figures_of_likelihood().chain([("loss_per_token", true)]);
    let of_likelihood = of_likelihood.map(|(name, lower_is_better)| {
        // Training calls it `loss`.
        (name.to_owned(), Figure { lower_is_better, while_training: name != "loss_per_token" })
    });
    let while_training = evaluate.validation_examples > 0;
    let of_search = evaluate.labelled().filter(|_| searches).map(|(label, metric)| {
        let lower_is_better = metric.lower_is_better();
        (label, Figure { lower_is_better, while_training })
    });
    let of_sure = Selective::labels().into_iter().filter(|_| searches && evaluate.grades());
    let of_sure =
        of_sure.map(|(label, lower_is_better)| (label.to_owned(), Figure { lower_is_better, while_training: false }));
    let of_text = Beside::labels().into_iter().filter(|_| !searches);
    let of_text = of_text.map(|label| (label, Figure { lower_is_better: true, while_training: false }));
    of_likelihood.chain(of_search).chain(of_sure).chain(of_text).collect()
}

/// Reads settings as experiments over the data in a folder. Files that many experiments share are read once.
pub struct Interpreter {
    data_dir: PathBuf,
    /// The digests of files, by the settings that name them.
    known: RefCell<BTreeMap<String, BTreeMap<String, String>>>,
}

impl Interpreter {
    /// For data sets below `data_dir`.
    pub fn new(data_dir: &Path) -> Self {
        Self { data_dir: data_dir.to_path_buf(), known: RefCell::default() }
    }
}

impl Meaning for Interpreter {
    fn check(&self, tree: &Tree) -> Result<Checked> {
        let loaded = Loaded::from_tree(tree)?;
        loaded.check_parts(tree)?;
        let (decisive, effective) = (digest_of(&loaded.config.counted()), digest_of(&loaded.effective()));
        let Loaded { config, name, warnings, .. } = loaded;
        // A sweep is found by the settings of its runs.
        let mut settings = without_uncounted(tree.seen_by::<ExperimentConfig>().value().clone());
        settings["name"] = name.as_str().into();
        let train = &config.train;
        let counted = |every: u64| (every > 0).then_some(every);
        Ok(Checked {
            name,
            settings,
            decisive,
            effective,
            has_validation: config.data.has(Split::Validation),
            has_test: config.data.has(Split::Test),
            figures: figures(&config.evaluate, config.data.has_source()),
            compared_by: train.validate.metric.clone(),
            steps: train.steps,
            epochs: train.epochs,
            validated_steps: counted(train.validate.every_steps),
            validated_epochs: counted(train.validate.every_epochs),
            warnings,
        })
    }

    fn identify(&self, settings: &Value) -> Result<Identity> {
        let config: ExperimentConfig =
            serde_json::from_value(settings.clone()).map_err(|e| Error::new(format!("not a config: {e}")))?;
        let start_from = &config.train.start_from;
        let files = serde_json::json!([
            config.data,
            config.features,
            config.tokenizer,
            config.streams,
            config.evaluate.kept_columns(),
            start_from,
            config.files_of_teacher(),
            config.search.language_model(),
            config.rerank
        ]);
        let files = files.to_string();
        let found = self.known.borrow().get(&files).cloned();
        let data = match found {
            Some(data) => data,
            None => {
                let data = digests(&config, &Corpora::open(&config, &self.data_dir)?, &self.data_dir)?;
                self.known.borrow_mut().insert(files, data.clone());
                data
            }
        };
        Ok(identity(&config, config.name.clone().unwrap_or_default(), data))
    }
}
