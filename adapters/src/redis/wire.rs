//! What goes between this process and a script: MessagePack, which Redis' Lua reads and writes natively.
//!
//! A script gets its arguments in one text and gives one back, so that a thousand jobs cost one argument and not four
//! thousand. In both, values stand one after another: a list around them, or around a few of them, would be a table of
//! Lua that grows value by value, which costs more than the values. `false` stands for "none", because a list of Lua
//! cannot hold a hole. Numbers are exact up to 2^53 (Lua knows only doubles). Texts are bytes: what Redis says is checked
//! where it is read.

use kalends_core::time::Timestamp;
use rmp::Marker;
use rmp::decode::RmpRead as _;
use rmp::encode as write;

/// Lists within lists that an answer may have.
const DEPTH_MAX: u32 = 8;

/// Writes arguments.
#[derive(Debug, Default)]
pub(super) struct Writer(Vec<u8>);

impl Writer {
    pub(super) fn list(&mut self, length: usize) -> &mut Self {
        let length = u32::try_from(length).expect("batches are bounded");
        write::write_array_len(&mut self.0, length).expect(MEMORY);
        self
    }

    pub(super) fn text(&mut self, text: &str) -> &mut Self {
        write::write_str(&mut self.0, text).expect(MEMORY);
        self
    }

    pub(super) fn maybe_text(&mut self, text: Option<&str>) -> &mut Self {
        match text {
            Some(text) => self.text(text),
            None => self.none(),
        }
    }

    pub(super) fn number(&mut self, number: u64) -> &mut Self {
        write::write_uint(&mut self.0, number).expect(MEMORY);
        self
    }

    pub(super) fn time(&mut self, at: Timestamp) -> &mut Self {
        write::write_sint(&mut self.0, at.as_ms()).expect(MEMORY);
        self
    }

    pub(super) fn maybe_time(&mut self, at: Option<Timestamp>) -> &mut Self {
        match at {
            Some(at) => self.time(at),
            None => self.none(),
        }
    }

    pub(super) fn flag(&mut self, flag: bool) -> &mut Self {
        write::write_bool(&mut self.0, flag).expect(MEMORY);
        self
    }

    pub(super) fn none(&mut self) -> &mut Self {
        self.flag(false)
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

const MEMORY: &str = "writing to memory does not fail";

/// What cannot be read was not written by the scripts of this version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Unreadable(pub(super) &'static str);

/// What a script gave back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    None,
    True,
    Number(i64),
    Text(Vec<u8>),
    List(Vec<Value>),
}

impl Value {
    /// Reads all values that there are.
    ///
    /// # Errors
    /// If the bytes are not whole values.
    pub(super) fn read_all(mut bytes: &[u8]) -> Result<Vec<Value>, Unreadable> {
        let mut values = Vec::new();
        while !bytes.is_empty() {
            values.push(read_value(&mut bytes, DEPTH_MAX)?);
        }
        Ok(values)
    }

    pub(super) fn list(self) -> Result<Vec<Value>, Unreadable> {
        match self {
            Value::List(values) => Ok(values),
            _ => Err(Unreadable("a list was expected")),
        }
    }

    /// A list of exactly `N` values.
    pub(super) fn fields<const N: usize>(self) -> Result<[Value; N], Unreadable> {
        let values = self.list()?;
        <[Value; N]>::try_from(values).map_err(|_| Unreadable("a list has another length"))
    }

    pub(super) fn number<T: TryFrom<i64>>(&self) -> Result<T, Unreadable> {
        match self {
            Value::Number(number) => {
                T::try_from(*number).map_err(|_| Unreadable("a number is out of range"))
            }
            _ => Err(Unreadable("a number was expected")),
        }
    }

    pub(super) fn time(&self) -> Result<Timestamp, Unreadable> {
        self.number().map(Timestamp::from_ms)
    }

    pub(super) fn maybe<T>(
        self,
        read: impl FnOnce(Value) -> Result<T, Unreadable>,
    ) -> Result<Option<T>, Unreadable> {
        match self {
            Value::None => Ok(None),
            value => read(value).map(Some),
        }
    }

    pub(super) fn maybe_time(&self) -> Result<Option<Timestamp>, Unreadable> {
        match self {
            Value::None => Ok(None),
            value => value.time().map(Some),
        }
    }

