//! `org.systemd.property.*` annotations: names, and values in GVariant's text format.
//!
//! Pure; what a property means is systemd's business.

use super::value::{Value, type_length};
use crate::error::{Error, Result};
use crate::spec::StringMap;

const PREFIX: &str = "org.systemd.property.";

/// The unit properties that the annotations ask for, in the order of their names.
pub fn properties(annotations: &StringMap) -> Result<Vec<(String, Value)>> {
    let mut found = Vec::new();
    for (key, text) in annotations {
        let Some(name) = key.strip_prefix(PREFIX) else { continue };
        let wrong = |why: &str| {
            Error::invalid(format!("annotation {key}={text}: {why}")).hint(
                "the value is GVariant text: true, 5, uint64 5, 'text', ['a', 'b']; the name is of the D-Bus property",
            )
        };
        if name.len() < 3 || !name.bytes().all(|byte| byte.is_ascii_alphabetic()) {
            return Err(wrong("not the name of a property"));
        }
        let value = parse(text).ok_or_else(|| wrong("not a value"))?;
        // Documented as TimeoutStopSec and the like, while D-Bus knows only microseconds.
        match name.strip_suffix("Sec").filter(|stem| stem.ends_with(|c: char| c.is_ascii_lowercase())) {
            Some(stem) => {
                let microseconds = microseconds(&value).ok_or_else(|| wrong("not a number of seconds"))?;
                found.push((format!("{stem}USec"), Value::U64(microseconds)));
            }
            None => found.push((name.to_owned(), value)),
        }
    }
    Ok(found)
}

fn microseconds(value: &Value) -> Option<u64> {
    let whole = |seconds: u64| seconds.checked_mul(1_000_000);
    match *value {
        Value::Byte(v) => whole(v.into()),
        Value::U16(v) => whole(v.into()),
        Value::U32(v) => whole(v.into()),
        Value::U64(v) => whole(v),
        Value::I16(v) => whole(v.try_into().ok()?),
        Value::I32(v) => whole(v.try_into().ok()?),
        Value::I64(v) => whole(v.try_into().ok()?),
        Value::F64(v) if (0.0..1e12).contains(&v) => Some((v * 1e6) as u64),
        _ => None,
    }
}

/// The longest signature of D-Bus, whose length is one byte.
const LONGEST: usize = 255;

/// Reads one value in GVariant's text format.
pub fn parse(text: &str) -> Option<Value> {
    let mut parser = Parser { left: text };
    let value = parser.value(None, 0)?;
    parser.skip_space();
    parser.left.is_empty().then_some(value)
}

struct Parser<'a> {
    left: &'a str,
}

impl<'a> Parser<'a> {
    fn skip_space(&mut self) {
        self.left = self.left.trim_start();
    }

    fn eat(&mut self, wanted: char) -> bool {
        self.skip_space();
        let rest = self.left.strip_prefix(wanted);
        self.left = rest.unwrap_or(self.left);
        rest.is_some()
    }

