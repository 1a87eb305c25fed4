//! How large a table is, and by which columns its rows are found without reading all of it.

/// What the catalogue says of a table.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TableFacts {
    /// How many rows it has, as far as the database knows; never counted beyond what was asked for.
    pub rows: u64,
    /// The columns of each index over all rows, in order; an expression in one is an empty name.
    pub indexes: Vec<Vec<String>>,
    /// Its name as a statement writes it.
    pub place: String,
}

/// Rows of (index, column) in order become indexes.
pub(super) fn group(columns: impl IntoIterator<Item = (String, String)>) -> Vec<Vec<String>> {
    let mut indexes: Vec<(String, Vec<String>)> = Vec::new();
    for (index, column) in columns {
        match indexes.last_mut().filter(|(known, _)| *known == index) {
            Some((_, own)) => own.push(column),
            None => indexes.push((index, vec![column])),
        }
    }
    indexes.into_iter().map(|(_, columns)| columns).collect()
}
