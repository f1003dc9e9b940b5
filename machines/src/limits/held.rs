//! Whether a file of a cgroup holds what was written into it.
//!
//! Owns how the kernel spells back each kind of value. Reads nothing itself.

use crate::definition::forms::numbers;

/// The kernel counts memory in pages, of at most 64 KiB on the architectures that locule knows.
const LARGEST_PAGE: u64 = 1 << 16;

/// What `file` holds where nothing is limited; `None` for a file that is not known.
pub fn unlimited(file: &str) -> Option<&'static str> {
    Some(match file {
        "memory.max"
        | "memory.high"
        | "memory.swap.max"
        | "pids.max"
        | "cgroup.max.descendants"
        | "memory.zswap.max"
        | "memory.swap.high"
        | "cgroup.max.depth" => "max",
        "memory.low" | "memory.min" | "memory.oom.group" | "cpu.max.burst" | "cpu.idle" => "0",
        "cpu.max" => "max 100000",
        "cpu.weight" | "io.weight" => "100",
        "cpuset.cpus" | "cpuset.mems" => "",
        _ if file.starts_with("hugetlb.") && file.ends_with("max") => "max",
        _ => return None,
    })
}

/// Of the text that was read from `file`, what `wanted` speaks of, in the form in which it can be written.
///
/// Files such as `io.max` have a line a device; where the line is missing there is no limit.
pub fn present(file: &str, wanted: &str, text: &str) -> String {
    let text = text.trim();
    if let Some((device, fields)) = keyed(wanted) {
        let line = text.lines().find(|line| line.split_whitespace().next() == Some(device));
        let value = |name: &str| {
            line.and_then(|line| {
                line.split_whitespace().find_map(|field| field.strip_prefix(name)?.strip_prefix('='))
            })
            .unwrap_or("max")
        };
        let fields: Vec<_> = fields.iter().map(|(name, _)| format!("{name}={}", value(name))).collect();
        return format!("{device} {}", fields.join(" "));
    }
    if file == "io.weight" {
        let default = text.lines().find_map(|line| line.strip_prefix("default ")).unwrap_or(text);
        return default.trim().to_owned();
    }
    text.to_owned()
}

/// `8:0 rbps=1 wbps=2` as a device and its fields.
fn keyed(text: &str) -> Option<(&str, Vec<(&str, &str)>)> {
    let mut words = text.split_whitespace();
    let device = words.next().filter(|word| !word.contains('='))?;
    let fields: Option<Vec<_>> = words.map(|word| word.split_once('=')).collect();
    fields.filter(|fields| !fields.is_empty()).map(|fields| (device, fields))
}

/// Whether `found` (as [`present`] gives it) is what `wanted` asks for.
pub fn agrees(file: &str, wanted: &str, found: &str) -> bool {
    let (wanted, found) = (wanted.trim(), found.trim());
    if wanted == found {
        return true;
    }
    if file.starts_with("cpuset.") {
        let set = |text: &str| if text.is_empty() { Some(Vec::new()) } else { numbers(text) };
        return set(wanted).is_some() && set(wanted) == set(found);
    }
    if let (Ok(want), Ok(have)) = (wanted.parse::<u64>(), found.parse::<u64>()) {
        let page = match file.strip_prefix("hugetlb.") {
            Some(rest) => hugepage(rest),
            None if file.starts_with("memory.") && file != "memory.oom.group" => LARGEST_PAGE,
            None => 1,
        };
        // Rounded down to whole pages.
        return have <= want && want - have < page;
    }
    if found == "max"
        && let Ok(want) = wanted.parse::<u64>()
    {
        // Beyond what the kernel counts to.
        return file.starts_with("memory.") && want >= i64::MAX as u64 / LARGEST_PAGE;
    }
    if let (Some((device, want)), Some((other, have))) = (keyed(wanted), keyed(found)) {
        return device == other && want.iter().all(|field| have.contains(field));
    }
    // `cpu.max` takes a quota alone, and keeps its period.
    let mut words = found.split_whitespace();
    !wanted.is_empty() && wanted.split_whitespace().all(|word| words.next() == Some(word))
}

fn hugepage(rest: &str) -> u64 {
    let size = rest.split('.').next().unwrap_or_default();
    let digits = size.trim_end_matches(char::is_alphabetic);
    let shift = match &size[digits.len()..] {
        "KB" => 10,
        "MB" => 20,
        _ => 30,
    };
    digits.parse::<u64>().unwrap_or(1) << shift
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_spells_differently_agrees() {
        for (file, wanted, text) in [
            ("memory.max", "536870912", "536870912\n"),
            ("memory.max", "536870913", "536870912\n"),
            ("memory.max", "9223372036854775807", "max\n"),
            ("memory.high", "max", "max\n"),
            ("hugetlb.2MB.max", "3000000", "2097152\n"),
            ("cpu.max", "150000 100000", "150000 100000\n"),
            ("cpu.max", "150000", "150000 100000\n"),
            ("cpuset.cpus", "0,1,2,5", "0-2,5\n"),
            ("cpuset.cpus", "", "\n"),
            ("io.weight", "50", "default 50\n8:0 20\n"),
            (
                "io.max",
                "8:0 rbps=5 wbps=max riops=max wiops=max",
                "7:0 rbps=1 wbps=1 riops=1 wiops=1\n8:0 rbps=5 wbps=max riops=max wiops=max\n",
            ),
            ("io.max", "8:0 rbps=max wbps=max riops=max wiops=max", ""),
            ("pids.max", "9", "9\n"),
        ] {
            assert!(agrees(file, wanted, &present(file, wanted, text)), "{file}: {wanted:?} {text:?}");
        }
    }

    #[test]
    fn what_did_not_take_is_seen() {
        for (file, wanted, text) in [
            ("memory.max", "536870912", "max\n"),
            ("memory.max", "536870912", "536870913\n"),
            ("memory.max", "536870912", "1073741824\n"),
            ("memory.max", "max", "536870912\n"),
            ("pids.max", "9", "8\n"),
            ("pids.max", "9", "max\n"),
            ("cpu.max", "150000 100000", "max 100000\n"),
            ("cpu.max", "150000 100000", "150000 50000\n"),
            ("cpuset.cpus", "0-3", "0-2\n"),
            ("cpuset.cpus", "0", "\n"),
            ("io.weight", "50", "default 100\n"),
            ("io.max", "8:0 rbps=5 wbps=5", "8:0 rbps=5 wbps=max riops=max wiops=max\n"),
            ("io.max", "8:0 rbps=5 wbps=5", ""),
            ("memory.oom.group", "1", "0\n"),
        ] {
            assert!(!agrees(file, wanted, &present(file, wanted, text)), "{file}: {wanted:?} {text:?}");
        }
    }

    #[test]
    fn the_present_value_can_be_written_back() {
        assert_eq!(present("io.weight", "50", "default 100\n"), "100");
        let line = "8:0 rbps=9 wbps=max riops=max wiops=7\n";
        assert_eq!(present("io.max", "8:0 rbps=1 wiops=1", line), "8:0 rbps=9 wiops=7");
        assert_eq!(present("cpu.max", "1 2", "max 100000\n"), "max 100000");
    }
}
