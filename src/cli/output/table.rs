//! Tables that stay aligned with Chinese text and read well in a pipe.

use comfy_table::presets::{NOTHING, UTF8_HORIZONTAL_ONLY};
use comfy_table::{Cell, CellAlignment, ContentArrangement, Table, TableComponent};

use super::screen::{Screen, harmless};

/// A table for people. Cells are cleaned of control characters.
#[derive(Debug, Clone, Default)]
pub struct Grid {
    titles: Vec<String>,
    right: Vec<usize>,
    rows: Vec<Vec<String>>,
}

impl Grid {
    /// A table with these column titles.
    #[must_use]
    pub fn new<T: AsRef<str>>(titles: impl IntoIterator<Item = T>) -> Self {
        let titles = titles.into_iter().map(|title| harmless(title.as_ref())).collect();
        Self { titles, right: Vec::new(), rows: Vec::new() }
    }

    /// Aligns a column (from 0) to the right, as numbers want it.
    pub fn right(mut self, column: usize) -> Self {
        self.right.push(column);
        self
    }

    /// Adds a row. Missing cells stay empty, surplus ones are dropped.
    pub fn row<T: AsRef<str>>(&mut self, cells: impl IntoIterator<Item = T>) -> &mut Self {
        let mut cells: Vec<String> = cells.into_iter().map(|cell| harmless(cell.as_ref())).collect();
        cells.resize(self.titles.len(), String::new());
        self.rows.push(cells);
        self
    }

    /// Whether there are no rows.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The table as lines, without a line break at the end: ruled and wrapped to the window on a terminal; one line a row,
    /// two spaces between columns, anywhere else.
    #[must_use]
    pub fn render(&self, screen: Screen) -> String {
        let mut table = Table::new();
        if screen.terminal {
            table.load_preset(UTF8_HORIZONTAL_ONLY).remove_style(TableComponent::HorizontalLines);
            table.remove_style(TableComponent::MiddleIntersections);
        } else {
            table.load_preset(NOTHING);
        }
        if let Some(width) = screen.width {
            table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width);
        }
        table.set_header(self.titles.iter().enumerate().map(|(column, title)| self.cell(column, title)));
        for row in &self.rows {
            table.add_row(row.iter().enumerate().map(|(column, text)| self.cell(column, text)));
        }
        for column in table.column_iter_mut() {
            column.set_padding((0, if screen.terminal { 1 } else { 2 }));
        }
        table.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>().join("\n")
    }

    fn cell(&self, column: usize, text: &str) -> Cell {
        let alignment = if self.right.contains(&column) { CellAlignment::Right } else { CellAlignment::Left };
        Cell::new(text).set_alignment(alignment)
    }
}

/// A whole number with commas between groups of three: `1,234,567`.
#[must_use]
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use unicode_width::UnicodeWidthStr;

    fn sample() -> Grid {
        let mut grid = Grid::new(["store", "状态", "rows"]).right(2);
        grid.row(["shop", "已删除", "1,204"]).row(["订单库", "kept", "7"]);
        grid
    }

    #[test]
    fn a_pipe_gets_aligned_plain_lines() {
        let expected = "store   状态     rows\nshop    已删除  1,204\n订单库  kept        7";
        assert_eq!(sample().render(Screen::PLAIN), expected);
    }

    #[test]
    fn a_terminal_gets_rules_of_equal_width() {
        let shown = sample().render(Screen { terminal: true, width: None, colour: true });
        assert!(shown.contains('─') && !shown.contains('\u{1b}'), "{shown}");
        let rules: Vec<usize> =
            shown.lines().filter(|line| line.starts_with(['─', '═'])).map(UnicodeWidthStr::width).collect();
        assert!(rules.len() == 3 && rules.iter().all(|width| *width == rules[0]), "{shown}");
    }

    #[test]
    fn a_narrow_terminal_is_not_overrun() {
        let mut grid = Grid::new(["what", "note"]);
        grid.row(["订单", "这一行很长，必须在窄窗口里换行，而不是超出窗口的宽度，否则表格就乱了"]);
        let shown = grid.render(Screen { terminal: true, width: Some(40), colour: false });
        assert!(shown.lines().all(|line| line.width() <= 40), "{shown}");
        let kept: String = shown.chars().filter(|letter| "这一行很长必须表格就乱了".contains(*letter)).collect();
        assert!(kept.starts_with("这一行很长必须") && kept.ends_with("表格就乱了"), "{shown}");
    }

    #[test]
    fn cells_are_cleaned_and_counted() {
        let mut grid = Grid::new(["a", "b"]);
        grid.row(["x\u{1b}[2Jy\nz"]).row(["1", "2", "3"]);
        assert_eq!(grid.render(Screen::PLAIN), "a         b\nx�[2Jy z\n1         2");
        assert!(!grid.is_empty() && Grid::new(["a"]).is_empty());
    }

    #[test]
    fn numbers_are_grouped_in_threes() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
    }
}
