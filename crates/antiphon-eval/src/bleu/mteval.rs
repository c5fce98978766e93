//! The tokens of `mteval-v13a`, NIST's scoring script of 2009, as sacreBLEU reads its rules.

use std::sync::LazyLock;

use regex::Regex;

/// Puts white space around every token.
pub(super) fn tokenize(text: &str) -> String {
    static RULES: LazyLock<[(Regex, &str); 4]> = LazyLock::new(|| {
        [
            // ASCII marks other than apostrophe, comma, hyphen and full stop stand alone.
            (r"([ -&(-+/:-@\[-`{-~])", " $1 "),
            // A full stop or comma after anything but a digit.
            (r"([^0-9])([.,])", "$1 $2 "),
            // A full stop or comma before anything but a digit.
            (r"([.,])([^0-9])", " $1 $2"),
            // A hyphen after a digit.
            (r"([0-9])(-)", "$1 $2 "),
        ]
        .map(|(pattern, replacement)| (Regex::new(pattern).expect("a fixed pattern"), replacement))
    });

    let text = text.trim_end_matches(|c: char| c.is_whitespace() || matches!(c, '\u{1C}'..='\u{1F}'));
    let text = text.replace("<skipped>", "").replace("-\n", "").replace('\n', " ");
    let text = text.replace("&quot;", "\"").replace("&amp;", "&").replace("&lt;", "<").replace("&gt;", ">");
    RULES
        .iter()
        .fold(format!(" {text} "), |text, (rule, replacement)| rule.replace_all(&text, *replacement).into_owned())
}

#[cfg(test)]
mod tests {
    use super::tokenize;
    use crate::sacrebleu::words;

    #[test]
    fn rules_by_example() {
        let check =
            |text: &str, expected: &str| assert_eq!(words(&tokenize(text)).collect::<Vec<_>>().join(" "), expected);
        check("Ola, \"mira\" isto!", "Ola , \" mira \" isto !");
        check("it's well-known", "it's well-known");
        check("1,000.5 to 3-4. ,7", "1,000.5 to 3 - 4 . , 7");
        check("a..b", "a . . b");
        check("&amp;lt; &quot;x&quot;<skipped>y", "< \" x \" y");
        check("ja-\nnee\ndoch", "janee doch");
        check("¿qué? «ñ»", "¿qué ? «ñ»");
    }
}
