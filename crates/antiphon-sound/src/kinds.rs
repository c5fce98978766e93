//! Of which kind a fault of a recording is.

use antiphon_core::Error;

/// What the messages of a kind say, and how lines with such recordings are counted.
const KINDS: [(&str, &str); 12] = [
    ("there is no such file", "with a recording that is not there"),
    ("the file is empty", "with an empty file"),
    ("neither wav nor flac", "with a file that is neither wav nor flac"),
    ("neither `.mfc`", "with a file that is neither `.mfc` nor `.npy`"),
    ("it is truncated", "with a recording that is cut off"),
    ("it is silent from beginning to end", "with a silent recording"),
    ("of a frame; leave it out", "with a recording shorter than a frame"),
    ("samples a second, not", "with a recording of another rate"),
    ("more than `max_seconds`", "with a recording over features.max_seconds"),
    ("has no length; give a later end", "with a part that has no length"),
    ("does not lie within the file", "with a part that does not lie in its file"),
    ("set `width` to", "with frames of another width"),
];

/// How lines with a fault of a recording are counted, as in "3 lines with a silent recording".
///
/// A fault is known by its message: that is what is kept of it beside the features of the other recordings.
pub fn counted_as(fault: &Error) -> &'static str {
    let says = |text: &str| fault.problems.iter().any(|problem| problem.message.contains(text));
    let kind = KINDS.into_iter().find(|(text, _)| says(text));
    kind.map_or("with a recording that cannot be used", |(_, counted)| counted)
}
