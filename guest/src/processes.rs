//! The container's processes, as ps(1) would tell them.

use locule_channel::document::{Process, Processes};

/// Units of times in /proc/PID/stat, a second (`USER_HZ`, the same on every architecture served).
const TICKS: u64 = 100;
/// Bytes of a page in /proc/PID/stat's `rss`.
const PAGE: u64 = 4096;

/// Those of `pids` that exist still.
pub fn list(pids: &[i32]) -> Processes {
    let boot = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let boot = boot.lines().find_map(|line| line.strip_prefix("btime ")?.parse().ok()).unwrap_or(0);
    let mut pids = pids.to_vec();
    pids.sort_unstable();
    Processes { processes: pids.into_iter().filter_map(|pid| look_at(pid, boot)).collect() }
}

fn look_at(pid: i32, boot: u64) -> Option<Process> {
    let read = |name| std::fs::read(format!("/proc/{pid}/{name}")).ok();
    let stat = String::from_utf8_lossy(&read("stat")?).into_owned();
    let status = String::from_utf8_lossy(&read("status")?).into_owned();
    let arguments = read("cmdline").unwrap_or_default();
    Some(understand(pid, boot, &stat, &status, &arguments))
}

fn understand(pid: i32, boot: u64, stat: &str, status: &str, arguments: &[u8]) -> Process {
    // The name may hold anything, parentheses too.
    let (head, tail) = stat.rsplit_once(')').unwrap_or((stat, ""));
    let name = head.split_once('(').map_or("", |(_, name)| name);
    let fields: Vec<&str> = tail.split_ascii_whitespace().collect();
    // Numbered as in proc_pid_stat(5), where the state is the third.
    let number = |field: usize| {
        fields.get(field - 3).and_then(|word| word.parse::<i64>().ok()).unwrap_or(0).max(0) as u64
    };
    let line = |key: &str| {
        status.lines().find_map(|line| line.strip_prefix(key)).map(|rest| rest.split_ascii_whitespace())
    };
    let ended = arguments.strip_suffix(b"\0").unwrap_or(arguments);
    let command: String =
        String::from_utf8_lossy(ended).chars().map(|c| if c == '\0' { ' ' } else { c }).take(4096).collect();
    Process {
        pid,
        inner_pid: line("NSpid:").and_then(Iterator::last).and_then(|word| word.parse().ok()).unwrap_or(pid),
        parent: number(4) as i32,
        uid: line("Uid:").and_then(|mut words| words.nth(1)).and_then(|word| word.parse().ok()).unwrap_or(0),
        state: fields.first().copied().unwrap_or("?").to_owned(),
        terminal: number(7) as i32,
        started: boot + number(22) / TICKS,
        cpu: (number(14) + number(15)) * 1000 / TICKS,
        resident: number(24) * PAGE,
        command: if command.is_empty() { format!("[{name}]") } else { command },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_moves_no_field() {
        let stat = "42 (a) b) S 7 42 42 34816 42 4194560 1 0 0 0 150 50 0 0 20 0 1 0 900 4096 3 184 1";
        let status = "Name:\ta) b\nUid:\t5\t6\t7\t8\nNSpid:\t42\t3\n";
        let seen = understand(42, 1000, stat, status, b"sh\0-c\0:\0");
        assert_eq!((seen.parent, seen.uid, seen.inner_pid, seen.terminal), (7, 6, 3, 34816));
        assert_eq!((seen.started, seen.cpu, seen.resident), (1009, 2000, 3 * 4096));
        assert_eq!((seen.state.as_str(), seen.command.as_str()), ("S", "sh -c :"));
        assert_eq!(understand(1, 0, "1 (x) Z", "", b"").command, "[x]");
    }
}
