//! Writing to the terminal without panicking when nobody reads.

use std::io::{self, ErrorKind, IsTerminal, Write};
use std::path::Path;

use antiphon_core::{Error, Result, printable};

/// Writes to the standard output, to a terminal as [`printable`] has it. A reader that has left (`| head`) is no error: what
/// follows is for nobody.
pub(crate) fn print(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    let text = if out.is_terminal() { printable(text) } else { text.into() };
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(Error::io("standard output", "write", &error)),
        _ => Ok(()),
    }
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

/// This program as the user can type it from here.
pub(crate) fn program() -> String {
    let name = std::env::args_os().next().map_or_else(|| "antiphon".into(), std::path::PathBuf::from);
    let here = std::env::current_dir().unwrap_or_default();
    name.strip_prefix(&here).unwrap_or(&name).display().to_string()
}

/// A path as a shell reads it.
pub(crate) fn shell(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./+=@%,".contains(c);
    if !text.is_empty() && text.chars().all(plain) { text } else { format!("'{}'", text.replace('\'', r"'\''")) }
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
    fn paths_are_quoted_where_a_shell_would_split_them() {
        assert_eq!(shell(Path::new("runs/a-1.b")), "runs/a-1.b");
        assert_eq!(shell(Path::new("my runs/a'b")), r"'my runs/a'\''b'");
    }
}
