//! Tables for people and JSON for programs: the two forms of what a command lists.

use serde::Serialize;

use super::CommandResult;

/// Fills a cell without a value.
pub(super) const NOTHING: &str = "-";

/// A table with a header.
pub(super) struct Table<const N: usize> {
    header: [&'static str; N],
    rows: Vec<[String; N]>,
}

impl<const N: usize> Table<N> {
    /// No row yet.
    pub(super) fn new(header: [&'static str; N]) -> Self {
        Self {
            header,
            rows: Vec::new(),
        }
    }

    /// One row more. What would break the table, such as the end of a line in a name, is left out of it.
    pub(super) fn row(&mut self, cells: [String; N]) {
        let one_line = |cell: String| cell.replace(char::is_control, " ");
        self.rows.push(cells.map(one_line));
    }

    /// The lines, with columns as wide as what is in them; the last one is not filled up.
    pub(super) fn lines(&self) -> String {
        let header = self.header.map(str::to_owned);
        let all = || std::iter::once(&header).chain(&self.rows);
        let width = |column: usize| all().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..N).map(width).collect();
        let mut lines = String::new();
        for row in all() {
            let cells = row.iter().zip(&widths);
            let cells: Vec<String> = cells.map(|(cell, width)| format!("{cell:<width$}")).collect();
            let line = cells.join("  ");
            lines.push_str(line.trim_end());
            lines.push('\n');
        }
        lines
    }
}

/// Prints something as JSON.
pub(super) fn print_json(value: &impl Serialize) -> CommandResult {
    println!("{}", serde_json::to_string_pretty(value)?);
    Ok(())
}

/// A number that was counted up to a limit.
pub(super) fn counted(count: i64, max: i64) -> String {
    at_least(count, count >= max)
}

/// A number, and whether there may be more.
pub(super) fn at_least(count: i64, has_more: bool) -> String {
    let more = if has_more { "+" } else { "" };
    format!("{count}{more}")
}

/// Something that may be missing.
pub(super) fn optional(value: Option<impl ToString>) -> String {
    value.map_or_else(|| NOTHING.to_owned(), |value| value.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_what_is_in_them() {
        let mut table = Table::new(["A", "LONG", "C"]);
        table.row(["aé".to_owned(), "x".to_owned(), String::new()]);
        table.row([String::new(), "two\nlines".to_owned(), "c".to_owned()]);
        assert_eq!(table.lines(), "A   LONG       C\naé  x\n    two lines  c\n");
        assert_eq!(Table::new(["A"]).lines(), "A\n");
    }

    #[test]
    fn a_count_that_reached_its_limit_says_so() {
        assert_eq!((counted(9, 10), counted(10, 10)), ("9".to_owned(), "10+".to_owned()));
        assert_eq!(optional(None::<i64>), "-");
    }
}
