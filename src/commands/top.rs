//! `top`: what running machines and containers use, live and sorted.
//!
//! Owns the screen while it is shown, and gives the terminal back as it was.

use std::io::IsTerminal;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use clap::ArgMatches;
use locule_runtime::error::Context;
use locule_runtime::sys::{process, tty};
use locule_runtime::{Error, Result};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::termios::{LocalFlags, SetArg, SpecialCharacterIndices, Termios, tcgetattr, tcsetattr};

use super::stats::{given, names};
use crate::args::Globals;
use crate::cli::{Verb, option, text};
use crate::out::Out;
use crate::table::{span, table};
use crate::usage::{COLUMNS, Key, Looker, Row, sort};

/// The declaration.
pub const VERB: Verb = Verb {
    name: "top",
    about: "Show live what running machines and containers use, the greediest first",
    usage: "[options] [NAME...]",
    details: "Shows what locule-stats(1) shows, sorted, until q is pressed. Keys: c m i n t p a sort by processor, \
memory, devices, network, tasks, pressure and name; r turns the order around. Where standard output is no terminal, one \
table is printed.",
    examples: &[("Who waits most", "locule top --sort pressure")],
    arguments: |command| {
        command
            .args([
                option("sort", "KEY", "What is sorted by")
                    .value_parser(Key::ALL.map(|(word, _)| word))
                    .default_value("cpu"),
                option("interval", "DURATION", "Time between two looks, as 500ms, 5s or 1m30s")
                    .default_value("2s")
                    .value_parser(super::events::duration),
            ])
            .arg(names())
    },
    run,
    ..Verb::BASE
};

const ENTER: &str = "\x1b[?1049h\x1b[?25l";
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";

fn run(globals: &Globals, matches: &ArgMatches, out: &mut Out) -> Result<i32> {
    let interval: Duration = matches.get_one("interval").copied().unwrap_or(Duration::from_secs(2));
    let word = text(matches, "sort").unwrap_or("cpu");
    let key = Key::ALL.iter().find(|(known, _)| *known == word).map_or(Key::Cpu, |(_, key)| *key);
    let mut looker = Looker::new(given(matches));
    looker.look(globals)?;
    if !std::io::stdout().is_terminal() || !std::io::stdin().is_terminal() {
        std::thread::sleep(interval.min(Duration::from_millis(500)));
        let mut rows = looker.look(globals)?;
        sort(&mut rows, key, false);
        out.write(&table(&COLUMNS, &rows.iter().map(Row::cells).collect::<Vec<_>>()))?;
        return Ok(0);
    }
    let mut screen = Screen::enter(out)?;
    let shown = live(globals, &mut looker, &mut screen, key, interval);
    drop(screen);
    shown
}

fn live(
    globals: &Globals,
    looker: &mut Looker,
    screen: &mut Screen<'_>,
    mut key: Key,
    interval: Duration,
) -> Result<i32> {
    let mut reverse = false;
    // The rates of the first picture are of a short time, so that there is one soon.
    let mut due = Instant::now() + interval.min(Duration::from_millis(500));
    let mut rows = looker.look(globals)?;
    loop {
        sort(&mut rows, key, reverse);
        screen.show(&rows, key)?;
        let typed = screen.wait(due.saturating_duration_since(Instant::now()))?;
        match typed {
            Some(b'q' | 3 | 4) => return Ok(0),
            Some(b'c') => key = Key::Cpu,
            Some(b'm') => key = Key::Memory,
            Some(b'i') => key = Key::Io,
            Some(b'n') => key = Key::Network,
            Some(b't') => key = Key::Tasks,
            Some(b'p') => key = Key::Pressure,
            Some(b'a') => key = Key::Name,
            Some(b'r') => reverse = !reverse,
            _ => {}
        }
        if Instant::now() >= due {
            rows = looker.look(globals)?;
            due = Instant::now() + interval;
        }
    }
}

