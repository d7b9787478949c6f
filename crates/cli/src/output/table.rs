//! Aligned columns.

use super::text::clean;

/// Space between two columns.
const GAP: usize = 3;

/// One column.
#[derive(Debug, Clone, Copy)]
pub struct Column {
    /// Heading.
    pub title: &'static str,
    /// Longest cell in characters in the narrow form; longer ones are cut. 0 means no limit.
    pub max: usize,
}

/// A table under construction.
#[derive(Debug, Clone)]
pub struct Table {
    columns: Vec<Column>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these columns; each is a heading and its longest cell (0: no limit).
    #[must_use]
    pub fn new(columns: &[(&'static str, usize)]) -> Self {
        Self {
            columns: columns
                .iter()
                .map(|&(title, max)| Column { title, max })
                .collect(),
            rows: Vec::new(),
        }
    }

    /// Adds a row; missing cells are empty.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// The table as text, each line ended by a newline and none by spaces.
    #[must_use]
    pub fn render(&self, wide: bool) -> String {
        let cell = |row: &Vec<String>, at: usize| -> String {
            let text = row.get(at).map(|t| clean(t)).unwrap_or_default();
            let text = if text.is_empty() {
                "-".to_owned()
            } else {
                text
            };
            let max = self.columns[at].max;
            if wide || max == 0 || text.chars().count() <= max {
                return text;
            }
            let mut cut: String = text.chars().take(max.saturating_sub(1)).collect();
            cut.push('…');
            cut
        };
        let mut lines: Vec<Vec<String>> =
            vec![self.columns.iter().map(|c| c.title.to_owned()).collect()];
        for row in &self.rows {
            lines.push((0..self.columns.len()).map(|at| cell(row, at)).collect());
        }
        let widths: Vec<usize> = (0..self.columns.len())
            .map(|at| {
                lines
                    .iter()
                    .map(|l| l[at].chars().count())
                    .max()
                    .unwrap_or(0)
            })
            .collect();
        let mut out = String::new();
        for line in &lines {
            let mut text = String::new();
            for (at, cell) in line.iter().enumerate() {
                text.push_str(cell);
                let pad = widths[at] - cell.chars().count() + GAP;
                text.extend(std::iter::repeat_n(' ', pad));
            }
            out.push_str(text.trim_end());
            out.push('\n');
        }
        out
    }
}

/// A block of `name: value` lines; empty values are left out, further lines of a value are indented.
#[must_use]
pub fn fields(pairs: &[(&str, String)]) -> String {
    let width = pairs
        .iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(name, _)| name.chars().count() + 1)
        .max()
        .unwrap_or(0);
    let mut out = String::new();
    for (name, value) in pairs.iter().filter(|(_, value)| !value.is_empty()) {
        for (at, line) in value.lines().enumerate() {
            let head = if at == 0 {
                format!("{name}:")
            } else {
                String::new()
            };
            out.push_str(format!("{head:<width$} {}", clean(line)).trim_end());
            out.push('\n');
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_cut_only_in_the_narrow_form() {
        let mut table = Table::new(&[("NAME", 6), ("REASON", 0)]);
        table.row(["abcdefgh".to_owned(), "a\nb\x1b[2J".to_owned()]);
        table.row(["x".to_owned()]);
        assert_eq!(
            table.render(false),
            "NAME     REASON\nabcde…   a b\u{fffd}[2J\nx        -\n"
        );
        assert!(table.render(true).contains("abcdefgh"));
    }

    #[test]
    fn fields_align_and_skip_empty_values() {
        let text = fields(&[
            ("Name", "web".into()),
            ("Nothing", String::new()),
            ("Mounts", "a\nb".into()),
        ]);
        assert_eq!(text, "Name:   web\nMounts: a\n        b\n");
    }
}
