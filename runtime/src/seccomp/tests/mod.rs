//! The compiler against an interpreter, an evaluator written from the specification, and `seccompiler`.

mod differential;
mod rules;
mod seccompiler;

use crate::spec::{Seccomp, SeccompArg, SeccompRule};

/// A profile whose default is `default`, with `rules`.
fn profile(default: &str, rules: Vec<SeccompRule>) -> Seccomp {
    Seccomp { default_action: default.to_owned(), syscalls: rules, ..Seccomp::default() }
}

fn rule(action: &str, names: &[&str], args: Vec<SeccompArg>) -> SeccompRule {
    let names = names.iter().map(|name| (*name).to_owned()).collect();
    SeccompRule { names, action: action.to_owned(), errno_ret: None, args }
}

fn arg(index: u32, op: &str, value: u64) -> SeccompArg {
    SeccompArg { index, value, value_two: 0, op: op.to_owned() }
}

/// xorshift64*: repeatable from the seed that a failing test prints.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `limit`.
    fn below(&mut self, limit: usize) -> usize {
        (self.next() >> 33) as usize % limit
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }
}
