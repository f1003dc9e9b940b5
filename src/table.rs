//! Tables and numbers as people read them.
//!
//! Owns the widths. Never decides what is shown.

/// A column: its head, and whether it holds numbers, which are set to the right.
pub type Column = (&'static str, bool);

/// Rows under a head, two spaces apart, each column as wide as its longest cell.
pub fn table(columns: &[Column], rows: &[Vec<String>]) -> String {
    let head: Vec<String> = columns.iter().map(|(head, _)| (*head).to_owned()).collect();
    let cell = |row: &[String], at: usize| row.get(at).map_or(0, |cell| cell.chars().count());
    let widths: Vec<usize> = (0..columns.len())
        .map(|at| rows.iter().map(|row| cell(row, at)).chain([cell(&head, at)]).max().unwrap_or(0))
        .collect();
    let mut text = String::new();
    for row in std::iter::once(&head).chain(rows) {
        let mut line = String::new();
        for ((cell, width), (_, number)) in row.iter().zip(&widths).zip(columns) {
            match number {
                true => line.push_str(&format!("{cell:>width$}  ")),
                false => line.push_str(&format!("{cell:<width$}  ")),
            }
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// Bytes in four places or so: `512`, `1.5K`, `256M`.
pub fn short(bytes: u64) -> String {
    let units = ["", "K", "M", "G", "T", "P"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1023.95 && unit + 1 < units.len() {
        value /= 1024.0;
        unit += 1;
    }
    let tenths = (value * 10.0).round() / 10.0;
    match unit {
        0 => bytes.to_string(),
        _ if tenths >= 100.0 || tenths.fract() == 0.0 => format!("{tenths:.0}{}", units[unit]),
        _ => format!("{tenths:.1}{}", units[unit]),
    }
}

/// Seconds as the two largest units: `3d4h`, `5m12s`.
pub fn span(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, minutes) => format!("{minutes}m{}s", seconds % 60),
        (0, hours, minutes) => format!("{hours}h{minutes}m"),
        (days, hours, _) => format!("{days}d{hours}h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stand_to_the_right() {
        let rows = [vec!["a".to_owned(), "10".to_owned()], vec!["long".to_owned(), "7".to_owned()]];
        assert_eq!(table(&[("NAME", false), ("N", true)], &rows), "NAME   N\na     10\nlong   7\n");
        assert_eq!(table(&[("NAME", false), ("N", true)], &[]), "NAME  N\n");
    }

    #[test]
    fn sizes_are_short() {
        let cases = [
            (0, "0"),
            (1023, "1023"),
            (1024, "1K"),
            (1536, "1.5K"),
            (256 << 20, "256M"),
            ((1 << 20) - 1, "1M"),
            (10 << 30, "10G"),
        ];
        for (bytes, text) in cases {
            assert_eq!(short(bytes), text);
        }
        assert_eq!([span(5), span(312), span(7260), span(273_600)], ["5s", "5m12s", "2h1m", "3d4h"]);
    }
}
