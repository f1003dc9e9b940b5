//! PAX records: the attributes that do not fit in a tape header.
//!
//! Owns the reading of `length key=value` lines and of the sparse formats 0.0 and 0.1.
//! Never guesses: a record that cannot be read is an error.

use crate::error::Result;
use crate::unpack::tape::bad;

/// What a PAX header says about the next entry.
#[derive(Debug, Default, Clone)]
pub struct Records {
    /// `path`.
    pub path: Option<Vec<u8>>,
    /// `linkpath`.
    pub link: Option<Vec<u8>>,
    /// `size`.
    pub size: Option<u64>,
    /// `uid`.
    pub uid: Option<u64>,
    /// `gid`.
    pub gid: Option<u64>,
    /// `mtime`: seconds and nanoseconds.
    pub mtime: Option<(i64, u32)>,
    /// `SCHILY.xattr.*`.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// `GNU.sparse.*`.
    pub sparse: Option<Sparse>,
}

/// A sparse file as PAX records tell it.
#[derive(Debug, Default, Clone)]
pub struct Sparse {
    /// The name of the file, where `path` is a stand-in.
    pub name: Option<Vec<u8>>,
    /// Its size with holes.
    pub size: Option<u64>,
    /// The regions, unless they stand in front of the data (format 1.0).
    pub regions: Option<Vec<(u64, u64)>>,
}

impl Records {
    /// Whether anything in here changes what entries mean.
    pub fn changes_entries(&self) -> bool {
        self.path.is_some()
            || self.link.is_some()
            || self.size.is_some()
            || self.uid.is_some()
            || self.gid.is_some()
            || !self.xattrs.is_empty()
            || self.sparse.is_some()
    }
}

/// Reads the records of one header.
pub fn parse(mut text: &[u8]) -> Result<Records> {
    let mut records = Records::default();
    let mut open_region: Option<u64> = None;
    // Padding with NUL bytes is what some writers leave.
    while text.first().is_some_and(|b| *b != 0) {
        let (key, value, rest) = record(text).ok_or_else(|| bad("a PAX record cannot be read"))?;
        text = rest;
        let number = || {
            std::str::from_utf8(value)
                .ok()
                .filter(|text| text.bytes().all(|b| b.is_ascii_digit()))
                .and_then(|text| text.parse::<u64>().ok())
                .ok_or_else(|| bad(&format!("the PAX record {} is no number", String::from_utf8_lossy(key))))
        };
        match key {
            b"path" => records.path = non_empty(value),
            b"linkpath" => records.link = non_empty(value),
            b"size" => records.size = Some(number()?),
            b"uid" => records.uid = Some(number()?),
            b"gid" => records.gid = Some(number()?),
            b"mtime" => records.mtime = Some(time(value).ok_or_else(|| bad("a PAX time cannot be read"))?),
            _ => match strip(key, b"SCHILY.xattr.") {
                Some(name) => {
                    records.xattrs.retain(|(known, _)| known != name);
                    records.xattrs.push((name.to_vec(), value.to_vec()));
                }
                None => {
                    if let Some(key) = strip(key, b"GNU.sparse.") {
                        sparse(&mut records, &mut open_region, key, value, number)?;
                    }
                }
            },
        }
    }
    Ok(records)
}

fn sparse(
    records: &mut Records,
    open: &mut Option<u64>,
    key: &[u8],
    value: &[u8],
    number: impl Fn() -> Result<u64>,
) -> Result<()> {
    let sparse = records.sparse.get_or_insert_with(Sparse::default);
    match key {
        b"name" => sparse.name = non_empty(value),
        b"size" | b"realsize" => sparse.size = Some(number()?),
        b"major" | b"minor" | b"numblocks" => {}
        b"offset" => *open = Some(number()?),
        b"numbytes" => {
            let offset = open.take().ok_or_else(|| bad("a sparse file's map cannot be read"))?;
            sparse.regions.get_or_insert_default().push((offset, number()?));
        }
        b"map" => {
            let numbers: Option<Vec<u64>> = value
                .split(|b| *b == b',')
                .map(|text| std::str::from_utf8(text).ok().and_then(|text| text.parse().ok()))
                .collect();
            let numbers = numbers.filter(|numbers| numbers.len() % 2 == 0);
            let numbers = numbers.ok_or_else(|| bad("a sparse file's map cannot be read"))?;
            sparse.regions = Some(numbers.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect());
        }
        other => return Err(bad(&format!("GNU.sparse.{} is not known", String::from_utf8_lossy(other)))),
    }
    Ok(())
}

/// An empty value takes an earlier one back, as POSIX says.
fn non_empty(value: &[u8]) -> Option<Vec<u8>> {
    (!value.is_empty()).then(|| value.to_vec())
}

fn strip<'a>(key: &'a [u8], prefix: &[u8]) -> Option<&'a [u8]> {
    key.strip_prefix(prefix)
}

/// One record: key, value and what follows.
fn record(text: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = text.iter().take(20).position(|b| *b == b' ')?;
    let length = std::str::from_utf8(&text[..space]).ok()?;
    if !length.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let length: usize = length.parse().ok()?;
    let body = text.get(space + 1..length)?.strip_suffix(b"\n")?;
    let equals = body.iter().position(|b| *b == b'=')?;
    if equals == 0 {
        return None;
    }
    Some((&body[..equals], &body[equals + 1..], &text[length..]))
}

/// `seconds[.fraction]`, possibly negative.
pub(crate) fn time(value: &[u8]) -> Option<(i64, u32)> {
    let text = std::str::from_utf8(value).ok()?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let negative = whole.starts_with('-');
    let seconds: i64 = whole.parse().ok()?;
    if !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let digits: String = fraction.chars().chain("000000000".chars()).take(9).collect();
    let nanos: u32 = digits.parse().ok()?;
    if negative && nanos > 0 {
        // -1.25 is two seconds before the epoch, and three quarters on.
        return Some((seconds.checked_sub(1)?, 1_000_000_000 - nanos));
    }
    Some((seconds, nanos))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_counted_in_bytes() {
        let records = parse(b"12 path=a/b\n22 mtime=1.5000000001\n27 SCHILY.xattr.user.a=\x00\n1\n").unwrap();
        assert_eq!(records.path.as_deref(), Some(&b"a/b"[..]));
        assert_eq!(records.mtime, Some((1, 500_000_000)));
        assert_eq!(records.xattrs, [(b"user.a".to_vec(), b"\x00\n1".to_vec())]);
        for bad in
            [&b"5 path=a/b\n"[..], b"99 path=a\n", b"x path=a\n", b"8 path=a\n", b"11 size=-12\n", b"6 =ab\n"]
        {
            assert!(parse(bad).is_err(), "{:?}", String::from_utf8_lossy(bad));
        }
    }

    #[test]
    fn times_before_the_epoch() {
        assert_eq!(time(b"-1.25"), Some((-2, 750_000_000)));
        assert_eq!(time(b"-1"), Some((-1, 0)));
        assert_eq!(time(b"1.x"), None);
    }
}
