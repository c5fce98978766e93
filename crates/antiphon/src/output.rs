//! Writing to the terminal without panicking when nobody reads.

use std::ffi::{OsStr, OsString};
use std::io::{self, ErrorKind, IsTerminal, Write};
use std::path::{Path, PathBuf};

use antiphon_core::printable::acts;
use antiphon_core::{Error, Result, printable};
pub(crate) use antiphon_lab::shell;
use antiphon_lab::{CALLED_AS, command_line};

/// Writes to the standard output, to a terminal as [`printable`] has it. A reader that has left (`| head`) is no error: what
/// follows is for nobody.
pub(crate) fn print(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    let text = if out.is_terminal() { printable(text) } else { text.into() };
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).or_else(unwritten)
}

/// What it means that the standard output could not be written to: nothing, if its reader has left.
///
/// # Errors
/// If it failed otherwise.
pub(crate) fn unwritten(error: io::Error) -> Result<()> {
    match error.kind() {
        ErrorKind::BrokenPipe => Ok(()),
        _ => Err(Error::io("standard output", "write", &error)),
    }
}

/// A value as a line of JSON that does nothing to a terminal but appear: what [`printable`] shows is escaped.
pub(crate) fn json_line(value: &impl serde::Serialize) -> serde_json::Result<String> {
    let json = serde_json::to_string(value)?;
    if !json.contains(acts) {
        return Ok(json);
    }
    // Such characters stand inside of strings alone.
    Ok(json.chars().map(|c| if acts(c) { format!("\\u{:04x}", u32::from(c)) } else { c.to_string() }).collect())
}

/// A text as one cell of one line: without line ends and tabs.
pub(crate) fn one_line(text: &str) -> String {
    text.replace(['\n', '\r', '\t'], " ")
}

/// A line on the standard error, as [`printable`] has it. If even that is closed there is nobody to tell.
pub(crate) fn tell(line: &str) {
    let _ = writeln!(io::stderr().lock(), "{}", printable(line));
}

/// Lines of cells as aligned columns, two spaces apart.
pub(crate) fn columns(rows: &[Vec<String>]) -> String {
    let count = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |c: usize| rows.iter().filter_map(|row| row.get(c)).map(|cell| cell.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..count).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, &width)| format!("{cell:width$}")).collect();
        cells.join("  ").trim_end().to_owned() + "\n"
    };
    rows.iter().map(line).collect()
}

/// This program as the user can type it from here, for a shell: as it was called, or what was called in its place.
pub(crate) fn program() -> String {
    match std::env::var(CALLED_AS) {
        Ok(words) if !words.is_empty() => words,
        _ => shell(typed(
            &std::env::args_os().next().map_or_else(|| "antiphon".into(), PathBuf::from),
            &std::env::current_dir().unwrap_or_default(),
        )),
    }
}

/// A program's name as it can be typed in the folder `here`.
fn typed(name: &Path, here: &Path) -> PathBuf {
    match name.strip_prefix(here) {
        // A bare name would be looked for elsewhere.
        Ok(below) if below.components().count() == 1 => Path::new(".").join(below),
        Ok(below) => below.to_path_buf(),
        Err(_) => name.to_path_buf(),
    }
}

/// A command of this program, ready to be given to a shell from here.
pub(crate) fn command(words: impl IntoIterator<Item = impl AsRef<OsStr>>) -> String {
    quoted(program(), words)
}

/// The beginning of a command and its other words, as a shell reads them.
pub(crate) fn quoted(beginning: String, words: impl IntoIterator<Item = impl AsRef<OsStr>>) -> String {
    match command_line(words) {
        words if words.is_empty() => beginning,
        words => beginning + " " + &words,
    }
}

/// The folder of data sets, unless another is named.
pub(crate) const DATA: &str = "data";

/// An option and its folder, for a command; nothing if this is the default.
pub(crate) fn option(name: &str, folder: &Path, default: &str) -> Vec<OsString> {
    if folder == Path::new(default) { Vec::new() } else { vec![name.into(), folder.into()] }
}

/// A command that hands a line of text on.
pub(crate) fn echo(text: &str) -> String {
    // What `echo` makes of these depends on the shell.
    let odd = text.starts_with('-') || text.contains('\\');
    format!("{} {}", if odd { r"printf '%s\n'" } else { "echo" }, shell(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let row = |cells: &[&str]| cells.iter().map(|c| c.to_string()).collect();
        assert_eq!(columns(&[row(&["a", "bb", "c"]), row(&["é1", "b"])]), "a   bb  c\né1  b\n");
        assert_eq!(columns(&[]), "");
    }

    #[test]
    fn a_program_is_named_as_it_can_be_typed() {
        let typed = |name: &str| typed(Path::new(name), Path::new("/home/x")).display().to_string();
        assert_eq!(typed("antiphon"), "antiphon");
        assert_eq!(typed("target/debug/antiphon"), "target/debug/antiphon");
        assert_eq!(typed("/home/x/target/debug/antiphon"), "target/debug/antiphon");
        assert_eq!(typed("/home/x/antiphon"), "./antiphon");
        assert_eq!(typed("/usr/bin/antiphon"), "/usr/bin/antiphon");
    }

    #[test]
    fn json_stays_json_and_does_nothing_to_a_terminal() {
        let text = "é\u{1b}[2J\u{9b}m\u{7f}\u{202e}\n";
        let json = json_line(&text).unwrap();
        assert_eq!(json, r#""é\u001b[2J\u009bm\u007f\u202e\n""#);
        assert_eq!(serde_json::from_str::<String>(&json).unwrap(), text);
    }

    #[test]
    fn commands_are_quoted_where_a_shell_would_split_them() {
        assert_eq!(quoted("cargo xtask".into(), ["run", "my runs/a"]), "cargo xtask run 'my runs/a'");
        assert_eq!(quoted("antiphon".into(), [""; 0]), "antiphon");
        assert_eq!(echo("it's"), r"echo 'it'\''s'");
        assert_eq!(echo("-n"), r"printf '%s\n' -n");
    }
}