    fn word(&mut self, legal: impl Fn(char) -> bool) -> &'a str {
        self.skip_space();
        let (word, rest) = self.left.split_at(self.left.find(|c| !legal(c)).unwrap_or(self.left.len()));
        self.left = rest;
        word
    }

    /// A value of type `wanted`, or of the type that its text suggests.
    fn value(&mut self, wanted: Option<&str>, depth: usize) -> Option<Value> {
        let value = if depth > 16 { None } else { self.any(wanted, depth) }?;
        // A bus ends the connection over a value that is not of its array's type, or too long a type.
        let signature = value.signature();
        (signature.len() <= LONGEST && wanted.is_none_or(|wanted| wanted == signature)).then_some(value)
    }

    /// A value whose own type, where its text says one, may differ from `wanted`.
    fn any(&mut self, wanted: Option<&str>, depth: usize) -> Option<Value> {
        self.skip_space();
        match self.left.chars().next()? {
            '@' => {
                self.eat('@');
                let bytes = self.left.as_bytes();
                let (signature, rest) = self.left.split_at_checked(type_length(bytes, 0)?)?;
                self.left = rest;
                self.value(Some(signature), depth + 1)
            }
            '\'' | '"' => {
                let text = self.quoted()?;
                Some(match wanted {
                    None | Some("s") => Value::Str(text),
                    Some("o") if is_path(&text) => Value::Path(text),
                    Some("g") if is_signature(&text) => Value::Signature(text),
                    Some("v") => Value::Variant(Box::new(Value::Str(text))),
                    _ => return None,
                })
            }
            '[' => self.array(wanted, depth),
            '(' => self.tuple(wanted, depth),
            '<' => {
                self.eat('<');
                let inner = self.value(None, depth + 1)?;
                self.eat('>').then_some(Value::Variant(Box::new(inner)))
            }
            c if c.is_ascii_digit() || c == '-' || c == '+' => {
                number(self.word(|c| c.is_ascii_alphanumeric() || "+-.".contains(c)), wanted)
            }
            _ => self.keyword(wanted, depth),
        }
    }

    fn keyword(&mut self, wanted: Option<&str>, depth: usize) -> Option<Value> {
        let signature = match self.word(|c| c.is_ascii_alphanumeric()) {
            word @ ("true" | "false") => {
                return matches!(wanted, None | Some("b")).then_some(Value::Bool(word == "true"));
            }
            "boolean" => "b",
            "byte" => "y",
            "int16" => "n",
            "uint16" => "q",
            "int32" => "i",
            "uint32" => "u",
            "int64" => "x",
            "uint64" => "t",
            "double" => "d",
            "string" => "s",
            "objectpath" => "o",
            "signature" => "g",
            _ => return None,
        };
        if wanted.is_some_and(|wanted| wanted != signature) {
            return None;
        }
        self.value(Some(signature), depth + 1)
    }

    fn array(&mut self, wanted: Option<&str>, depth: usize) -> Option<Value> {
        self.eat('[');
        let mut of = match wanted {
            None => None,
            Some(wanted) => Some(wanted.strip_prefix('a')?.to_owned()),
        };
        let mut items = Vec::new();
        while !self.eat(']') {
            if !items.is_empty() && !self.eat(',') {
                return None;
            }
            let item = self.value(of.as_deref(), depth + 1)?;
            of.get_or_insert_with(|| item.signature());
            items.push(item);
        }
        // An empty array tells no type: it needs one before it, as in @as [].
        Some(Value::Array(of?, items))
    }

    fn tuple(&mut self, wanted: Option<&str>, depth: usize) -> Option<Value> {
        self.eat('(');
        let mut types = match wanted {
            None => None,
            Some(wanted) => Some(wanted.strip_prefix('(')?.strip_suffix(')')?),
        };
        let mut fields = Vec::new();
        while !self.eat(')') {
            let wanted = match &mut types {
                None => None,
                Some(left) => {
                    let (one, rest) = left.split_at_checked(type_length(left.as_bytes(), 0)?)?;
                    *left = rest;
                    Some(one)
                }
            };
            fields.push(self.value(wanted, depth + 1)?);
            // One field is written with a comma after it.
            if !self.eat(',') && !self.left.trim_start().starts_with(')') {
                return None;
            }
        }
        (!fields.is_empty() && types.is_none_or(str::is_empty)).then_some(Value::Struct(fields))
    }

    fn quoted(&mut self) -> Option<String> {
        let quote = self.left.chars().next()?;
        let mut chars = self.left.char_indices().skip(1);
        let mut out = String::new();
        while let Some((at, c)) = chars.next() {
            match c {
                _ if c == quote => {
                    self.left = &self.left[at + 1..];
                    // A NUL, however it was written, cannot be sent.
                    return (!out.contains('\0')).then_some(out);
                }
                '\\' => out.push(match chars.next()?.1 {
                    'n' => '\n',
                    't' => '\t',
                    'r' => '\r',
                    code @ ('u' | 'U') => {
                        let mut number = 0;
                        for _ in 0..if code == 'u' { 4 } else { 8 } {
                            number = number << 4 | chars.next()?.1.to_digit(16)?;
                        }
                        char::from_u32(number)?
                    }
                    other => other,
                }),
                c => out.push(c),
            }
        }
        None
    }
}

/// "Valid Object Paths" of the D-Bus specification.
fn is_path(text: &str) -> bool {
    let legal = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    text == "/" || text.strip_prefix('/').is_some_and(|rest| rest.split('/').all(legal))
}

/// Complete types one after the other.
fn is_signature(text: &str) -> bool {
    let mut left = text.as_bytes();
    while let Some(rest) = type_length(left, 0).and_then(|length| left.get(length..)) {
        left = rest;
    }
    left.is_empty() && text.len() <= LONGEST
}

