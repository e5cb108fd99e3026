//! A flat JSON object, written field by field.
//!
//! Serde's own map scans each key for what must be escaped, and hands over each piece by itself: three quarters of what a line
//! cost. Names of fields are ours, so they are copied as they are.

use std::fmt::{self, Write as _};

use serde::{
    Serialize, Serializer,
    ser::{Impossible, SerializeMap, SerializeSeq},
};
use serde_json::Error;

/// An object that is being written.
pub struct Object<'a> {
    out: &'a mut Vec<u8>,
    /// What stands in front of the next name.
    before: u8,
    /// Names are those of the code: nothing in them must be escaped.
    ours: bool,
}

impl<'a> Object<'a> {
    /// Begins one at the end of `out`. The names of its fields are copied as they are.
    pub fn begin(out: &'a mut Vec<u8>) -> Self {
        Self {
            out,
            before: b'{',
            ours: true,
        }
    }

    /// Adds a field whose value is text without anything to escape.
    pub fn plain(&mut self, name: &str, value: &[u8]) {
        self.out.reserve(name.len() + value.len() + 6);
        self.out.extend_from_slice(&[self.before, b'"']);
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b"\":\"");
        self.out.extend_from_slice(value);
        self.out.push(b'"');
        self.before = b',';
    }
}

impl SerializeMap for Object<'_> {
    type Ok = ();
    type Error = Error;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), Error> {
        self.out.push(self.before);
        self.before = b',';
        key.serialize(Value {
            out: self.out,
            plain: self.ours,
        })?;
        self.out.push(b':');
        Ok(())
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Error> {
        value.serialize(Value::of(self.out))
    }

    fn end(self) -> Result<(), Error> {
        if self.before == b'{' {
            self.out.push(b'{');
        }
        self.out.push(b'}');
        Ok(())
    }
}

/// Appends a text in quotes, with what must be escaped.
pub fn text(value: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    escaped(value, out);
    out.push(b'"');
}

/// Whether a text can be copied as it is: eight bytes at a look. That it says no of one that could does no harm.
fn is_plain(text: &[u8]) -> bool {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    const HIGH: u64 = ONES << 7;
    let (words, rest) = text.as_chunks::<8>();
    // A byte of a word is less than `n` (<= 128) where this has its high bit.
    let below = |word: u64, n: u64| word.wrapping_sub(ONES * n) & !word & HIGH;
    let special = |bytes: [u8; 8]| {
        let word = u64::from_ne_bytes(bytes);
        below(word, 32) | below(word ^ (ONES * u64::from(b'"')), 1) | below(word ^ (ONES * u64::from(b'\\')), 1)
    };
    let mut last = [b' '; 8];
    last[..rest.len()].copy_from_slice(rest);
    words.iter().fold(special(last), |all, word| all | special(*word)) == 0
}

fn escaped(value: &str, out: &mut Vec<u8>) {
    if is_plain(value.as_bytes()) {
        out.extend_from_slice(value.as_bytes());
        return;
    }
    let mut rest = value;
    while let Some(at) = rest
        .bytes()
        .position(|byte| byte < b' ' || byte == b'"' || byte == b'\\')
    {
        let (plain, from) = rest.split_at(at);
        out.extend_from_slice(plain.as_bytes());
        match from.as_bytes()[0] {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            8 => out.extend_from_slice(b"\\b"),
            12 => out.extend_from_slice(b"\\f"),
            byte => {
                const HEX: &[u8; 16] = b"0123456789abcdef";
                let digits = [HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]];
                out.extend_from_slice(b"\\u00");
                out.extend_from_slice(&digits);
            }
        }
        rest = &from[1..];
    }
    out.extend_from_slice(rest.as_bytes());
}

/// What is formatted into a text that is escaped on its way.
struct Escaping<'a>(&'a mut Vec<u8>);

impl fmt::Write for Escaping<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        escaped(text, self.0);
        Ok(())
    }
}

/// What no line holds.
fn no<T>() -> Result<T, Error> {
    Err(serde::ser::Error::custom(
        "a line holds numbers, texts, objects and lists",
    ))
}

/// Takes the value of a field, or of a list.
struct Value<'a> {
    out: &'a mut Vec<u8>,
    /// A text has nothing to escape.
    plain: bool,
}

impl<'a> Value<'a> {
    fn of(out: &'a mut Vec<u8>) -> Self {
        Self { out, plain: false }
    }
}

macro_rules! numbers {
    ($($method:ident: $ty:ty,)*) => {
        $(fn $method(self, value: $ty) -> Result<(), Error> {
            self.out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
            Ok(())
        })*
    };
}

impl<'a> Serializer for Value<'a> {
    type Ok = ();
    type Error = Error;
    type SerializeSeq = List<'a>;
    type SerializeTuple = Impossible<(), Error>;
    type SerializeTupleStruct = Impossible<(), Error>;
    type SerializeTupleVariant = Impossible<(), Error>;
    type SerializeMap = Object<'a>;
    type SerializeStruct = Impossible<(), Error>;
    type SerializeStructVariant = Impossible<(), Error>;

