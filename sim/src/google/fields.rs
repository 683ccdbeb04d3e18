//! The `fields` parameter: which members of an answer are wanted.
//!
//! `kind,nextSyncToken,items(id,start/dateTime)` is read once into a tree, and for events once more into one bit a
//! field, so that writing an event asks only for bits. An unknown field is an error at Google, and so it is here.

use std::collections::BTreeMap;

/// The deepest nesting and the most names that a selector may have; longer ones are refused.
const DEPTH_MAX: usize = 8;
const NAMES_MAX: usize = 500;

/// What is wanted of a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Mask {
    /// All of it.
    Everything,
    /// These members of the object (or of each object of the array).
    Only(BTreeMap<String, Mask>),
}

impl Mask {
    /// Reads a selector.
    ///
    /// # Errors
    /// The part that cannot be read.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut reader = Reader {
            rest: text,
            names: 0,
        };
        let mask = reader.list(0)?;
        if reader.rest.is_empty() {
            Ok(mask)
        } else {
            Err(reader.rest.to_owned())
        }
    }

    /// What is wanted of member `name`; `None` if nothing.
    pub(crate) fn member(&self, name: &str) -> Option<&Mask> {
        match self {
            Mask::Everything => Some(&Mask::Everything),
            Mask::Only(members) => members.get(name).or_else(|| members.get("*")),
        }
    }

    /// Whether member `name` is wanted at all.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.member(name).is_some()
    }

    /// One bit for each of `names` that is wanted.
    pub(crate) fn bits(&self, names: &[&str]) -> u64 {
        assert!(names.len() <= 64, "one bit a name");
        let wanted = names.iter().enumerate().filter(|(_, name)| self.has(name));
        wanted.fold(0, |bits, (index, _)| bits | 1 << index)
    }

    /// The first selected name that is not in `names`.
    pub(crate) fn unknown(&self, names: &[&str]) -> Option<&str> {
        let Mask::Only(members) = self else {
            return None;
        };
        let mut selected = members.keys().map(String::as_str);
        selected.find(|name| *name != "*" && !names.contains(name))
    }

    /// The wanted part of a JSON value.
    pub(crate) fn apply(&self, value: &serde_json::Value) -> serde_json::Value {
        use serde_json::Value;
        match (self, value) {
            (Mask::Only(_), Value::Object(object)) => {
                let members = object.iter().filter_map(|(name, member)| {
                    Some((name.clone(), self.member(name)?.apply(member)))
                });
                Value::Object(members.collect())
            }
            (Mask::Only(_), Value::Array(array)) => {
                Value::Array(array.iter().map(|item| self.apply(item)).collect())
            }
            _ => value.clone(),
        }
    }

    fn add(members: &mut BTreeMap<String, Mask>, name: &str, mask: Mask) {
        match (members.get_mut(name), mask) {
            (Some(Mask::Only(old)), Mask::Only(new)) => {
                for (name, mask) in new {
                    Mask::add(old, &name, mask);
                }
            }
            (_, mask) => {
                members.insert(name.to_owned(), mask);
            }
        }
    }
}

struct Reader<'a> {
    rest: &'a str,
    names: usize,
}

impl<'a> Reader<'a> {
    fn list(&mut self, depth: usize) -> Result<Mask, String> {
        let mut members = BTreeMap::new();
        loop {
            let (name, mask) = self.path(depth)?;
            Mask::add(&mut members, name, mask);
            match self.rest.strip_prefix(',') {
                Some(rest) => self.rest = rest,
                None => return Ok(Mask::Only(members)),
            }
        }
    }

    fn path(&mut self, depth: usize) -> Result<(&'a str, Mask), String> {
        let name_end = self
            .rest
            .find(|letter: char| !letter.is_ascii_alphanumeric() && letter != '*' && letter != '_')
            .unwrap_or(self.rest.len());
        self.names += 1;
        if name_end == 0 || depth > DEPTH_MAX || self.names > NAMES_MAX {
            return Err(self.rest.to_owned());
        }
        let (name, rest) = self.rest.split_at(name_end);
        self.rest = rest;
        if let Some(rest) = rest.strip_prefix('/') {
            self.rest = rest;
            let (inner, mask) = self.path(depth + 1)?;
            return Ok((name, Mask::Only(BTreeMap::from([(inner.to_owned(), mask)]))));
        }
        if let Some(rest) = rest.strip_prefix('(') {
            self.rest = rest;
            let mask = self.list(depth + 1)?;
            let Some(rest) = self.rest.strip_prefix(')') else {
                return Err(self.rest.to_owned());
            };
            self.rest = rest;
            return Ok((name, mask));
        }
        Ok((name, Mask::Everything))
    }
}

/// A module with the names of an object's fields (`NAMES`) and one bit constant for each.
macro_rules! bits {
    ($table:ident: $($name:ident = $text:literal),+ $(,)?) => {
        pub(crate) mod $table {
            #[allow(non_camel_case_types, clippy::upper_case_acronyms)]
            enum Index { $($name),+ }
            pub(crate) const NAMES: &[&str] = &[$($text),+];
            $(#[allow(dead_code)] pub(crate) const $name: u64 = 1 << (Index::$name as u64);)+
        }
    };
}
pub(crate) use bits;

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn nested_selectors_select() {
        let mask =
            Mask::parse("kind,items(id,start/dateTime,attendees(email)),items/etag").unwrap();
        let value = json!({"kind": "k", "etag": "e", "items": [
            {"id": "1", "etag": "2", "status": "s", "start": {"dateTime": "t", "timeZone": "z"},
             "attendees": [{"email": "a", "self": true}]}]});
        let expected = json!({"kind": "k", "items": [
            {"id": "1", "etag": "2", "start": {"dateTime": "t"}, "attendees": [{"email": "a"}]}]});
        assert_eq!(mask.apply(&value), expected);
        assert_eq!(Mask::parse("*").unwrap().apply(&value), value);
    }

    #[test]
    fn broken_selectors_are_refused() {
        for text in ["", "a,", "a(b", "a)b", "a//b", "a b", "(a)"] {
            assert!(Mask::parse(text).is_err(), "{text}");
        }
        assert!(Mask::parse(&"a(".repeat(10_000)).is_err());
        assert!(Mask::parse(&"a,".repeat(10_000)).is_err());
        let mask = Mask::parse("id,nonsense").unwrap();
        assert_eq!(mask.unknown(&["id"]), Some("nonsense"));
    }
}
