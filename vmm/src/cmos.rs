//! The clock that PCs have at ports 0x70 and 0x71, as far as it tells the time. A guest without a hypervisor's clock asks
//! it once at boot; where nothing answers, it waits for two seconds, and begins in 1970.

use std::time::{Duration, SystemTime};

const SECONDS: u8 = 0;
const MINUTES: u8 = 2;
const HOURS: u8 = 4;
const DAY: u8 = 7;
const MONTH: u8 = 8;
const YEAR: u8 = 9;
const STATUS_A: u8 = 10;
const STATUS_B: u8 = 11;
const STATUS_D: u8 = 13;
/// A: the clock ticks as usual, and no update is under way.
const RUNS: u8 = 0x26;
/// B: 24 hours, in binary coded decimals.
const FORM: u8 = 1 << 1;
/// D: the battery is good.
const VALID: u8 = 1 << 7;

/// The clock; the guest cannot set it.
#[derive(Debug, Default)]
pub struct Cmos {
    selected: u8,
}

impl Cmos {
    /// The guest says which register it wants; the high bit is of another thing (NMI).
    pub fn select(&mut self, register: u8) {
        self.selected = register & 0x7f;
    }

    /// It reads that one.
    pub fn read(&self) -> u8 {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
        register(self.selected, now.as_secs())
    }
}

/// What a register says `seconds` after the beginning of 1970.
fn register(number: u8, seconds: u64) -> u8 {
    let (year, month, day) = date(seconds / 86400);
    let decimal = |value: u64| ((value / 10 % 10) << 4 | (value % 10)) as u8;
    match number {
        SECONDS => decimal(seconds % 60),
        MINUTES => decimal(seconds / 60 % 60),
        HOURS => decimal(seconds / 3600 % 24),
        DAY => decimal(day),
        MONTH => decimal(month),
        YEAR => decimal(year % 100),
        STATUS_A => RUNS,
        STATUS_B => FORM,
        STATUS_D => VALID,
        _ => 0,
    }
}

/// Year, month and day of a number of days since 1970, in the Gregorian calendar.
fn date(days: u64) -> (u64, u64, u64) {
    // Years begin in March here, so that the day that some lack is the last one; 400 of them are a whole round.
    let days = days + 719_468;
    let (round, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (400 * round + year + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_dates() {
        assert_eq!(date(0), (1970, 1, 1));
        assert_eq!(date(11_016), (2000, 2, 29));
        assert_eq!(date(11_017), (2000, 3, 1));
        assert_eq!(date(20_453), (2025, 12, 31));
        assert_eq!(date(47_540), (2100, 2, 28));
        assert_eq!(date(47_541), (2100, 3, 1));
    }

    #[test]
    fn the_registers_are_decimals() {
        // 2009-02-13 23:31:30.
        let said = [YEAR, MONTH, DAY, HOURS, MINUTES, SECONDS].map(|number| register(number, 1_234_567_890));
        assert_eq!(said, [0x09, 0x02, 0x13, 0x23, 0x31, 0x30]);
        assert_eq!(register(STATUS_A, 0) & 0x80, 0, "an update that never ends");
    }

    #[test]
    fn the_register_that_was_selected_is_read() {
        let mut cmos = Cmos::default();
        cmos.select(0x80 | STATUS_D);
        assert_eq!(cmos.read(), VALID);
        cmos.select(0x7f);
        assert_eq!(cmos.read(), 0);
    }
}