    pub(super) fn text(self) -> Result<String, Unreadable> {
        match self {
            Value::Text(bytes) => {
                String::from_utf8(bytes).map_err(|_| Unreadable("a text is not UTF-8"))
            }
            _ => Err(Unreadable("a text was expected")),
        }
    }

    pub(super) fn name<T: TryFrom<String>>(self) -> Result<T, Unreadable> {
        T::try_from(self.text()?).map_err(|_| Unreadable("a name is none"))
    }

    pub(super) fn flag(&self) -> Result<bool, Unreadable> {
        match self {
            Value::None => Ok(false),
            Value::True => Ok(true),
            _ => Err(Unreadable("yes or no was expected")),
        }
    }
}

fn read_value(bytes: &mut &[u8], depth: u32) -> Result<Value, Unreadable> {
    const CUT: &str = "the answer is cut off";
    let cut = |_| Unreadable(CUT);
    let marker = rmp::decode::read_marker(bytes).map_err(|_| Unreadable(CUT))?;
    let number = |number: i64| Ok(Value::Number(number));
    let length = match marker {
        Marker::Null | Marker::False => return Ok(Value::None),
        Marker::True => return Ok(Value::True),
        Marker::FixPos(value) => return number(i64::from(value)),
        Marker::FixNeg(value) => return number(i64::from(value)),
        Marker::U8 => return number(i64::from(bytes.read_data_u8().map_err(cut)?)),
        Marker::U16 => return number(i64::from(bytes.read_data_u16().map_err(cut)?)),
        Marker::U32 => return number(i64::from(bytes.read_data_u32().map_err(cut)?)),
        Marker::U64 => {
            let value = bytes.read_data_u64().map_err(cut)?;
            return i64::try_from(value)
                .map(Value::Number)
                .map_err(|_| Unreadable("a number is out of range"));
        }
        Marker::I8 => return number(i64::from(bytes.read_data_i8().map_err(cut)?)),
        Marker::I16 => return number(i64::from(bytes.read_data_i16().map_err(cut)?)),
        Marker::I32 => return number(i64::from(bytes.read_data_i32().map_err(cut)?)),
        Marker::I64 => return number(bytes.read_data_i64().map_err(cut)?),
        Marker::FixStr(length) | Marker::FixArray(length) => u32::from(length),
        Marker::Str8 | Marker::Bin8 => u32::from(bytes.read_data_u8().map_err(cut)?),
        Marker::Str16 | Marker::Bin16 | Marker::Array16 => {
            u32::from(bytes.read_data_u16().map_err(cut)?)
        }
        Marker::Str32 | Marker::Bin32 | Marker::Array32 => bytes.read_data_u32().map_err(cut)?,
        _ => return Err(Unreadable("a kind of value that no script gives")),
    };
    let length = usize::try_from(length).map_err(|_| Unreadable("a length is out of range"))?;
    if matches!(
        marker,
        Marker::FixArray(_) | Marker::Array16 | Marker::Array32
    ) {
        // Each value takes a byte at least: a length that lies takes no memory.
        if depth == 0 || length > bytes.len() {
            return Err(Unreadable(CUT));
        }
        let values = (0..length).map(|_| read_value(bytes, depth - 1));
        return values.collect::<Result<_, _>>().map(Value::List);
    }
    let (text, rest) = bytes.split_at_checked(length).ok_or(Unreadable(CUT))?;
    *bytes = rest;
    Ok(Value::Text(text.to_vec()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let mut writer = Writer::default();
        writer.text("ada").maybe_text(None).number(1 << 52);
        writer.time(Timestamp::from_ms(-5)).maybe_time(None);
        writer.flag(true).list(0);
        let [name, none, number, time, no_time, yes, empty] =
            <[Value; 7]>::try_from(Value::read_all(writer.bytes()).unwrap()).unwrap();
        assert_eq!(name.text().unwrap(), "ada");
        assert_eq!(none, Value::None);
        assert_eq!(number.number::<u64>(), Ok(1 << 52));
        assert_eq!(time.time(), Ok(Timestamp::from_ms(-5)));
        assert_eq!(no_time.maybe_time(), Ok(None));
        assert_eq!(yes.flag(), Ok(true));
        assert_eq!(empty.list(), Ok(Vec::new()));
    }

    proptest! {
        #[test]
        fn whatever_comes_is_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Value::read_all(&bytes);
        }
    }
}
