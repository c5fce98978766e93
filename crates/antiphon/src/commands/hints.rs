//! What to say of a key or an option that is none: perhaps a setting was meant.

use std::ffi::OsString;

use antiphon_config::{keys_called, nearest_key};
use clap::Command;
use clap::builder::StyledStr;
use clap::error::{ContextKind, ContextValue, ErrorKind};

use super::target::is_changeable;
use crate::experiment::ExperimentConfig;

/// More settings of one name than this are not listed.
const MOST: usize = 4;

/// An error of the command line with tips that lead somewhere: an unknown option of a command that takes `--set` may be a
/// setting; and no command here takes words that begin with `--`.
pub(super) fn improved(mut error: clap::Error, parser: &Command, words: &[OsString]) -> clap::Error {
    if error.kind() != ErrorKind::UnknownArgument {
        return error;
    }
    error.remove(ContextKind::Suggested);
    let Some(ContextValue::String(option)) = error.get(ContextKind::InvalidArg) else { return error };
    let (option, words) = (option.clone(), words.iter().map(|word| word.to_string_lossy().into_owned()));
    let (tips, exact) = tips(&option, parser, &words.collect::<Vec<_>>());
    // A setting that is called so is nearer than an option that is called nearly so.
    if !tips.is_empty() && (exact || error.get(ContextKind::SuggestedArg).is_none()) {
        let tips: Vec<StyledStr> = tips.into_iter().map(Into::into).collect();
        error.remove(ContextKind::SuggestedArg);
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(tips));
    }
    error
}

/// The settings that somebody may mean by a key that is none: those whose last part it is, or else the one that is nearest, or
/// those whose last part is.
pub(super) fn settings_meant(key: &str) -> Vec<String> {
    let called = keys_called::<ExperimentConfig>(key);
    if called.iter().any(|own| own.rsplit('.').next() == Some(key)) {
        return called;
    }
    nearest_key::<ExperimentConfig>(key).map_or(called, |nearest| vec![nearest])
}

/// The settings that an option may mean, as tips, and whether they are called just so.
fn tips(option: &str, parser: &Command, words: &[String]) -> (Vec<String>, bool) {
    let command = words.iter().skip(1).find_map(|word| parser.find_subcommand(word));
    let command = command.filter(|command| command.get_arguments().any(|arg| arg.get_id() == "set"));
    let (Some(command), Some(name)) = (command, option.strip_prefix("--")) else { return (Vec::new(), false) };
    let name = name.replace('-', "_");
    let value = value_in(words, option).unwrap_or_else(|| "VALUE".into());
    let trained =
        ["predict", "transcribe", "generate", "ask", "score", "evaluate", "distil"].contains(&command.get_name());
    let decides = |key: &String| !["sweep", "expect"].iter().any(|section| key.starts_with(section));
    let mut keys = settings_meant(&name);
    keys.retain(|key| decides(key) && (!trained || is_changeable(key)));
    if keys.len() > MOST {
        keys.clear();
    }
    let exact = keys.iter().any(|key| key.rsplit('.').next() == Some(&name));
    let set = |key: &String| format!("--set {}", antiphon_lab::shell(format!("{key}={value}")));
    (keys.iter().map(|key| format!("a setting is changed by `{}`", set(key))).collect(), exact)
}

/// What stands behind an option.
fn value_in(words: &[String], option: &str) -> Option<String> {
    let with = format!("{option}=");
    words.iter().enumerate().find_map(|(i, word)| match word.strip_prefix(&with) {
        Some(value) => Some(value.to_owned()),
        None if word == option => words.get(i + 1).filter(|next| !next.starts_with("--")).cloned(),
        None => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_is_meant_by_its_last_part_or_by_what_is_near() {
        assert_eq!(settings_meant("beta2"), keys_called::<ExperimentConfig>("beta2"));
        assert_eq!(settings_meant("model.encoder.hiden"), ["model.encoder.hidden"]);
        assert_eq!(settings_meant("label_smoothin"), ["train.loss.label_smoothing"]);
        assert!(settings_meant("nothing.like.it").is_empty());
    }
}
