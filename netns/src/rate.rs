//! How fast a container may send and receive, and how fast it always can: the words for it.
//!
//! Pure data; `shape` makes it true.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Bits a second; zero is none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Rate(pub u64);

/// A direction, seen from the container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Towards the container.
    Down,
    /// From the container.
    Up,
}

impl Way {
    /// Both.
    pub const ALL: [Way; 2] = [Way::Down, Way::Up];

    /// Its word.
    pub fn word(self) -> &'static str {
        match self {
            Way::Down => "down",
            Way::Up => "up",
        }
    }
}

/// Limits of one interface: ceilings, and what it gets of the network's rate even when all want more.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rates {
    /// Ceiling towards the container.
    #[serde(default, skip_serializing_if = "Rate::is_none")]
    pub down: Rate,
    /// Ceiling from the container.
    #[serde(default, skip_serializing_if = "Rate::is_none")]
    pub up: Rate,
    /// Guarantee towards the container: a part of its network's rate.
    #[serde(default, skip_serializing_if = "Rate::is_none")]
    pub down_min: Rate,
    /// Guarantee from the container.
    #[serde(default, skip_serializing_if = "Rate::is_none")]
    pub up_min: Rate,
}

/// What all containers of a network together may receive and send: what guarantees are parts of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Total {
    /// Towards the containers.
    #[serde(default, skip_serializing_if = "Rate::is_none")]
    pub down: Rate,
    /// From the containers.
    #[serde(default, skip_serializing_if = "Rate::is_none")]
    pub up: Rate,
}

impl Total {
    /// Whether there is none, either way.
    pub fn is_none(&self) -> bool {
        self.down.is_none() && self.up.is_none()
    }

    /// Of one direction.
    pub fn of(&self, way: Way) -> Rate {
        match way {
            Way::Down => self.down,
            Way::Up => self.up,
        }
    }
}

impl Rate {
    /// Whether there is none.
    pub fn is_none(&self) -> bool {
        self.0 == 0
    }

    /// Bytes a second.
    pub fn bytes(self) -> u64 {
        self.0 / 8
    }
}

impl Rates {
    /// Whether there is nothing to enforce at all.
    pub fn is_unlimited(&self) -> bool {
        *self == Rates::default()
    }

    /// The ceiling of one direction.
    pub fn most(&self, way: Way) -> Rate {
        match way {
            Way::Down => self.down,
            Way::Up => self.up,
        }
    }

    /// The guarantee of one direction.
    pub fn least(&self, way: Way) -> Rate {
        match way {
            Way::Down => self.down_min,
            Way::Up => self.up_min,
        }
    }

    /// Refuses what contradicts itself.
    pub fn check(&self) -> Result<()> {
        for way in Way::ALL {
            let (least, most) = (self.least(way), self.most(way));
            if !most.is_none() && least > most {
                return Err(Error::invalid(format!(
                    "{}: {least} are guaranteed, which is above the ceiling of {most}",
                    way.word()
                )));
            }
        }
        Ok(())
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => f.write_str("none"),
            bits if bits % 1_000_000_000 == 0 => write!(f, "{}gbit", bits / 1_000_000_000),
            bits if bits % 1_000_000 == 0 => write!(f, "{}mbit", bits / 1_000_000),
            bits if bits % 1_000 == 0 => write!(f, "{}kbit", bits / 1_000),
            bits => write!(f, "{bits}bit"),
        }
    }
}

impl FromStr for Rate {
    type Err = Error;

    fn from_str(text: &str) -> Result<Rate> {
        let wrong =
            || Error::invalid(format!("{text:?} is no rate")).hint("as 500kbit, 20mbit, 1gbit, or none");
        if text == "none" {
            return Ok(Rate(0));
        }
        let at = text.find(|letter: char| !letter.is_ascii_digit()).ok_or_else(wrong)?;
        let number: u64 = text[..at].parse().map_err(|_| wrong())?;
        let unit = match &text[at..] {
            "bit" => 1,
            "kbit" => 1_000,
            "mbit" => 1_000_000,
            "gbit" => 1_000_000_000,
            _ => return Err(wrong()),
        };
        let bits = number.checked_mul(unit).filter(|bits| (8_000..=1 << 50).contains(bits));
        bits.map(Rate).ok_or_else(|| wrong().hint("at least 8kbit"))
    }
}

impl TryFrom<String> for Rate {
    type Error = Error;

    fn try_from(text: String) -> Result<Rate> {
        text.parse()
    }
}

impl From<Rate> for String {
    fn from(rate: Rate) -> String {
        rate.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_read_and_printed() {
        for text in ["500kbit", "20mbit", "1gbit", "none", "12345bit"] {
            assert_eq!(text.parse::<Rate>().unwrap().to_string(), text);
        }
        for text in ["", "20", "mbit", "1bit", "20mb", "-1mbit", "99999999999999999999gbit"] {
            assert!(text.parse::<Rate>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_guarantee_is_not_above_the_ceiling() {
        let rates = |down, down_min| Rates { down: Rate(down), down_min: Rate(down_min), ..Rates::default() };
        rates(0, 9_000_000).check().unwrap();
        rates(9_000_000, 9_000_000).check().unwrap();
        let told = rates(8_000_000, 9_000_000).check().unwrap_err().to_string();
        assert!(told.contains("down") && told.contains("9mbit") && told.contains("8mbit"), "{told}");
    }
}
