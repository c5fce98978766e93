//! The words of HTML: escaped text, tables, the page around it all.
//!
//! Pages are written so that an XML parser can read them too: every element is closed, every attribute quoted.

use std::fmt::{self, Display};
use std::ops::{Add, AddAssign};

/// A piece of a page. Text becomes one by [`escape`] alone, and markup by [`html!`] alone, whose parts are pieces or numbers: so
/// no text can be taken for markup.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Html(String);

impl Html {
    /// Nothing.
    pub(super) const fn new() -> Self {
        Self(String::new())
    }

    /// For [`html!`] alone, which has looked at the parts.
    pub(super) fn of_markup(markup: fmt::Arguments<'_>) -> Self {
        Self(markup.to_string())
    }

    /// Whether there is nothing.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Display for Html {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl AddAssign for Html {
    fn add_assign(&mut self, more: Self) {
        self.0 += &more.0;
    }
}

impl Add for Html {
    type Output = Self;

    fn add(mut self, more: Self) -> Self {
        self += more;
        self
    }
}

impl FromIterator<Html> for Html {
    fn from_iter<I: IntoIterator<Item = Html>>(pieces: I) -> Self {
        pieces.into_iter().fold(Self::new(), Self::add)
    }
}

/// The tests look at the text.
#[cfg(test)]
impl std::ops::Deref for Html {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

/// What can stand in markup as it is: pieces and numbers, but no text.
pub(super) trait Part: Display {}

impl Part for Html {}
impl Part for f64 {}
impl Part for f32 {}
impl Part for u64 {}
impl Part for usize {}
impl<P: Part + ?Sized> Part for &P {}

/// Lets nothing but parts through.
pub(super) fn part<P: Part + ?Sized>(part: &P) -> &P {
    part
}

/// A piece of markup: `html!("<p>{}</p>", escape(text))`. As `format!`, but every part is named behind the literal, and text
/// among them is refused by the compiler.
macro_rules! html {
    ($markup:literal $(, $part:expr)* $(,)?) => {
        // A literal within `concat!` cannot take variables from around it, which nobody would look at.
        $crate::report::html::Html::of_markup(format_args!(concat!($markup) $(, $crate::report::html::part(&$part))*))
    };
}
pub(super) use html;

/// Text as the content of an element or of a quoted attribute. What no page may hold reads `�`.
pub(super) fn escape(text: &str) -> Html {
    let mut html = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => html += "&amp;",
            '<' => html += "&lt;",
            '>' => html += "&gt;",
            '"' => html += "&quot;",
            '\'' => html += "&#39;",
            '\t' | '\n' => html.push(c),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => html.push('\u{fffd}'),
            c => html.push(c),
        }
    }
    Html(html)
}

/// Text of a corpus: it may be written in either direction, and must not turn what stands beside it.
pub(super) fn foreign(text: &str) -> Html {
    if text.trim().is_empty() {
        return html!("<em class=\"soft\">empty</em>");
    }
    html!("<bdi>{}</bdi>", escape(text))
}

/// A whole page. It reaches for nothing outside of itself.
pub(super) fn document(title: &str, body: &Html) -> String {
    let title = escape(title);
    let style = include_str!("style.css");
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n\
         <meta name=\"color-scheme\" content=\"light dark\"/>\n<title>{title}</title>\n<style>\n{style}</style>\n\
         </head>\n<body>\n<main>\n{body}</main>\n</body>\n</html>\n"
    )
}

/// A part of the page under a heading; nothing if it is empty.
pub(super) fn section(heading: &str, content: &Html) -> Html {
    if content.is_empty() {
        return Html::new();
    }
    html!("<section>\n<h2>{}</h2>\n{}</section>\n", escape(heading), content)
}

/// Something long that opens on demand.
pub(super) fn folded(summary: &str, content: &Html) -> Html {
    html!("<details>\n<summary>{}</summary>\n{}</details>\n", escape(summary), content)
}

/// A paragraph of plain text.
pub(super) fn paragraph(text: &str) -> Html {
    html!("<p>{}</p>\n", escape(text))
}

/// Something wide, which scrolls inside its own frame; `label` says to those who do not see it what it is.
pub(super) fn wide(label: &str, content: &Html) -> Html {
    html!("<div class=\"wide\" role=\"region\" tabindex=\"0\" aria-label=\"{}\">\n{}</div>\n", escape(label), content)
}

/// A table: a heading for each column, and rows of cells; the first cell of a row names the row.
pub(super) fn table(label: &str, head: &[Html], rows: &[Vec<Html>]) -> Html {
    let heads: Html = head.iter().map(|cell| html!("<th scope=\"col\">{}</th>", cell)).collect();
    let row = |cells: &Vec<Html>| {
        let cell = |(i, cell): (usize, &Html)| match i {
            0 => html!("<th scope=\"row\">{}</th>", cell),
            _ => html!("<td>{}</td>", cell),
        };
        html!("<tr>{}</tr>\n", cells.iter().enumerate().map(cell).collect::<Html>())
    };
    let head = if head.is_empty() { Html::new() } else { html!("<thead><tr>{}</tr></thead>\n", heads) };
    let rows: Html = rows.iter().map(row).collect();
    wide(label, &html!("<table>\n{}<tbody>\n{}</tbody>\n</table>\n", head, rows))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_never_markup() {
        let escaped = escape("<a href='x'>\"&\u{0}\u{85}é\n");
        assert_eq!(&*escaped, "&lt;a href=&#39;x&#39;&gt;&quot;&amp;\u{fffd}\u{fffd}é\n");
        assert_eq!(&*html!("<b>{}</b> {:.1}", escaped, 0.25), &format!("<b>{}</b> 0.2", &*escaped));
    }
}
