//! D-Bus values: their types, their bytes on the wire, and back.
//!
//! As much of the D-Bus specification's "Message Protocol" as systemd's manager interface uses, and
//! no more: no dictionaries, no file descriptors. It opens no connection.

/// A value with its type.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// `y`
    Byte(u8),
    /// `b`
    Bool(bool),
    /// `n`
    I16(i16),
    /// `q`
    U16(u16),
    /// `i`
    I32(i32),
    /// `u`
    U32(u32),
    /// `x`
    I64(i64),
    /// `t`
    U64(u64),
    /// `d`
    F64(f64),
    /// `s`
    Str(String),
    /// `o`
    Path(String),
    /// `g`
    Signature(String),
    /// `a` of values with this signature
    Array(String, Vec<Value>),
    /// `(…)`
    Struct(Vec<Value>),
    /// `v`
    Variant(Box<Value>),
}

impl Value {
    /// A text.
    pub fn str(text: impl Into<String>) -> Value {
        Value::Str(text.into())
    }

    /// The type as a signature.
    pub fn signature(&self) -> String {
        match self {
            Value::Byte(_) => "y".into(),
            Value::Bool(_) => "b".into(),
            Value::I16(_) => "n".into(),
            Value::U16(_) => "q".into(),
            Value::I32(_) => "i".into(),
            Value::U32(_) => "u".into(),
            Value::I64(_) => "x".into(),
            Value::U64(_) => "t".into(),
            Value::F64(_) => "d".into(),
            Value::Str(_) => "s".into(),
            Value::Path(_) => "o".into(),
            Value::Signature(_) => "g".into(),
            Value::Array(of, _) => format!("a{of}"),
            Value::Struct(fields) => format!("({})", fields.iter().map(Value::signature).collect::<String>()),
            Value::Variant(_) => "v".into(),
        }
    }

    /// The text of a text, an object path or a variant of these.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Value::Str(text) | Value::Path(text) | Value::Signature(text) => Some(text),
            Value::Variant(inner) => inner.as_str(),
            _ => None,
        }
    }

    /// Appends the bytes to a message that begins at `out[0]`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut plain = |bytes: &[u8]| {
            pad(out, bytes.len());
            out.extend_from_slice(bytes);
        };
        match self {
            Value::Byte(v) => plain(&[*v]),
            Value::Bool(v) => plain(&u32::from(*v).to_ne_bytes()),
            Value::I16(v) => plain(&v.to_ne_bytes()),
            Value::U16(v) => plain(&v.to_ne_bytes()),
            Value::I32(v) => plain(&v.to_ne_bytes()),
            Value::U32(v) => plain(&v.to_ne_bytes()),
            Value::I64(v) => plain(&v.to_ne_bytes()),
            Value::U64(v) => plain(&v.to_ne_bytes()),
            Value::F64(v) => plain(&v.to_ne_bytes()),
            Value::Str(text) | Value::Path(text) => {
                plain(&(text.len() as u32).to_ne_bytes());
                out.extend_from_slice(text.as_bytes());
                out.push(0);
            }
            Value::Signature(text) => {
                out.push(text.len() as u8);
                out.extend_from_slice(text.as_bytes());
                out.push(0);
            }
            Value::Array(of, items) => {
                plain(&[0; 4]);
                let length_at = out.len() - 4;
                // The padding before the first item does not count, and is there without items too.
                pad(out, alignment(of.as_bytes().first().copied().unwrap_or(b'y')));
                let begin = out.len();
                items.iter().for_each(|item| item.encode(out));
                let length = (out.len() - begin) as u32;
                out[length_at..length_at + 4].copy_from_slice(&length.to_ne_bytes());
            }
            Value::Struct(fields) => {
                pad(out, 8);
                fields.iter().for_each(|field| field.encode(out));
            }
            Value::Variant(inner) => {
                Value::Signature(inner.signature()).encode(out);
                inner.encode(out);
            }
        }
    }
}

pub(super) fn pad(out: &mut Vec<u8>, to: usize) {
    out.resize(out.len().next_multiple_of(to), 0);
}

fn alignment(code: u8) -> usize {
    match code {
        b'n' | b'q' => 2,
        b'b' | b'i' | b'u' | b'a' | b's' | b'o' => 4,
        b'x' | b't' | b'd' | b'(' => 8,
        _ => 1,
    }
}

