//! A BPF assembler that writes from the last instruction to the first.
//!
//! Every jump goes forward, so its target exists when it is written and its distance is known at once:
//! a return too far for the 8 bits of a conditional jump is written again nearby, a block gets a long jump.

use libc::sock_filter;

/// BPF opcodes of linux/bpf_common.h; all of them are what the kernel's "always allowed" bitmap
/// (5.11, `seccomp_is_const_allow`) can evaluate, so allowed calls skip the program altogether.
const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
const AND: u16 = (libc::BPF_ALU | libc::BPF_AND | libc::BPF_K) as u16;
const JUMP: u16 = (libc::BPF_JMP | libc::BPF_JA) as u16;
const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;

/// A conditional jump's test of the accumulator.
#[derive(Clone, Copy)]
pub(super) enum Jump {
    Equal,
    GreaterOrEqual,
    Greater,
}

/// Where a jump goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Target {
    /// Return this `SECCOMP_RET_*` value.
    Return(u32),
    /// The instruction with this many instructions after it.
    Block(usize),
}

/// The program so far, backwards.
#[derive(Default)]
pub(super) struct Assembler {
    reversed: Vec<sock_filter>,
    /// The newest copy of each return, and the newest long jump to each block that needed one.
    near: Vec<(Target, usize)>,
}

/// Distance to a target that a jump covers, even if one instruction is written for its other branch:
/// a jump's offset, at most 255, counts from the instruction after it.
const REACH: usize = 255;

impl Assembler {
    /// Writes `A = seccomp_data[offset]`.
    pub(super) fn load(&mut self, offset: u32) -> Target {
        self.push(LOAD, offset, 0, 0)
    }

    /// Writes `A &= mask`.
    pub(super) fn and(&mut self, mask: u32) -> Target {
        self.push(AND, mask, 0, 0)
    }

    /// Makes what is written next fall through to `target`.
    pub(super) fn fall_through(&mut self, target: Target) {
        match target {
            Target::Return(value) => {
                self.push(RETURN, value, 0, 0);
            }
            Target::Block(at) if at + 1 == self.reversed.len() => {}
            Target::Block(at) => {
                self.push(JUMP, (self.reversed.len() - at - 1) as u32, 0, 0);
            }
        }
    }

    /// Writes a jump to `yes` if the accumulator passes the test against `k`, to `no` otherwise.
    pub(super) fn jump(&mut self, test: Jump, k: u32, yes: Target, no: Target) -> Target {
        let code = match test {
            Jump::Equal => libc::BPF_JEQ,
            Jump::GreaterOrEqual => libc::BPF_JGE,
            Jump::Greater => libc::BPF_JGT,
        };
        let (yes, no) = (self.reach(yes), self.reach(no));
        let here = self.reversed.len();
        // Both fit: `reach` promised it with room for the other's extra instruction.
        self.push(
            (libc::BPF_JMP | code | libc::BPF_K) as u16,
            k,
            (here - yes - 1) as u8,
            (here - no - 1) as u8,
        )
    }

    /// The program in its order.
    pub(super) fn finish(mut self) -> Vec<sock_filter> {
        self.reversed.reverse();
        self.reversed
    }

    /// A position near enough for a conditional jump that leads to `target`.
    fn reach(&mut self, target: Target) -> usize {
        let here = self.reversed.len();
        if let Target::Block(at) = target
            && here - at <= REACH
        {
            return at;
        }
        let known = self.near.iter().position(|(of, _)| *of == target);
        if let Some(index) = known
            && here - self.near[index].1 <= REACH
        {
            return self.near[index].1;
        }
        match target {
            Target::Return(value) => self.push(RETURN, value, 0, 0),
            Target::Block(at) => self.push(JUMP, (here - at - 1) as u32, 0, 0),
        };
        match known {
            Some(index) => self.near[index].1 = here,
            None => self.near.push((target, here)),
        }
        here
    }

    fn push(&mut self, code: u16, k: u32, jt: u8, jf: u8) -> Target {
        self.reversed.push(sock_filter { code, jt, jf, k });
        Target::Block(self.reversed.len() - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::super::oracle::interpret::{Data, check, run};
    use super::*;

    /// A block at every distance around the limit, with a return to be written in between or not.
    #[test]
    fn jumps_reach_targets_at_every_distance() {
        for padding in 240..270 {
            for (yes_is_far, other) in [(true, 9), (false, 9), (true, 7), (false, 7)] {
                let mut asm = Assembler::default();
                asm.fall_through(Target::Return(1));
                let far = asm.load(0);
                for _ in 0..padding {
                    asm.load(0);
                }
                // A copy of return 7 is near, one of 9 is not.
                let near = asm.jump(Jump::Greater, 100, Target::Return(7), Target::Return(8));
                let (yes, no) =
                    if yes_is_far { (far, Target::Return(other)) } else { (Target::Return(other), far) };
                let both = asm.jump(Jump::Equal, 4, yes, no);
                asm.jump(Jump::Greater, 50, near, both);
                asm.load(0);
                let program = asm.finish();
                check(&program);
                let (four, five) = if yes_is_far { (1, other) } else { (other, 1) };
                for (nr, want) in [(4, four), (5, five), (60, 8), (101, 7)] {
                    let verdict = run(&program, &Data { nr, ..Data::default() });
                    assert_eq!(verdict, want, "{nr} with {padding} in between, {yes_is_far} {other}");
                }
            }
        }
    }
}
