//! The rows for people.

use super::Row;
use crate::output::{Columns, Title};

const COLUMNS: usize = 7;
const TITLES: [Title; COLUMNS] = [
    ("REASON", false),
    ("LOCATION", false),
    ("WAY", false),
    ("NOW", true),
    ("SEGMENTS", true),
    ("BYTES", true),
    ("MEANING", false),
];

/// As wide as what was shown so far.
pub struct Table(Columns<COLUMNS>);

impl Default for Table {
    fn default() -> Self {
        Self(Columns::new(TITLES))
    }
}

impl Table {
    /// Titles, and a line for each row.
    pub fn lines(&mut self, rows: &[Row]) -> Vec<String> {
        if rows.is_empty() {
            return vec!["nothing was dropped".to_owned()];
        }
        let cells: Vec<_> = rows.iter().map(cells).collect();
        cells.iter().for_each(|row| self.0.fit(row));
        let mut lines = vec![self.0.titles("")];
        lines.extend(cells.iter().map(|row| self.0.line(row, "")));
        lines
    }
}

fn cells(row: &Row) -> [String; COLUMNS] {
    [
        row.reason
            .as_ref()
            .map_or_else(|| "-".to_owned(), |reason| reason.name.clone()),
        row.location.clone(),
        row.direction().to_owned(),
        row.in_interval.to_string(),
        row.total.segments.to_string(),
        row.total.bytes.to_string(),
        row.reason
            .as_ref()
            .and_then(|reason| reason.means)
            .unwrap_or("-")
            .to_owned(),
    ]
}
