//! The rolling hash of a run: everything that happens goes into one number, so two runs are the same exactly if it is.
//!
//! It is fed by serde, so any row of the queue can go in as it is, without a text in between. Eight bytes cost one
//! multiplication. It is no cryptography, and needs none: it must only differ where two runs differ.

use std::fmt;

use kalends_core::queue::ChangeSink;
use serde::ser::{self, Serialize};

const SEED: u64 = 0x6b61_6c65_6e64_7331;
const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;

/// A hash that grows with every value that is put in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateHasher {
    state: u64,
}

impl Default for StateHasher {
    fn default() -> Self {
        StateHasher { state: SEED }
    }
}

impl StateHasher {
    /// The hash of all that was put in.
    #[must_use]
    pub fn value(&self) -> u64 {
        self.state
    }

    /// Puts a number in.
    pub fn word(&mut self, word: u64) {
        let mixed = self.state.rotate_left(29) ^ word;
        let product = u128::from(mixed) * u128::from(FACTOR);
        let folded = (product as u64) ^ ((product >> 64) as u64);
        self.state = folded.wrapping_add(FACTOR);
    }

    /// Puts bytes in, with their number.
    pub fn bytes(&mut self, bytes: &[u8]) {
        let mut chunks = bytes.chunks_exact(8);
        for chunk in chunks.by_ref() {
            self.word(u64::from_le_bytes(chunk.try_into().expect("eight bytes")));
        }
        let mut last = [0; 8];
        let rest = chunks.remainder();
        last[..rest.len()].copy_from_slice(rest);
        self.word(u64::from_le_bytes(last));
        self.word(bytes.len() as u64);
    }

    /// Puts any plain value in.
    pub fn value_of(&mut self, value: &impl Serialize) {
        value
            .serialize(&mut *self)
            .expect("plain data always serializes");
    }
}

impl ChangeSink for StateHasher {
    fn change<K: Serialize, V: Serialize>(
        &mut self,
        table: &'static str,
        key: &K,
        row: Option<&V>,
    ) {
        self.word(table.len() as u64);
        self.value_of(key);
        match row {
            Some(row) => self.value_of(row),
            None => self.word(0),
        }
    }
}

/// Plain data never fails to serialize; this is what serde wants to hear if it did.
#[derive(Debug)]
pub struct HashError;

impl fmt::Display for HashError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("the value refused to be serialized")
    }
}

impl std::error::Error for HashError {}

impl ser::Error for HashError {
    fn custom<T: fmt::Display>(_: T) -> Self {
        HashError
    }
}

macro_rules! words {
    ($($name:ident $type:ty),*) => {
        $(fn $name(self, value: $type) -> Result<(), HashError> {
            self.word(value as u64);
            Ok(())
        })*
    };
}

impl ser::Serializer for &mut StateHasher {
    type Ok = ();
    type Error = HashError;
    type SerializeSeq = Self;
    type SerializeTuple = Self;
    type SerializeTupleStruct = Self;
    type SerializeTupleVariant = Self;
    type SerializeMap = Self;
    type SerializeStruct = Self;
    type SerializeStructVariant = Self;

    words!(serialize_bool bool, serialize_i8 i8, serialize_i16 i16, serialize_i32 i32, serialize_i64 i64,
        serialize_u8 u8, serialize_u16 u16, serialize_u32 u32, serialize_u64 u64, serialize_char char);

    fn serialize_f32(self, value: f32) -> Result<(), HashError> {
        self.word(u64::from(value.to_bits()));
        Ok(())
    }

    fn serialize_f64(self, value: f64) -> Result<(), HashError> {
        self.word(value.to_bits());
        Ok(())
    }

    fn serialize_str(self, value: &str) -> Result<(), HashError> {
        self.bytes(value.as_bytes());
        Ok(())
    }

    fn serialize_bytes(self, value: &[u8]) -> Result<(), HashError> {
        self.bytes(value);
        Ok(())
    }

    fn serialize_none(self) -> Result<(), HashError> {
        self.word(0);
        Ok(())
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), HashError> {
        self.word(1);
        value.serialize(self)
    }

    fn serialize_unit(self) -> Result<(), HashError> {
        Ok(())
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<(), HashError> {
        Ok(())
    }

    fn serialize_unit_variant(
        self,
        _: &'static str,
        index: u32,
        _: &'static str,
    ) -> Result<(), HashError> {
        self.word(u64::from(index));
        Ok(())
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<(), HashError> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        index: u32,
        _: &'static str,
        value: &T,
    ) -> Result<(), HashError> {
        self.word(u64::from(index));
        value.serialize(self)
    }

    fn serialize_seq(self, length: Option<usize>) -> Result<Self, HashError> {
        self.word(length.map_or(u64::MAX, |length| length as u64));
        Ok(self)
    }

    fn serialize_tuple(self, _: usize) -> Result<Self, HashError> {
        Ok(self)
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Self, HashError> {
        Ok(self)
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        index: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self, HashError> {
        self.word(u64::from(index));
        Ok(self)
    }

    fn serialize_map(self, length: Option<usize>) -> Result<Self, HashError> {
        self.word(length.map_or(u64::MAX, |length| length as u64));
        Ok(self)
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Self, HashError> {
        Ok(self)
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        index: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self, HashError> {
        self.word(u64::from(index));
        Ok(self)
    }
}

macro_rules! parts {
    ($($trait:ident $method:ident),*) => {
        $(impl ser::$trait for &mut StateHasher {
            type Ok = ();
            type Error = HashError;
            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), HashError> {
                value.serialize(&mut **self)
            }
            fn end(self) -> Result<(), HashError> {
                Ok(())
            }
        })*
    };
}

parts!(SerializeSeq serialize_element, SerializeTuple serialize_element, SerializeTupleStruct serialize_field,
    SerializeTupleVariant serialize_field);

macro_rules! fields {
    ($($trait:ident),*) => {
        $(impl ser::$trait for &mut StateHasher {
            type Ok = ();
            type Error = HashError;
            fn serialize_field<T: Serialize + ?Sized>(&mut self, _: &'static str, value: &T) -> Result<(), HashError> {
                value.serialize(&mut **self)
            }
            fn end(self) -> Result<(), HashError> {
                Ok(())
            }
        })*
    };
}

fields!(SerializeStruct, SerializeStructVariant);

impl ser::SerializeMap for &mut StateHasher {
    type Ok = ();
    type Error = HashError;
    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), HashError> {
        key.serialize(&mut **self)
    }
    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), HashError> {
        value.serialize(&mut **self)
    }
    fn end(self) -> Result<(), HashError> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_hashes_differently_and_what_is_equal_does_not() {
        let hash = |value: &dyn Fn(&mut StateHasher)| {
            let mut hasher = StateHasher::default();
            value(&mut hasher);
            hasher.value()
        };
        let text = |text: &'static str| hash(&|hasher| hasher.value_of(&text));
        assert_eq!(text("abcdefgh1"), text("abcdefgh1"));
        assert_ne!(text("abcdefgh1"), text("abcdefgh2"));
        assert_ne!(text(""), text("\0"));
        assert_ne!(
            hash(&|hasher| hasher.value_of(&vec![Some(1), None])),
            hash(&|hasher| hasher.value_of(&vec![None, Some(1)])),
        );
        assert_ne!(
            hash(&|hasher| hasher.value_of(&(vec![1, 2], vec![3]))),
            hash(&|hasher| hasher.value_of(&(vec![1], vec![2, 3]))),
        );
    }
}
