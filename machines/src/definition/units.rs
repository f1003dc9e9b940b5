//! Sizes and times as people write them.
//!
//! Owns the spelling: powers of 1024 for bytes, one unit for times. What is less than a byte is left out; nothing
//! else is rounded.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Bytes: `512M`, `2G`, `1073741824`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

/// A length of time: `500ms`, `90s`, `5m`, `1h`; a number alone is seconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(pub Duration);

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Size, String> {
        let wrong = || format!("{text:?} is not a size such as 512M or 2G");
        let large = || format!("{text:?} is too large");
        let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (number, unit) = text.split_at(end);
        let shift = match unit.to_ascii_uppercase().as_str() {
            "" | "B" => 0,
            "K" | "KB" | "KIB" => 10,
            "M" | "MB" | "MIB" => 20,
            "G" | "GB" | "GIB" => 30,
            "T" | "TB" | "TIB" => 40,
            _ => return Err(wrong()),
        };
        let (whole, part) = number.split_once('.').unwrap_or((number, ""));
        let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        if whole.is_empty() || !digits(part) || part.len() > 18 || (number.ends_with('.')) {
            return Err(wrong());
        }
        let whole: u64 = whole.parse().map_err(|_| large())?;
        // In whole numbers, so that nothing is lost to binary fractions.
        let fraction = match part {
            "" => 0,
            part => (part.parse::<u128>().map_err(|_| wrong())? << shift) / 10u128.pow(part.len() as u32),
        };
        let bytes = (u128::from(whole) << shift) + fraction;
        u64::try_from(bytes).map(Size).map_err(|_| large())
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [(40, "T"), (30, "G"), (20, "M"), (10, "K")];
        match units.iter().find(|(shift, _)| self.0 != 0 && self.0.is_multiple_of(1 << shift)) {
            Some((shift, unit)) => write!(f, "{}{unit}", self.0 >> shift),
            None => write!(f, "{}", self.0),
        }
    }
}

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Span, String> {
        let wrong = || format!("{text:?} is not a time such as 500ms, 90s, 5m or 1h");
        let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(end);
        let number: u64 = number.parse().map_err(|_| wrong())?;
        let millis = match unit {
            "ms" => 1,
            "" | "s" => 1000,
            "m" | "min" => 60_000,
            "h" => 3_600_000,
            _ => return Err(wrong()),
        };
        number
            .checked_mul(millis)
            .map(|millis| Span(Duration::from_millis(millis)))
            .ok_or_else(|| format!("{text:?} is too long"))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = self.0.as_millis();
        match millis {
            0 => f.write_str("0s"),
            m if m.is_multiple_of(3_600_000) => write!(f, "{}h", m / 3_600_000),
            m if m.is_multiple_of(60_000) => write!(f, "{}m", m / 60_000),
            m if m.is_multiple_of(1000) => write!(f, "{}s", m / 1000),
            m => write!(f, "{m}ms"),
        }
    }
}

/// Reads a number or a text, as TOML's writers mix them.
fn read<'de, D: Deserializer<'de>, T: FromStr<Err = String>>(from: D) -> Result<T, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Either {
        Number(u64),
        Text(String),
    }
    let text = match Either::deserialize(from)? {
        Either::Number(number) => number.to_string(),
        Either::Text(text) => text,
    };
    text.parse().map_err(serde::de::Error::custom)
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Size, D::Error> {
        read(from)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Span, D::Error> {
        read(from)
    }
}

impl Serialize for Size {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers of all magnitudes, the same in each run.
    fn numbers() -> impl Iterator<Item = u64> {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let random = std::iter::repeat_with(move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state >> (state % 64)
        });
        (0..64).map(|bit| 1 << bit).chain([0, u64::MAX]).chain(random.take(20_000))
    }

    #[test]
    fn every_size_is_read_back() {
        for number in numbers() {
            assert_eq!(Size(number).to_string().parse(), Ok(Size(number)));
            assert_eq!(number.to_string().parse(), Ok(Size(number)));
        }
    }

    #[test]
    fn every_span_is_read_back() {
        for number in numbers() {
            let span = Span(Duration::from_millis(number));
            assert_eq!(span.to_string().parse(), Ok(span));
        }
    }

    #[test]
    fn units_multiply_and_never_overflow() {
        for number in numbers() {
            for (shift, unit) in [(10, "K"), (20, "MiB"), (30, "g"), (40, "TB")] {
                let want = u128::from(number) << shift;
                let got = format!("{number}{unit}").parse::<Size>().ok().map(|size| u128::from(size.0));
                assert_eq!(got, (want <= u128::from(u64::MAX)).then_some(want), "{number}{unit}");
            }
        }
    }

    /// Bytes of all kinds: an answer or a refusal that names them, and never a panic.
    #[test]
    fn nonsense_is_refused_in_words() {
        let letters: Vec<char> = "0123456789.kKmMgGtTiIbBsh -+eExµ\u{0}\u{ffff}".chars().collect();
        for number in numbers() {
            let mut left = number;
            let mut word = String::new();
            while left > 0 && word.len() < 12 {
                word.push(letters[(left % letters.len() as u64) as usize]);
                left /= letters.len() as u64;
            }
            if let Err(told) = word.parse::<Size>() {
                assert!(told.contains(&format!("{word:?}")), "{told}");
            }
            if let Err(told) = word.parse::<Span>() {
                assert!(told.contains(&format!("{word:?}")), "{told}");
            }
        }
    }

    #[test]
    fn fractions_and_refusals() {
        for (text, bytes) in [("1.5G", 3 << 29), ("0.5K", 512), ("1.1K", 1126), ("0.001K", 1), ("2b", 2)] {
            assert_eq!(text.parse(), Ok(Size(bytes)), "{text}");
        }
        for text in
            ["", "K", ".5K", "1.", "1.K", "1..2", "1.2.3", "5i", "5BB", "12Q", "-1", "+1", " 1", "1 K", "1e3"]
        {
            assert!(text.parse::<Size>().is_err(), "{text}");
        }
        for text in ["", "s", "1.5s", "5d", "-1s", "1 s"] {
            assert!(text.parse::<Span>().is_err(), "{text}");
        }
    }
}
