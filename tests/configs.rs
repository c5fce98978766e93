//! Every config that we ship can be read, says nothing without effect, and is explained by the reference page.

mod settings;

use std::path::{Path, PathBuf};

use antiphon::experiment::Interpreter;
use antiphon::{ExperimentConfig, Loaded};
use antiphon_lab::sweep::Plan;

fn configs(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).expect("the folder is there") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(configs(&path));
        } else if path.extension().is_some_and(|e| e == "toml") {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

#[test]
fn every_config_is_valid_and_every_setting_has_an_effect() {
    let all = configs(&root().join("configs"));
    assert!(all.len() >= 5, "{all:?}");
    for config in all {
        match Loaded::read(&config, &[]) {
            Err(error) => panic!("{error}"),
            Ok(loaded) => assert!(loaded.warnings.is_empty(), "{}: {:?}", config.display(), loaded.warnings),
        }
    }
}

/// Its cells are checked as `sweep` checks them; the data need not be there.
#[test]
fn every_sweep_can_begin() {
    let root = root();
    let meaning = Interpreter::new(&root.join("data"));
    let is_sweep = |config: &PathBuf| Loaded::read(config, &[]).unwrap().config.sweep.is_some();
    let all: Vec<PathBuf> = configs(&root.join("configs")).into_iter().filter(is_sweep).collect();
    assert!(!all.is_empty());
    for config in all {
        let plan = Plan::read(&config, &[], &meaning).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(plan.warnings, [], "{}", config.display());
        assert_eq!(plan.runs.len(), plan.cells.len() * plan.config.seeds.len(), "{}", config.display());
    }
}

#[test]
fn a_recipe_that_a_config_names_is_there() {
    for config in configs(&root().join("configs")) {
        let loaded = Loaded::read(&config, &[]).unwrap();
        let recipe = loaded.config.data.recipe().unwrap_or_else(|| panic!("{}: no recipe", config.display()));
        assert!(root().join("recipes").join(recipe).join("recipe.toml").is_file(), "{}: {recipe}", config.display());
    }
}

/// The article's choices are Keras's, and stay so.
#[test]
fn the_article_is_kerass_model() {
    use antiphon_model::{
        AttentionConfig, BridgeConfig, DecoderConfig, EmbeddingConfig, EncoderConfig, ModelConfig, Tied,
    };
    let config = Loaded::read(&root().join("configs/translate/article.toml"), &[]).unwrap().config;
    let ModelConfig::EncoderDecoder(model) = &config.model else { panic!("not an encoder-decoder") };
    assert!(matches!(model.source, EmbeddingConfig::OneHot(_)) && matches!(model.target, EmbeddingConfig::OneHot(_)));
    assert_eq!(model.tied, Tied::None);
    assert!(matches!(&model.encoder, EncoderConfig::Lstm(e) if e.hidden == 256 && e.layers == 1 && !e.bidirectional));
    assert!(matches!(model.bridge, BridgeConfig::Copy(_)));
    let DecoderConfig::Lstm(decoder) = &model.decoder else { panic!("not an LSTM") };
    assert!(decoder.hidden == 256 && !decoder.input_feeding && matches!(decoder.attention, AttentionConfig::None(_)));
    let antiphon_train::OptimizerConfig::Rmsprop(optimizer) = &config.train.optimizer else { panic!("not RMSprop") };
    assert_eq!((optimizer.learning_rate, optimizer.rho, optimizer.epsilon), (1e-3, 0.9, 1e-7));
}

#[test]
fn the_reference_page_names_every_section() {
    let page = antiphon_config::reference::<ExperimentConfig>("Settings");
    for key in ["`seed`", "`data`", "`tokenizer`", "`model`", "`batch`", "`train`", "`search`", "`evaluate`"] {
        assert!(page.contains(&format!("| {key} |")), "{key}");
    }
    // Every key is explained: no row ends with an empty cell.
    let unexplained: Vec<&str> =
        page.lines().filter(|line| line.starts_with("| `") && line.ends_with("|  |")).collect();
    assert!(unexplained.is_empty(), "{unexplained:#?}");
}

/// The page that people read is the one that the types give.
#[test]
fn the_page_of_settings_is_current() {
    let page = std::fs::read_to_string(root().join("docs/config-reference.md")).unwrap_or_default();
    let current = antiphon_config::reference::<ExperimentConfig>("Settings");
    assert!(page == current, "write it again: cargo xtask reference > docs/config-reference.md");
}