    numbers! {
        serialize_i8: i8,
        serialize_i16: i16,
        serialize_i32: i32,
        serialize_i64: i64,
        serialize_u8: u8,
        serialize_u16: u16,
        serialize_u32: u32,
        serialize_u64: u64,
    }

    fn serialize_bool(self, value: bool) -> Result<(), Error> {
        self.out.extend_from_slice(if value { b"true" } else { b"false" });
        Ok(())
    }

    fn serialize_f32(self, value: f32) -> Result<(), Error> {
        serde_json::Serializer::new(self.out).serialize_f32(value)
    }

    fn serialize_f64(self, value: f64) -> Result<(), Error> {
        serde_json::Serializer::new(self.out).serialize_f64(value)
    }

    fn serialize_char(self, value: char) -> Result<(), Error> {
        text(value.encode_utf8(&mut [0; 4]), self.out);
        Ok(())
    }

    #[inline]
    fn serialize_str(self, value: &str) -> Result<(), Error> {
        if self.plain {
            self.out.reserve(value.len() + 3);
            self.out.push(b'"');
            self.out.extend_from_slice(value.as_bytes());
            self.out.push(b'"');
        } else {
            text(value, self.out);
        }
        Ok(())
    }

    fn collect_str<T: fmt::Display + ?Sized>(self, value: &T) -> Result<(), Error> {
        self.out.push(b'"');
        write!(Escaping(self.out), "{value}").map_err(serde::ser::Error::custom)?;
        self.out.push(b'"');
        Ok(())
    }

    fn serialize_none(self) -> Result<(), Error> {
        self.serialize_unit()
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), Error> {
        value.serialize(self)
    }

    fn serialize_unit(self) -> Result<(), Error> {
        self.out.extend_from_slice(b"null");
        Ok(())
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, value: &T) -> Result<(), Error> {
        value.serialize(self)
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<List<'a>, Error> {
        self.out.push(b'[');
        Ok(List {
            out: self.out,
            first: true,
        })
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Object<'a>, Error> {
        Ok(Object {
            out: self.out,
            before: b'{',
            ours: false,
        })
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, name: &'static str) -> Result<(), Error> {
        self.serialize_str(name)
    }

    fn serialize_bytes(self, _: &[u8]) -> Result<(), Error> {
        no()
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<(), Error> {
        no()
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: &T,
    ) -> Result<(), Error> {
        no()
    }

    fn serialize_tuple(self, _: usize) -> Result<Impossible<(), Error>, Error> {
        no()
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Impossible<(), Error>, Error> {
        no()
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Impossible<(), Error>, Error> {
        no()
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Impossible<(), Error>, Error> {
        no()
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Impossible<(), Error>, Error> {
        no()
    }
}

/// A list that is being written.
struct List<'a> {
    out: &'a mut Vec<u8>,
    first: bool,
}

impl SerializeSeq for List<'_> {
    type Ok = ();
    type Error = Error;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Error> {
        if !std::mem::take(&mut self.first) {
            self.out.push(b',');
        }
        value.serialize(Value::of(self.out))
    }

    fn end(self) -> Result<(), Error> {
        self.out.push(b']');
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde::{Serialize, Serializer, ser::SerializeMap};

    use super::Object;

    struct Inner(Vec<u32>);

    impl Serialize for Inner {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            let mut map = serializer.serialize_map(None)?;
            map.serialize_entry("list", &self.0)?;
            map.serialize_entry("none", &None::<u8>)?;
            map.end()
        }
    }

    fn all<M: SerializeMap>(map: &mut M) -> Result<(), M::Error> {
        map.serialize_entry("u", &u64::MAX)?;
        map.serialize_entry("i", &i32::MIN)?;
        map.serialize_entry("b", &true)?;
        map.serialize_entry("f", &1.5)?;
        map.serialize_entry("ip", &std::net::Ipv6Addr::LOCALHOST)?;
        map.serialize_entry("s", "q\" b\\ n\n r\r t\t \u{1}\u{8}\u{c}\u{1f}\u{7f} größe \u{202e}")?;
        map.serialize_entry("shown", &format_args!("{}\"{}", 1, 2))?;
        map.serialize_entry("inner", &Inner(vec![1, 2, 3]))?;
        map.serialize_entry("empty", &std::collections::BTreeMap::<String, u8>::new())
    }

    #[test]
    fn it_is_what_serde_json_writes() {
        let mut ours = Vec::new();
        let mut map = Object::begin(&mut ours);
        all(&mut map).expect("it serializes");
        map.end().expect("it ends");

        let mut theirs = Vec::new();
        let mut serializer = serde_json::Serializer::new(&mut theirs);
        let mut map = serializer.serialize_map(None).expect("a map");
        all(&mut map).expect("it serializes");
        map.end().expect("it ends");
        assert_eq!(String::from_utf8_lossy(&ours), String::from_utf8_lossy(&theirs));
    }
}
