//! Reading JSON that others write: the fields that are known, and no quarrel about the rest.
//!
//! The problem: serde's derived readers refuse a repeated key and a `null` where no `Option` stands, and their errors
//! quote the value that they refuse, which may be somebody's private text. The idea: one macro that writes a reader from
//! a list of fields, with these rules:
//!
//! - an unknown key is passed over without looking at its value, however deep;
//! - `null` is the same as a missing key;
//! - of a repeated key the last one counts;
//! - a known field of a wrong type is an error that names the field and what it must be, and never quotes the value.

use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::{Deserializer, Error, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// The longest list inside one item that is read (attendees, recurrence lines), in elements. Google's own limits stay
/// far below it; a longer list is an item that nobody can use.
pub(super) const LIST_LENGTH_MAX: usize = 10_000;

/// The longest reason that is given for an unreadable item, in characters.
const REASON_CHARS_MAX: usize = 200;

/// How a field that may be `null` is read.
pub(super) trait Lenient<'de>: Sized {
    /// What stands in the JSON.
    type Wire: Deserialize<'de>;
    /// The field's value.
    fn from_wire(wire: Self::Wire) -> Self;
}

impl<'de, T: Deserialize<'de>> Lenient<'de> for Option<T> {
    type Wire = Option<T>;
    fn from_wire(wire: Option<T>) -> Self {
        wire
    }
}

impl<'de> Lenient<'de> for bool {
    type Wire = Option<bool>;
    fn from_wire(wire: Option<bool>) -> Self {
        wire.unwrap_or(false)
    }
}

impl<'de, T: Deserialize<'de>> Lenient<'de> for Vec<T> {
    type Wire = Option<List<T, LIST_LENGTH_MAX>>;
    fn from_wire(wire: Option<List<T, LIST_LENGTH_MAX>>) -> Self {
        wire.map(|list| list.0).unwrap_or_default()
    }
}

/// A list of at most `MAX` elements, of which those that are `null` are left out.
pub(super) struct List<T, const MAX: usize>(pub(super) Vec<T>);

impl<'de, T: Deserialize<'de>, const MAX: usize> Deserialize<'de> for List<T, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ListVisitor<T, const MAX: usize>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>, const MAX: usize> Visitor<'de> for ListVisitor<T, MAX> {
            type Value = List<T, MAX>;

            fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str("a list")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                let mut list = Vec::new();
                let mut count = 0_usize;
                while let Some(element) = seq.next_element::<Option<T>>()? {
                    count += 1;
                    if count > MAX {
                        return Err(A::Error::custom(format_args!(
                            "has more than {MAX} elements"
                        )));
                    }
                    list.extend(element);
                }
                Ok(List(list))
            }
        }

        deserializer.deserialize_seq(ListVisitor(PhantomData))
    }
}

/// The value of a field that is good to have: the text, or nothing if it is missing or not text.
pub(super) fn text_or_nothing(raw: Option<&RawValue>) -> Option<String> {
    serde_json::from_str(raw?.get()).ok()
}

/// The value of a switch that is good to have: false if it is missing or not a boolean.
pub(super) fn flag_or_false(raw: Option<&RawValue>) -> bool {
    raw.is_some_and(|raw| raw.get() == "true")
}

/// Puts the field's name before an error, and the refused value out of it.
pub(super) fn naming<E: Error>(field: &str, error: &E) -> E {
    E::custom(format_args!(
        "{field}: {}",
        without_value(&error.to_string())
    ))
}

/// The reason in an error of a reader: without the refused value and the position, cut to [`REASON_CHARS_MAX`].
pub(super) fn reason(error: &serde_json::Error) -> String {
    let text = without_value(&error.to_string());
    text.chars().take(REASON_CHARS_MAX).collect()
}

fn without_value(text: &str) -> String {
    // serde_json ends every message with the place; serde's own refusals read "invalid type: <value>, expected <ours>",
    // and <ours> never holds a comma, so the last ", expected " is not part of the value.
    let text = match text.rsplit_once(" at line ") {
        Some((text, _)) => text,
        None => text,
    };
    let refusal = text.starts_with("invalid type: ") || text.starts_with("invalid value: ");
    match text.rsplit_once(", expected ") {
        Some((_, expected)) if refusal => format!("must be {expected}"),
        _ => text.to_owned(),
    }
}

/// Writes a reader for a struct from its fields and their keys in the JSON.
macro_rules! lenient {
    ($life:lifetime, $type:ty { $($key:literal => $field:ident),+ $(,)? }) => {
        impl<$life> serde::Deserialize<$life> for $type {
            fn deserialize<D: serde::Deserializer<$life>>(deserializer: D) -> Result<Self, D::Error> {
                #[derive(serde::Deserialize)]
                #[serde(field_identifier)]
                #[allow(non_camel_case_types)] // named like the fields, so that one list serves both
                enum Key {
                    $(#[serde(rename = $key)] $field,)+
                    #[serde(other)]
                    Unknown,
                }

                struct FieldsVisitor;

                impl<$life> serde::de::Visitor<$life> for FieldsVisitor {
                    type Value = $type;

                    fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                        formatter.write_str("an object")
                    }

                    fn visit_map<A: serde::de::MapAccess<$life>>(self, mut map: A) -> Result<$type, A::Error> {
                        let mut value = <$type>::default();
                        while let Some(key) = map.next_key::<Key>()? {
                            match key {
                                $(Key::$field => {
                                    value.$field = $crate::google::lenient::Lenient::from_wire(
                                        map.next_value()
                                            .map_err(|error| $crate::google::lenient::naming($key, &error))?,
                                    );
                                })+
                                Key::Unknown => {
                                    map.next_value::<serde::de::IgnoredAny>()?;
                                }
                            }
                        }
                        Ok(value)
                    }
                }

                deserializer.deserialize_map(FieldsVisitor)
            }
        }
    };
}

pub(super) use lenient;