/// Reads values from the bytes of a message. Every read is checked: `None` is a malformed message.
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    little: bool,
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8], at: usize, little: bool) -> Reader<'a> {
        Reader { bytes, at, little }
    }

    /// One value for each complete type in `signature`.
    pub(super) fn all(&mut self, signature: &str) -> Option<Vec<Value>> {
        let mut left = signature.as_bytes();
        let mut values = Vec::new();
        while !left.is_empty() {
            let (one, rest) = left.split_at(type_length(left, 0)?);
            values.push(self.one(one, 0)?);
            left = rest;
        }
        Some(values)
    }

    fn align(&mut self, to: usize) {
        self.at = self.at.next_multiple_of(to);
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let bytes = self.bytes.get(self.at..self.at.checked_add(length)?)?;
        self.at += length;
        Some(bytes)
    }

    fn number<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.align(N);
        let mut bytes: [u8; N] = self.take(N)?.try_into().ok()?;
        if self.little != cfg!(target_endian = "little") {
            bytes.reverse();
        }
        Some(bytes)
    }

    fn text(&mut self, length: usize) -> Option<String> {
        let text = std::str::from_utf8(self.take(length)?).ok()?.to_owned();
        (self.take(1)? == [0]).then_some(text)
    }

    fn one(&mut self, kind: &[u8], depth: usize) -> Option<Value> {
        if depth > 16 {
            return None;
        }
        Some(match *kind.first()? {
            b'y' => Value::Byte(self.take(1)?[0]),
            b'b' => Value::Bool(u32::from_ne_bytes(self.number()?) != 0),
            b'n' => Value::I16(i16::from_ne_bytes(self.number()?)),
            b'q' => Value::U16(u16::from_ne_bytes(self.number()?)),
            b'i' => Value::I32(i32::from_ne_bytes(self.number()?)),
            b'u' => Value::U32(u32::from_ne_bytes(self.number()?)),
            b'x' => Value::I64(i64::from_ne_bytes(self.number()?)),
            b't' => Value::U64(u64::from_ne_bytes(self.number()?)),
            b'd' => Value::F64(f64::from_ne_bytes(self.number()?)),
            code @ (b's' | b'o') => {
                let length = u32::from_ne_bytes(self.number()?);
                let text = self.text(length as usize)?;
                if code == b's' { Value::Str(text) } else { Value::Path(text) }
            }
            b'g' => {
                let length = self.take(1)?[0];
                Value::Signature(self.text(length as usize)?)
            }
            b'v' => {
                let length = self.take(1)?[0];
                let inner = self.text(length as usize)?;
                if type_length(inner.as_bytes(), 0)? != inner.len() {
                    return None;
                }
                Value::Variant(Box::new(self.one(inner.as_bytes(), depth + 1)?))
            }
            b'a' => {
                let of = &kind[1..];
                let length = u32::from_ne_bytes(self.number()?) as usize;
                self.align(alignment(*of.first()?));
                let end = self.at.checked_add(length).filter(|end| *end <= self.bytes.len())?;
                let mut items = Vec::new();
                while self.at < end {
                    items.push(self.one(of, depth + 1)?);
                }
                Value::Array(String::from_utf8(of.to_vec()).ok()?, items)
            }
            b'(' => {
                self.align(8);
                let mut left = kind.get(1..kind.len() - 1)?;
                let mut fields = Vec::new();
                while !left.is_empty() {
                    let (one, rest) = left.split_at(type_length(left, 0)?);
                    fields.push(self.one(one, depth + 1)?);
                    left = rest;
                }
                Value::Struct(fields)
            }
            _ => return None,
        })
    }
}

/// The length of the first complete type in a signature.
pub(super) fn type_length(signature: &[u8], depth: usize) -> Option<usize> {
    if depth > 16 {
        return None;
    }
    match signature.first()? {
        b'y' | b'b' | b'n' | b'q' | b'i' | b'u' | b'x' | b't' | b'd' | b's' | b'o' | b'g' | b'v' => Some(1),
        b'a' => Some(1 + type_length(&signature[1..], depth + 1)?),
        b'(' => {
            let mut at = 1;
            while *signature.get(at)? != b')' {
                at += type_length(&signature[at..], depth + 1)?;
            }
            (at > 1).then_some(at + 1)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_survive_the_wire() {
        let values = [
            Value::Byte(7),
            Value::U64(u64::MAX),
            Value::Bool(true),
            Value::str("a\u{e4}"),
            Value::Array("(ss)".into(), vec![]),
            Value::Array(
                "(sv)".into(),
                vec![Value::Struct(vec![
                    Value::str("PIDs"),
                    Value::Variant(Box::new(Value::Array("u".into(), vec![Value::U32(1), Value::U32(2)]))),
                ])],
            ),
            Value::Variant(Box::new(Value::Struct(vec![
                Value::I16(-1),
                Value::F64(0.5),
                Value::Path("/a".into()),
            ]))),
            Value::Array("as".into(), vec![Value::Array("s".into(), vec![Value::str("x")])]),
        ];
        let signature: String = values.iter().map(Value::signature).collect();
        assert_eq!(signature, "ytbsa(ss)a(sv)vaas");
        let mut bytes = Vec::new();
        values.iter().for_each(|value| value.encode(&mut bytes));
        let little = cfg!(target_endian = "little");
        assert_eq!(Reader::new(&bytes, 0, little).all(&signature).unwrap(), values);
        // Cut off anywhere, it is malformed, and never a panic.
        for length in 0..bytes.len() {
            assert_eq!(Reader::new(&bytes[..length], 0, little).all(&signature), None);
        }
    }

    #[test]
    fn bytes_are_those_of_the_specification() {
        let mut bytes = Vec::new();
        Value::str("foo").encode(&mut bytes);
        Value::str("+").encode(&mut bytes);
        Value::str("bar").encode(&mut bytes);
        // The example in "Marshalling (Wire Format)", written there in little-endian order.
        let wanted = b"\x03\0\0\0foo\0\x01\0\0\0+\0\0\0\x03\0\0\0bar\0";
        if cfg!(target_endian = "little") {
            assert_eq!(bytes, wanted);
        }
        let values = Reader::new(wanted, 0, true).all("sss").unwrap();
        assert_eq!(values[2], Value::str("bar"));
    }

    #[test]
    fn signatures_are_checked() {
        for (signature, length) in
            [("as", Some(2)), ("a(sv)u", Some(5)), ("(", None), ("()", None), ("a", None)]
        {
            assert_eq!(type_length(signature.as_bytes(), 0), length, "{signature}");
        }
        assert_eq!(type_length("a".repeat(40).as_bytes(), 0), None);
    }
}
