//! Columns for a terminal.

/// Lines whose cells stand below each other: the first column to the left, the others to the right. A short row is a
/// row with empty cells.
pub(crate) fn aligned(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |c: usize| rows.iter().filter_map(|row| row.get(c)).map(|cell| cell.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let cell = |(c, cell): (usize, &String)| match c {
            0 => format!("{cell:<0$}", widths[0]),
            _ => format!("{cell:>0$}", widths[c]),
        };
        text.push_str(row.iter().enumerate().map(cell).collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [vec!["", "test"], vec!["wörd", "9.25"], vec!["word error", "10.50", "%"], vec!["x"]];
        let rows: Vec<Vec<String>> = rows.iter().map(|row| row.iter().map(|cell| cell.to_string()).collect()).collect();
        assert_eq!(aligned(&rows), "             test\nwörd         9.25\nword error  10.50  %\nx\n");
        assert_eq!(aligned(&[]), "");
    }
}