fn number(text: &str, wanted: Option<&str>) -> Option<Value> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    let (radix, digits) = match digits.strip_prefix("0x") {
        Some(hex) => (16, hex),
        None if digits.len() > 1 && digits.starts_with('0') && digits.bytes().all(|b| b.is_ascii_digit()) => {
            (8, digits)
        }
        None => (10, digits),
    };
    let double = || text.parse().ok().map(Value::F64);
    let whole = i128::from_str_radix(digits, radix).ok().filter(|_| !digits.starts_with(['+', '-']));
    let Some(whole) = whole.map(|whole| if text.starts_with('-') { -whole } else { whole }) else {
        return if matches!(wanted, None | Some("d")) { double() } else { None };
    };
    match wanted {
        Some("y") => whole.try_into().ok().map(Value::Byte),
        Some("n") => whole.try_into().ok().map(Value::I16),
        Some("q") => whole.try_into().ok().map(Value::U16),
        Some("i") => whole.try_into().ok().map(Value::I32),
        Some("u") => whole.try_into().ok().map(Value::U32),
        Some("x") => whole.try_into().ok().map(Value::I64),
        Some("t") => whole.try_into().ok().map(Value::U64),
        Some("d") => double(),
        // GVariant's own default, with the wider types for what does not fit (as godbus, runc's library).
        None => (whole.try_into().ok().map(Value::I32))
            .or_else(|| whole.try_into().ok().map(Value::I64))
            .or_else(|| whole.try_into().ok().map(Value::U64)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_with_and_without_types() {
        let strings =
            |items: &[&str]| Value::Array("s".into(), items.iter().map(|s| Value::str(*s)).collect());
        for (text, value) in [
            ("true", Value::Bool(true)),
            ("5", Value::I32(5)),
            ("-5", Value::I32(-5)),
            ("0x10", Value::I32(16)),
            ("3000000000", Value::I64(3_000_000_000)),
            ("18446744073709551615", Value::U64(u64::MAX)),
            ("uint64 1", Value::U64(1)),
            (" @t 7 ", Value::U64(7)),
            ("1.5", Value::F64(1.5)),
            ("'it\\'s'", Value::str("it's")),
            ("\"a\\u0041\"", Value::str("aA")),
            ("['a', 'b']", strings(&["a", "b"])),
            ("@as []", strings(&[])),
            ("[uint32 1, 2]", Value::Array("u".into(), vec![Value::U32(1), Value::U32(2)])),
            ("[byte 0x01]", Value::Array("y".into(), vec![Value::Byte(1)])),
            (
                "[('/dev/null', 'rw')]",
                Value::Array(
                    "(ss)".into(),
                    vec![Value::Struct(vec![Value::str("/dev/null"), Value::str("rw")])],
                ),
            ),
            ("@(st) ('a', 1)", Value::Struct(vec![Value::str("a"), Value::U64(1)])),
            ("<'x'>", Value::Variant(Box::new(Value::str("x")))),
            ("objectpath '/a/b_1'", Value::Path("/a/b_1".into())),
            ("signature 'a(sv)u'", Value::Signature("a(sv)u".into())),
        ] {
            assert_eq!(parse(text), Some(value), "{text}");
        }
        for wrong in [
            "",
            "tru",
            "'a",
            "[1, 'a']",
            "[]",
            "uint64 -1",
            "byte 256",
            "1 2",
            "['a' 'b']",
            "()",
            "@q",
            "--5",
            // Of another type than the array, or than what was asked for.
            "[1.5, @n 3]",
            "[1, <2>]",
            "@t <1>",
            "@s @o '/'",
            "\"a\\u0000\"",
            "'a\\\0'",
            "objectpath 'a'",
            "objectpath '/a//b'",
            "signature 'a'",
            "signature 'hello'",
            "uint64 'a'",
        ] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn types_are_no_longer_than_the_bus_takes() {
        let fields = |n: usize| format!("({})", "1,".repeat(n));
        assert!(parse(&fields(253)).is_some());
        assert_eq!(parse(&fields(254)), None);
        assert_eq!(parse(&format!("<{}>", fields(300))), None);
    }

    #[test]
    fn annotations_become_properties() {
        let map = |pairs: &[(&str, &str)]| -> StringMap {
            pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
        };
        let found = properties(&map(&[
            ("org.systemd.property.TimeoutStopSec", "10"),
            ("org.systemd.property.RuntimeMaxSec", "1.5"),
            ("org.systemd.property.CollectMode", "'inactive-or-failed'"),
            ("org.other", "x"),
        ]))
        .unwrap();
        assert_eq!(
            found,
            [
                ("CollectMode".to_owned(), Value::str("inactive-or-failed")),
                ("RuntimeMaxUSec".to_owned(), Value::U64(1_500_000)),
                ("TimeoutStopUSec".to_owned(), Value::U64(10_000_000)),
            ]
        );
        for (name, value) in [("X", "1"), ("Ab1", "1"), ("Abc", "?"), ("TimeoutStopSec", "'x'")] {
            let err = properties(&map(&[(&format!("{PREFIX}{name}"), value)])).unwrap_err();
            assert_eq!(err.kind(), crate::Kind::Invalid);
        }
    }
}