/// The terminal while it is ours.
struct Screen<'a> {
    out: &'a mut Out,
    before: Termios,
    signals: OwnedFd,
    begun: Instant,
}

impl<'a> Screen<'a> {
    fn enter(out: &'a mut Out) -> Result<Screen<'a>> {
        let doing = || "setting up the terminal";
        let stdin = std::io::stdin();
        let before = tcgetattr(&stdin).doing(doing)?;
        // Signals are read like keys, so that nothing ends this before the terminal is given back.
        process::block_signals();
        let signals = process::signalfd().doing(doing)?;
        let mut own = before.clone();
        own.local_flags.remove(LocalFlags::ICANON | LocalFlags::ECHO | LocalFlags::ISIG);
        own.control_chars[SpecialCharacterIndices::VMIN as usize] = 1;
        own.control_chars[SpecialCharacterIndices::VTIME as usize] = 0;
        tcsetattr(&stdin, SetArg::TCSAFLUSH, &own).doing(doing)?;
        let screen = Screen { out, before, signals, begun: Instant::now() };
        screen.out.write(ENTER)?;
        Ok(screen)
    }

    fn show(&mut self, rows: &[Row], key: Key) -> Result<()> {
        let (height, width) = tty::size(std::io::stdout()).unwrap_or((24, 80));
        let word = Key::ALL.iter().find(|(_, known)| *known == key).map_or("", |(word, _)| word);
        let head = format!(
            "{} running, by {word}, since {}   c m i n t p a: sort   r: turn around   q: quit",
            rows.len(),
            span(self.begun.elapsed().as_secs())
        );
        let body = table(&COLUMNS, &rows.iter().map(Row::cells).collect::<Vec<_>>());
        let lines = std::iter::once(head.as_str()).chain(body.lines()).take(usize::from(height.max(3)) - 1);
        let mut text = String::from("\x1b[H");
        for (at, line) in lines.enumerate() {
            let line: String = line.chars().take(usize::from(width)).collect();
            // The table's head stands out; each line is cleared behind its text.
            match at {
                1 => text.push_str(&format!("\x1b[7m{line}\x1b[0m\x1b[K\r\n")),
                _ => text.push_str(&format!("{line}\x1b[K\r\n")),
            }
        }
        text.push_str("\x1b[J");
        self.out.write(&text)
    }

    /// A key, or what ends it as one; `None` when the time is over.
    fn wait(&mut self, limit: Duration) -> Result<Option<u8>> {
        let stdin = std::io::stdin();
        let millis = i32::try_from(limit.as_millis()).unwrap_or(i32::MAX);
        let limit = PollTimeout::try_from(millis).unwrap_or(PollTimeout::MAX);
        let mut fds = [
            PollFd::new(stdin.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
        ];
        match poll(&mut fds, limit) {
            Ok(0) | Err(Errno::EINTR) => return Ok(None),
            other => other.doing(|| "waiting for a key")?,
        };
        let ready = |fd: &PollFd<'_>| fd.revents().is_some_and(|events| !events.is_empty());
        if ready(&fds[1])
            && let Ok(Some(signal)) = process::next_signal(&self.signals)
            && signal != libc::SIGWINCH
        {
            return Ok(Some(b'q'));
        }
        if !ready(&fds[0]) {
            return Ok(None);
        }
        let mut byte = [0u8; 1];
        match nix::unistd::read(stdin.as_fd(), &mut byte) {
            // The terminal went away.
            Ok(0) => Ok(Some(b'q')),
            Ok(_) => Ok(Some(byte[0])),
            Err(Errno::EINTR | Errno::EAGAIN) => Ok(None),
            Err(errno) => Err(Error::sys(errno, "reading a key")),
        }
    }
}

impl Drop for Screen<'_> {
    fn drop(&mut self) {
        let _ = self.out.write(LEAVE);
        let _ = tcsetattr(std::io::stdin(), SetArg::TCSAFLUSH, &self.before);
    }
}
