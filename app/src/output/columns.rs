//! Cells of a table, lined up.

use std::iter::zip;

/// A column's title, and whether its cells stand at its right.
pub type Title = (&'static str, bool);

/// Lines up columns. A column grows with the widest cell that it met, so that a table that is drawn again stays calm.
pub struct Columns<const N: usize> {
    titles: [Title; N],
    widths: [usize; N],
}

impl<const N: usize> Columns<N> {
    /// As wide as their titles.
    pub fn new(titles: [Title; N]) -> Self {
        Self {
            titles,
            widths: titles.map(|(title, _)| title.len()),
        }
    }

    /// Makes room for these.
    pub fn fit(&mut self, cells: &[String; N]) {
        for (width, cell) in zip(&mut self.widths, cells) {
            *width = (*width).max(cell.chars().count());
        }
    }

    /// Where a column begins.
    pub fn start(&self, column: usize) -> usize {
        self.widths.iter().take(column).sum::<usize>() + column
    }

    /// The titles; `rest` stands above what follows the columns.
    pub fn titles(&self, rest: &str) -> String {
        self.line(&self.titles.map(|(title, _)| title.to_owned()), rest)
    }

    /// A title in dashes above the columns from one on to before another, which belong together.
    pub fn groups(&self, groups: &[(&str, usize, usize)]) -> String {
        let mut line = String::new();
        for (title, from, to) in groups {
            let start = self.start(*from);
            let width = self.start(*to) - 1 - start;
            line.push_str(&" ".repeat(start - line.chars().count()));
            line.push_str(&format!("{:-^width$}", format!(" {title} ")));
        }
        line
    }

    /// A row, and what follows its columns.
    pub fn line(&self, cells: &[String; N], rest: &str) -> String {
        let mut line = String::new();
        for (cell, (width, (_, right))) in zip(cells, zip(self.widths, self.titles)) {
            line.push_str(&if right {
                format!("{cell:>width$} ")
            } else {
                format!("{cell:<width$} ")
            });
        }
        line.push_str(rest);
        line.truncate(line.trim_end().len());
        line
    }
}

#[cfg(test)]
mod tests {
    use super::Columns;

    #[test]
    fn a_column_is_as_wide_as_its_widest_cell() {
        let mut columns = Columns::new([("LEFT", false), ("RIGHT", true)]);
        let cells = [["a", "1"], ["größer", "1234567"]].map(|row| row.map(ToOwned::to_owned));
        cells.iter().for_each(|row| columns.fit(row));
        assert_eq!(columns.titles("REST"), "LEFT     RIGHT REST");
        assert_eq!(columns.line(&cells[0], "more"), "a            1 more");
        assert_eq!(columns.line(&cells[1], ""), "größer 1234567");
        assert_eq!((columns.start(0), columns.start(1), columns.start(2)), (0, 7, 15));
    }
}
