//! Which combination of settings is the best, and what of it changes anything.

use antiphon_decode::SearchConfig;
use serde_json::{Value, json};

use super::{Axis, Tried};
use crate::experiment::RerankConfig;

/// The combination with the least figure of those that are allowed, of which there is one; of equals the one that keeps most settings as
/// the model has them, and of these the first.
pub(super) fn best(figures: &[f64], kept: &[usize], allowed: &[bool]) -> usize {
    let order = |&a: &usize, &b: &usize| figures[a].total_cmp(&figures[b]).then(kept[b].cmp(&kept[a]));
    (0..figures.len()).filter(|&i| allowed[i]).min_by(order).expect("there is a combination")
}

/// Which figures are at most so many percent worse than the best of them.
pub(super) fn within(figures: &[f64], lower_is_better: bool, percent: f64) -> Vec<bool> {
    let sign = if lower_is_better { 1.0 } else { -1.0 };
    let best = figures.iter().map(|figure| sign * figure).min_by(f64::total_cmp).unwrap_or(0.0);
    let most = best + best.abs() * percent / 100.0 + 1e-9;
    figures.iter().map(|figure| sign * figure <= most).collect()
}

/// Whether an axis changes no answer, whatever the others are set to.
pub(super) fn is_idle(axis: usize, tried: &[Tried]) -> bool {
    let differ_there_alone = |one: &Tried, other: &Tried| {
        let mut values = one.values.iter().zip(&other.values).enumerate();
        values.all(|(i, (a, b))| i == axis || a == b)
    };
    let first = |one: &Tried| tried.iter().find(|other| differ_there_alone(one, other)).expect("it is like itself");
    tried.iter().all(|one| first(one).judged == one.judged)
}

/// The settings of a search, and of how its answers are ranked, as far as they have an effect: a language model without a weight has
/// none.
pub(super) fn effective(search: &SearchConfig, rerank: Option<&RerankConfig>) -> Value {
    let mut settings = json!({ "search": search, "rerank": rerank });
    if search.language_model().is_none()
        && let Some(table) = settings["search"].as_object_mut()
    {
        table.remove("language_model");
    }
    settings
}

/// How many of the axes a combination leaves as they are in `own` settings; both are [effective].
pub(super) fn kept(axes: &[Axis], own: &Value, search: &Value) -> usize {
    let is_kept = |axis: &&Axis| at(own, &axis.key) == at(search, &axis.key);
    axes.iter().filter(is_kept).count()
}

/// What stands at a dotted key, if anything does.
pub(super) fn at<'v>(settings: &'v Value, key: &str) -> Option<&'v Value> {
    let pointer: String = key.split('.').map(|part| format!("/{}", part.trim())).collect();
    settings.pointer(&pointer).filter(|value| !value.is_null())
}

/// Whether a setting is one of the language model in the search.
pub(super) fn is_of_language_model(key: &str) -> bool {
    let mut parts = key.split('.').map(str::trim);
    parts.next() == Some("search") && parts.next() == Some("language_model")
}

#[cfg(test)]
mod tests {
    use antiphon_core::Judged;

    use super::*;

    /// Every combination of two axes of three values, answered as `answer` says.
    fn tried(answer: impl Fn(usize, usize) -> usize) -> Vec<Tried> {
        let one = |(a, b): (usize, usize)| Tried {
            values: vec![a.to_string(), b.to_string()],
            judged: vec![Judged::new("same", ["x"]), Judged::new(answer(a, b).to_string(), ["x"])],
        };
        (0..3).flat_map(|a| (0..3).map(move |b| (a, b))).map(one).collect()
    }

    #[test]
    fn an_axis_is_idle_if_it_never_changes_an_answer() {
        for (answered, expected) in [
            (tried(|_, _| 7), [true, true]),
            (tried(|a, _| a), [false, true]),
            (tried(|_, b| b / 2), [true, false]),
            (tried(|a, b| a + b), [false, false]),
            // Only beside one value of the other.
            (tried(|a, b| if b == 2 { a } else { 0 }), [false, false]),
        ] {
            assert_eq!([0, 1].map(|axis| is_idle(axis, &answered)), expected);
        }
    }

    #[test]
    fn of_equals_the_nearest_to_the_own_settings_is_best() {
        assert_eq!(best(&[3.0, 1.0, 2.0], &[2, 0, 1], &[true; 3]), 1);
        assert_eq!(best(&[3.0, 1.0, 2.0], &[2, 0, 1], &[true, false, true]), 2);
        assert_eq!(best(&[1.0, 1.0, 2.0, 1.0], &[0, 1, 2, 1], &[true; 4]), 1);
        assert_eq!(best(&[2.0, 2.0], &[0, 0], &[true; 2]), 0);
        let search = |text: &str| effective(&serde_json::from_str(text).unwrap(), None);
        let axes = ["search.width", "search.language_model.weight"];
        let axes = axes.map(|key| Axis { key: key.into(), values: Vec::new() });
        let fused = |width: usize, weight: f64| {
            search(&format!(
                r#"{{"kind": "beam", "width": {width}, "language_model": {{"model": "lm", "weight": {weight}}}}}"#
            ))
        };
        let (alone, beside) = (search(r#"{"kind": "beam", "width": 4}"#), fused(4, 0.3));
        for (own, found, expected) in [
            (&alone, fused(4, 0.0), 2),
            (&alone, fused(4, 0.3), 1),
            (&alone, fused(2, 0.0), 1),
            (&beside, fused(4, 0.3), 2),
            (&beside, fused(4, 0.0), 1),
            (&beside, fused(2, 0.5), 0),
        ] {
            assert_eq!(kept(&axes, own, &found), expected, "{own} {found}");
        }
    }

    #[test]
    fn what_is_lost_is_a_share_of_the_best() {
        assert_eq!(within(&[20.0, 18.0, 17.9], false, 10.0), [true, true, false]);
        assert_eq!(within(&[20.0, 22.0, 22.1], true, 10.0), [true, true, false]);
        assert_eq!(within(&[3.0, 5.0], false, 0.0), [false, true]);
        assert_eq!(within(&[3.0, 5.0], false, 100.0), [true, true]);
        assert_eq!(within(&[0.0, 0.0], true, 10.0), [true, true]);
    }

    #[test]
    fn the_settings_of_the_language_model_are_known() {
        for (key, expected) in [
            ("search.language_model", true),
            ("search . language_model.weight", true),
            ("search.language_models", false),
            ("search", false),
            ("data.language_model", false),
        ] {
            assert_eq!(is_of_language_model(key), expected, "{key}");
        }
    }
}
