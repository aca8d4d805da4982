//! Tables a person enjoys reading: columns as wide as they must be, numbers to the right, a dim head.

use crate::print::text_as_it_is;
use quintet_vsync::Position;
use std::io::IsTerminal as _;

/// Rows of text under a head.
pub(super) struct Table {
    head: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these columns; a name that starts with `>` is a column aligned to the right.
    pub(super) fn new(head: &[&str]) -> Table {
        Table { head: head.iter().map(|name| (*name).to_owned()).collect(), rows: Vec::new() }
    }

    /// Adds a row; it has as many cells as the head.
    pub(super) fn row(&mut self, cells: Vec<String>) {
        assert_eq!(cells.len(), self.head.len(), "a cell for every column");
        self.rows.push(cells);
    }

    /// Prints it to standard output.
    pub(super) fn print(&self) {
        text_as_it_is(&self.render(std::io::stdout().is_terminal()));
    }

    /// What is printed, without colour.
    #[cfg(test)]
    pub(super) fn text(&self) -> String {
        self.render(false)
    }

    fn render(&self, colour: bool) -> String {
        let name = |column: usize| self.head[column].trim_start_matches('>');
        let width = |column: usize| {
            let cells = self.rows.iter().map(|row| row[column].chars().count());
            cells.chain([name(column).chars().count()]).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.head.len()).map(width).collect();
        let line = |cells: Vec<&str>| {
            let mut text = String::new();
            for (column, cell) in cells.iter().enumerate() {
                if column > 0 {
                    text.push_str("  ");
                }
                let pad = " ".repeat(widths[column] - cell.chars().count());
                if self.head[column].starts_with('>') {
                    text.push_str(&pad);
                    text.push_str(cell);
                } else {
                    text.push_str(cell);
                    text.push_str(&pad);
                }
            }
            text.trim_end().to_owned()
        };
        let head = line((0..self.head.len()).map(name).collect());
        let mut text = if colour { format!("\x1b[2m{head}\x1b[0m\n") } else { format!("{head}\n") };
        for row in &self.rows {
            text.push_str(&line(row.iter().map(String::as_str).collect()));
            text.push('\n');
        }
        text
    }
}

/// A position of the total order as it is shown everywhere.
pub(super) fn position(tagged: u64) -> String {
    if tagged == 0 { "none yet".to_owned() } else { Position(tagged).to_string() }
}

/// Bytes as people read them, in decimal units.
pub(super) fn bytes(count: u64) -> String {
    let units = [(1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")];
    match units.iter().find(|(unit, _)| count as f64 >= *unit) {
        Some((unit, name)) => format!("{:.1} {name}", count as f64 / unit),
        None => format!("{count} B"),
    }
}

/// Microseconds as people read them.
pub(super) fn micros(us: f64) -> String {
    if us < 1_000.0 { format!("{us:.1} µs") } else { format!("{:.1} ms", us / 1_000.0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_they_must_be_and_numbers_stand_right() {
        let mut table = Table::new(&["name", ">count"]);
        table.row(vec!["a".into(), "1".into()]);
        table.row(vec!["längste".into(), "1000000".into()]);
        assert_eq!(table.render(false), "name       count\na              1\nlängste  1000000\n");
        assert!(table.render(true).starts_with("\x1b[2mname"));
    }

    #[test]
    fn positions_and_times_are_readable() {
        assert_eq!(position((5 << 40) | 1234), "5:1234");
        assert_eq!(position((5 << 40) | 1234).parse(), Ok(Position((5 << 40) | 1234)));
        assert_eq!(position(0), "none yet");
        assert_eq!((bytes(999), bytes(12_345_678)), ("999 B".into(), "12.3 MB".into()));
        assert_eq!((micros(12.34), micros(12_340.0)), ("12.3 µs".into(), "12.3 ms".into()));
    }
}
