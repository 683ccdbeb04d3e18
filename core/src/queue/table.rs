//! A table: rows by key that know which of them were touched.
//!
//! A durable store must write exactly what a command changed, and a mutation that forgets to say so is found only
//! after a crash. So rows cannot be reached for writing but through calls that mark them.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::ops::RangeBounds;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::restore::{Change, ChangeSink, RestoreError};

/// What can be the key of a row.
pub(super) trait Key: Ord + Clone + Debug + Serialize + DeserializeOwned {}
impl<T: Ord + Clone + Debug + Serialize + DeserializeOwned> Key for T {}

/// What can be a row.
pub(super) trait Row: Clone + Debug + PartialEq + Serialize + DeserializeOwned {}
impl<T: Clone + Debug + PartialEq + Serialize + DeserializeOwned> Row for T {}

/// Touched keys are sorted out when there are so many of them: a store that never asks what was touched must not gather
/// them without end.
const DIRTY_SORTED_FROM: usize = 64;

/// Rows by key, in the order of the keys.
#[derive(Clone, Debug)]
pub(super) struct Table<K, V> {
    name: &'static str,
    rows: BTreeMap<K, V>,
    /// Touched since the last [`Table::take_changes`], in the order of the touches, some of them several times: a command
    /// touches a few rows, and is mostly asked at once.
    dirty: Vec<K>,
    /// How many may stand there before they are sorted out.
    dirty_max: usize,
    /// Grows with every touch but the unseen ones: tells whether a command changed anything.
    touches: u64,
}

impl<K: Key, V: Row> Table<K, V> {
    pub(super) fn new(name: &'static str) -> Self {
        Table {
            name,
            rows: BTreeMap::new(),
            dirty: Vec::new(),
            dirty_max: DIRTY_SORTED_FROM,
            touches: 0,
        }
    }

    pub(super) fn get(&self, key: &K) -> Option<&V> {
        self.rows.get(key)
    }

    pub(super) fn contains(&self, key: &K) -> bool {
        self.rows.contains_key(key)
    }

    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = (&K, &V)> {
        self.rows.iter()
    }

    pub(super) fn range(
        &self,
        range: impl RangeBounds<K>,
    ) -> impl DoubleEndedIterator<Item = (&K, &V)> {
        self.rows.range(range)
    }

    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    pub(super) fn touches(&self) -> u64 {
        self.touches
    }

    pub(super) fn insert(&mut self, key: &K, row: V) {
        self.mark(key);
        self.rows.insert(key.clone(), row);
    }

    pub(super) fn remove(&mut self, key: &K) -> Option<V> {
        let row = self.rows.remove(key)?;
        self.mark(key);
        Some(row)
    }

    /// As [`Table::insert`], but it does not count as a change.
    pub(super) fn insert_unseen(&mut self, key: &K, row: V) {
        self.note(key);
        self.rows.insert(key.clone(), row);
    }

    /// As [`Table::remove`], but it does not count as a change.
    pub(super) fn remove_unseen(&mut self, key: &K) -> Option<V> {
        let row = self.rows.remove(key)?;
        self.note(key);
        Some(row)
    }

    /// Lets `change` at the row, and marks it; `None` if there is no such row.
    pub(super) fn edit<R>(&mut self, key: &K, change: impl FnOnce(&mut V) -> R) -> Option<R> {
        let answer = change(self.rows.get_mut(key)?);
        self.mark(key);
        Some(answer)
    }

    fn mark(&mut self, key: &K) {
        self.touches += 1;
        self.note(key);
    }

    fn note(&mut self, key: &K) {
        if self.dirty.last() == Some(key) {
            return;
        }
        if self.dirty.len() >= self.dirty_max {
            self.sort_out();
            self.dirty_max = DIRTY_SORTED_FROM.max(2 * self.dirty.len());
        }
        self.dirty.push(key.clone());
    }

    /// Each touched key once, in order.
    fn sort_out(&mut self) {
        if self.dirty.len() > 1 {
            self.dirty.sort_unstable();
            self.dirty.dedup();
        }
    }

    /// The rows touched since the last call, in the order of their keys.
    pub(super) fn take_changes(&mut self, changes: &mut Vec<Change>) {
        self.sort_out();
        for key in self.dirty.drain(..) {
            changes.push(Change {
                table: self.name,
                key: to_json(&key),
                value: self.rows.get(&key).map(to_json),
            });
        }
    }

    /// As [`Table::take_changes`], with the rows as they are.
    pub(super) fn visit_changes(&mut self, sink: &mut impl ChangeSink) {
        self.visit_changes_as(sink, |row| row);
    }

    /// As [`Table::visit_changes`], each row told as `told` says.
    pub(super) fn visit_changes_as<'a, T: Serialize>(
        &'a mut self,
        sink: &mut impl ChangeSink,
        told: impl Fn(&'a V) -> T,
    ) {
        // Most commands leave most tables alone.
        if self.dirty.is_empty() {
            return;
        }
        self.sort_out();
        for key in self.dirty.drain(..) {
            let row = self.rows.get(&key).map(&told);
            sink.change(self.name, &key, row.as_ref());
        }
    }

    /// All rows, in the order of their keys.
    pub(super) fn write_rows(&self, rows: &mut Vec<(String, String, String)>) {
        for (key, row) in &self.rows {
            rows.push((self.name.to_owned(), to_json(key), to_json(row)));
        }
    }

    /// Takes a stored row back, if it belongs to this table, without marking it.
    pub(super) fn restore(
        &mut self,
        table: &str,
        key: &str,
        value: &str,
    ) -> Result<bool, RestoreError> {
        if table != self.name {
            return Ok(false);
        }
        let bad = |error: serde_json::Error| RestoreError::Unreadable {
            table: table.to_owned(),
            key: key.chars().take(100).collect(),
            detail: error.to_string(),
        };
        let read_key: K = serde_json::from_str(key).map_err(bad)?;
        let row: V = serde_json::from_str(value).map_err(bad)?;
        self.rows.insert(read_key, row);
        Ok(true)
    }
}

/// Two tables are equal if their rows are; what is still to be written does not matter.
impl<K: Key, V: Row> PartialEq for Table<K, V> {
    fn eq(&self, other: &Self) -> bool {
        self.rows == other.rows
    }
}

fn to_json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("keys and rows are plain data with text keys")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_touched_row_is_told_once_with_its_last_value() {
        let mut table: Table<u64, String> = Table::new("names");
        table.insert(&2, "two".into());
        table.insert(&1, "one".into());
        table.edit(&1, |name| name.push('!'));
        table.remove(&2);
        assert_eq!(table.remove(&3), None);
        let mut changes = Vec::new();
        table.take_changes(&mut changes);
        assert_eq!(
            changes,
            [
                Change {
                    table: "names",
                    key: "1".into(),
                    value: Some("\"one!\"".into())
                },
                Change {
                    table: "names",
                    key: "2".into(),
                    value: None
                },
            ]
        );
        changes.clear();
        table.take_changes(&mut changes);
        assert!(changes.is_empty());
    }
}
