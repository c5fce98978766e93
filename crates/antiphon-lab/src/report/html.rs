//! The words of HTML: escaped text, tables, the page around it all.
//!
//! Pages are written so that an XML parser can read them too: every element is closed, every attribute quoted.

/// Text as the content of an element or of a quoted attribute. What no page may hold reads `�`.
pub(super) fn escape(text: &str) -> String {
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
    html
}

/// Text of a corpus: it may be written in either direction, and must not turn what stands beside it.
pub(super) fn foreign(text: &str) -> String {
    if text.trim().is_empty() {
        return "<em class=\"soft\">empty</em>".into();
    }
    format!("<bdi>{}</bdi>", escape(text))
}

/// A whole page. It reaches for nothing outside of itself.
pub(super) fn document(title: &str, body: &str) -> String {
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
pub(super) fn section(heading: &str, content: &str) -> String {
    if content.is_empty() {
        return String::new();
    }
    format!("<section>\n<h2>{}</h2>\n{content}</section>\n", escape(heading))
}

/// Something long that opens on demand.
pub(super) fn folded(summary: &str, content: &str) -> String {
    format!("<details>\n<summary>{}</summary>\n{content}</details>\n", escape(summary))
}

/// A paragraph of plain text.
pub(super) fn paragraph(text: &str) -> String {
    format!("<p>{}</p>\n", escape(text))
}

/// Something wide, which scrolls inside its own frame; `label` says to those who do not see it what it is.
pub(super) fn wide(label: &str, content: &str) -> String {
    format!("<div class=\"wide\" role=\"region\" tabindex=\"0\" aria-label=\"{}\">\n{content}</div>\n", escape(label))
}

/// A table: a heading for each column, cells of HTML; the first cell of a row names the row.
pub(super) fn table(label: &str, head: &[String], rows: &[Vec<String>]) -> String {
    let heads: String = head.iter().map(|cell| format!("<th scope=\"col\">{cell}</th>")).collect();
    let row = |cells: &Vec<String>| {
        let cell = |(i, cell): (usize, &String)| match i {
            0 => format!("<th scope=\"row\">{cell}</th>"),
            _ => format!("<td>{cell}</td>"),
        };
        format!("<tr>{}</tr>\n", cells.iter().enumerate().map(cell).collect::<String>())
    };
    let head = if head.is_empty() { String::new() } else { format!("<thead><tr>{heads}</tr></thead>\n") };
    let rows: String = rows.iter().map(row).collect();
    wide(label, &format!("<table>\n{head}<tbody>\n{rows}</tbody>\n</table>\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_never_markup() {
        assert_eq!(escape("<a href='x'>\"&\u{0}\u{85}é\n"), "&lt;a href=&#39;x&#39;&gt;&quot;&amp;\u{fffd}\u{fffd}é\n");
    }
}
