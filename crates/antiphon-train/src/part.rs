//! Parts of a model, named by paths: `encoder`, `decoder.layers.0`, `*.table`.
//!
//! A part is the beginning of a path, segment by segment; `*` stands for any one segment.

use std::collections::{BTreeMap, BTreeSet};

/// Whether the parameter at `path` lies in a part.
pub(crate) fn holds(part: &str, path: &str) -> bool {
    let mut segments = path.split('.');
    part.split('.').all(|wanted| segments.next().is_some_and(|own| wanted == "*" || wanted == own))
}

/// What is said of the smallest part in which a path lies: the one with the most segments, and of these the one with the fewest
/// `*`.
pub(crate) fn nearest<'p, T>(parts: &'p BTreeMap<String, T>, path: &str) -> Option<&'p T> {
    let named = |part: &str| part.split('.').filter(|segment| *segment != "*").count();
    let around = parts.iter().filter(|(part, _)| holds(part, path));
    around.max_by_key(|(part, _)| (part.split('.').count(), named(part))).map(|(_, said)| said)
}

/// What to say of a part in which none of a model's paths lies; `None` if one does.
pub fn no_such_part(part: &str, paths: &[String]) -> Option<String> {
    if paths.iter().any(|path| holds(part, path)) {
        return None;
    }
    let segments: Vec<&str> = part.split('.').collect();
    // The longest beginning of it that there is, and how that may go on.
    let (there, next) = (0..segments.len()).rev().find_map(|n| {
        let there = segments[..n].join(".");
        let within = paths.iter().filter(|path| n == 0 || holds(&there, path));
        let next: BTreeSet<&str> = within.filter_map(|path| path.split('.').nth(n)).collect();
        (!next.is_empty()).then_some((there, next))
    })?;
    let next: Vec<String> = next.into_iter().map(|segment| format!("`{segment}`")).collect();
    let within = if there.is_empty() { String::new() } else { format!(" within `{there}`") };
    Some(format!("the model has no part `{part}`; what it has{within}: {}", next.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_a_beginning_of_whole_segments() {
        for (part, path, expected) in [
            ("encoder", "encoder.layers.0.bias", true),
            ("encoder", "encoders.bias", false),
            ("encoder.layers.0", "encoder.layers.0.bias", true),
            ("encoder.layers.1", "encoder.layers.10.bias", false),
            ("*.table", "source.table", true),
            ("*.table", "streams.0.input.table", false),
            ("*", "output.bias", true),
            ("output.bias.x", "output.bias", false),
        ] {
            assert_eq!(holds(part, path), expected, "{part} {path}");
        }
    }

    #[test]
    fn the_smallest_part_counts() {
        let parts = [("*", 1), ("encoder", 2), ("*.layers", 3), ("encoder.layers", 4)];
        let parts = parts.map(|(part, value)| (part.to_owned(), value)).into();
        let of = |path| nearest(&parts, path).copied();
        assert_eq!(
            ["encoder.layers.0", "decoder.layers.0", "encoder.bias", "output.bias"].map(of),
            [4, 3, 2, 1].map(Some)
        );
        assert_eq!(nearest(&BTreeMap::from([("encoder".to_owned(), 1)]), "output.bias"), None);
    }

    #[test]
    fn a_part_that_is_not_there_is_answered_with_those_that_are() {
        let paths = ["encoder.layers.0.bias", "encoder.layers.1.bias", "output.bias"].map(String::from);
        let said = |part| no_such_part(part, &paths);
        assert_eq!(said("encoder.*.1"), None);
        assert_eq!(said("head").unwrap(), "the model has no part `head`; what it has: `encoder`, `output`");
        assert_eq!(
            said("encoder.layers.2").unwrap(),
            "the model has no part `encoder.layers.2`; what it has within `encoder.layers`: `0`, `1`"
        );
        // A path does not go on for ever.
        assert_eq!(
            said("output.bias.0").unwrap(),
            "the model has no part `output.bias.0`; what it has within `output`: `bias`"
        );
    }
}
