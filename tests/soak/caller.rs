//! One of the callers: what it does next, and what may go wrong because another was quicker.
//!
//! Owns its random choices and the tally of how its calls ended.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::expected::EXPECTED;
use crate::lane::{Bundle, LOCULE};
use crate::reaper::Reaper;

/// How often each call ended how.
pub type Tally = BTreeMap<String, usize>;

/// A caller with names that it shares and one of its own.
#[derive(Debug)]
pub struct Caller<'a> {
    bundle: &'a Bundle,
    reaper: Reaper,
    shared: &'a [String],
    own: String,
    said: PathBuf,
    seed: u64,
    /// How its calls ended.
    pub tally: Tally,
}

impl<'a> Caller<'a> {
    /// The caller `number`.
    pub fn new(bundle: &'a Bundle, reaper: &Reaper, shared: &'a [String], number: usize) -> Caller<'a> {
        Caller {
            bundle,
            reaper: reaper.clone(),
            shared,
            own: format!("{}-own-{number}", bundle.id()),
            said: bundle.path(&format!("said-{number}")),
            seed: (number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            tally: Tally::new(),
        }
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.seed = self.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.seed >> 33) % limit
    }

    fn count(&mut self, word: impl Into<String>) {
        *self.tally.entry(word.into()).or_default() += 1;
    }

    /// One thing or another.
    pub fn act(&mut self) {
        let shared = self.shared;
        let id = shared[self.below(shared.len() as u64) as usize].as_str();
        match self.below(12) {
            0 | 1 => self.may_fail(&["create", id]),
            2 => self.may_fail(&["start", id]),
            3 => self.may_fail(&["kill", id, "KILL"]),
            4 => self.may_fail(&["delete", id]),
            5 => self.may_fail(&["delete", "--force", id]),
            6 => self.may_fail(&["state", id]),
            7 => self.may_fail(&["run", "--detach", id]),
            8 => self.killed(&["create", id]),
            9 => self.killed(&["delete", "--force", id]),
            _ => self.life(),
        }
    }

    /// The life of a container that nobody else knows: nothing may fail.
    pub fn life(&mut self) {
        let own = self.own.clone();
        let own = own.as_str();
        self.succeeds(&["create", own]);
        self.succeeds(&["start", own]);
        if self.below(3) == 0 {
            self.succeeds(&["exec", own, "true"]);
        }
        self.succeeds(&["delete", "--force", own]);
        self.count("whole lives");
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(LOCULE);
        command.arg("--root").arg(self.bundle.root()).args(words).current_dir(self.bundle.path(""));
        // The container inherits what create has: no pipe, or it would be waited for.
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(&self.said).unwrap());
        command
    }

    fn call(&mut self, words: &[&str]) -> (Option<i32>, String) {
        let child = self.reaper.spawn(&mut self.command(words));
        let status = self.reaper.wait(child);
        let told = std::fs::read_to_string(&self.said).unwrap();
        std::fs::remove_file(&self.said).unwrap();
        (status.code(), told)
    }

    /// A call that must succeed.
    pub fn succeeds(&mut self, words: &[&str]) {
        let ended = self.call(words);
        assert_eq!(ended, (Some(0), String::new()), "{words:?}");
        self.count(format!("{}: done", words[0]));
    }

    /// A call on a container that others work on.
    fn may_fail(&mut self, words: &[&str]) {
        let (code, told) = self.call(words);
        if code == Some(0) {
            return self.count(format!("{}: done", words[0]));
        }
        let expected = EXPECTED.iter().any(|word| told.contains(word));
        assert!(code.is_some() && told.lines().count() == 1 && expected, "{words:?}: {code:?}: {told}");
        self.count(format!("{}: refused", words[0]));
    }

    /// A call that is killed at some moment of it, if it lasts until then.
    fn killed(&mut self, words: &[&str]) {
        let wait = Duration::from_micros(self.below(60_000));
        let mut child = self.reaper.spawn(&mut self.command(words));
        std::thread::sleep(wait);
        let _ = child.kill();
        let status = self.reaper.wait(child);
        let _ = std::fs::remove_file(&self.said);
        if status.code().is_none() {
            self.count("killed calls");
        }
    }
}
