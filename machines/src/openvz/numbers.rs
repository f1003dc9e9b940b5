//! Numbers as vzctl writes them: barriers and limits, pages, suffixes.

use crate::definition::Size;

/// The limit of `barrier[:limit]`; `Some(None)` is none.
pub fn last(value: &str) -> Option<Option<&str>> {
    let limit = value.split(':').next_back()?;
    // Half of the address space is what vzctl writes for no limit.
    let none =
        limit == "unlimited" || limit.parse::<u64>().is_ok_and(|number| number >= i64::MAX as u64 >> 12);
    Some(if none { None } else { Some(limit) })
}

/// Bytes of a number of pages; nothing for no limit, which 0 is as well unless `zero` is a number.
pub fn pages(value: &str, zero: bool) -> Option<Option<u64>> {
    let Some(limit) = last(value)? else { return Some(None) };
    let bytes = suffixed(limit, 4096)?;
    Some(Some(bytes).filter(|bytes| zero || *bytes > 0))
}

/// A number of things.
pub fn count(value: &str) -> Option<Option<u64>> {
    let Some(limit) = last(value)? else { return Some(None) };
    let number: u64 = limit.parse().ok()?;
    Some(Some(number).filter(|number| *number > 0))
}

/// A number with vzctl's suffix; without one it is in units of `unit` bytes.
pub fn suffixed(text: &str, unit: u64) -> Option<u64> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    match suffix.to_ascii_uppercase().as_str() {
        "" => number.parse::<u64>().ok()?.checked_mul(unit),
        "P" => number.parse::<u64>().ok()?.checked_mul(4096),
        "B" => number.parse().ok(),
        _ => text.parse::<Size>().ok().map(|size| size.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_vzctls() {
        for (value, bytes) in [
            ("262144", Some(1 << 30)),
            ("0:262144", Some(1 << 30)),
            ("512M", Some(512 << 20)),
            ("0:1G", Some(1 << 30)),
            ("100p", Some(409_600)),
            ("4096B", Some(4096)),
            ("unlimited", None),
            ("0", None),
            ("9223372036854775807:9223372036854775807", None),
        ] {
            assert_eq!(pages(value, false), Some(bytes), "{value}");
        }
        assert_eq!(pages("0", true), Some(Some(0)));
        assert_eq!((pages("x", false), count("5x"), suffixed("", 1)), (None, None, None));
    }
}
