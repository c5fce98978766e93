//! One spelling for what should count as the same text.

use std::borrow::Cow;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use unicode_normalization::UnicodeNormalization;

/// A change made to every text before it is split. Several are made in the order written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Normalization {
    /// Canonical composition: `e` + combining acute becomes `é` (Unicode Standard Annex 15).
    Nfc,
    /// Canonical decomposition: `é` becomes `e` + combining acute.
    Nfd,
    /// Compatibility composition: also `ﬁ` becomes `fi`, `①` becomes `1`.
    Nfkc,
    /// Compatibility decomposition.
    Nfkd,
    /// Lower case, by Unicode's default rules for no language in particular.
    Lowercase,
}

impl Normalization {
    fn apply(self, text: &str) -> Cow<'_, str> {
        match self {
            // ASCII is its own normal form, in all four.
            Self::Nfc | Self::Nfd | Self::Nfkc | Self::Nfkd if text.is_ascii() => text.into(),
            Self::Nfc => text.nfc().collect::<String>().into(),
            Self::Nfd => text.nfd().collect::<String>().into(),
            Self::Nfkc => text.nfkc().collect::<String>().into(),
            Self::Nfkd => text.nfkd().collect::<String>().into(),
            Self::Lowercase => text.to_lowercase().into(),
        }
    }
}

/// `text` after all `steps`, in their order.
pub(crate) fn normalize<'t>(steps: &[Normalization], text: &'t str) -> Cow<'t, str> {
    steps.iter().fold(Cow::Borrowed(text), |text, step| match text {
        Cow::Borrowed(text) => step.apply(text),
        Cow::Owned(text) => step.apply(&text).into_owned().into(),
    })
}

#[cfg(test)]
mod tests {
    use super::Normalization::{Lowercase, Nfc, Nfd, Nfkc, Nfkd};
    use super::*;

    #[test]
    fn each_form_is_unicodes() {
        for (steps, text, expected) in [
            (vec![], "É", "É"),
            (vec![Nfc], "e\u{301}", "é"),
            (vec![Nfd], "é", "e\u{301}"),
            (vec![Nfkc], "ﬁe\u{301}①", "fié1"),
            (vec![Nfkd], "ﬁé", "fie\u{301}"),
            (vec![Lowercase], "ÉA ΟΔΟΣ", "éa οδος"),
        ] {
            assert_eq!(normalize(&steps, text), expected, "{steps:?}");
        }
    }

    #[test]
    fn the_order_is_the_one_written() {
        // The telephone sign has no lower case of its own, but decomposes to capital letters.
        assert_eq!(normalize(&[Nfkc, Lowercase], "℡"), "tel");
        assert_eq!(normalize(&[Lowercase, Nfkc], "℡"), "TEL");
    }

    #[test]
    fn names_are_snake_case() {
        let steps: Vec<Normalization> = serde_json::from_str(r#"["nfc","nfd","nfkc","nfkd","lowercase"]"#).unwrap();
        assert_eq!(steps, [Nfc, Nfd, Nfkc, Nfkd, Lowercase]);
    }
}
