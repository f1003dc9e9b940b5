//! The keeper and its attendant: made, made anew, told and heard.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use locule_runtime::sys::clone::{Cloned, clone3};
use locule_runtime::sys::{process, socket};

use super::{Supervisor, trouble};
use crate::definition::Ready;
use crate::keeper::attend::{self, Attendant};
use crate::keeper::log::{Stream, Writer};
use crate::keeper::protocol::{LONGEST, inner, packet};
use crate::keeper::ring::Ring;
use crate::keeper::spool::Spool;
use crate::keeper::{jail, notify};
use crate::{Context, Result};

impl Supervisor<'_> {
    pub(super) fn hear_attendant(&mut self) -> Result<()> {
        let Some((_, sock)) = &self.attendant else { return Ok(()) };
        let mut bytes = [0; LONGEST];
        let length = match socket::recv(sock, &mut bytes) {
            // Its end is seen by wait(2).
            Ok((0, _)) | Err(_) => {
                self.attendant = None;
                return self.make_attendant_again();
            }
            Ok((length, _)) => length,
        };
        let rest = &bytes[1..length];
        match bytes[0] {
            inner::DRAINED if self.ending.as_ref().is_some_and(|ending| ending.drain.is_some()) => {
                self.clean_up()?;
            }
            inner::NOTIFY => {
                // Sifted again: the attendant has touched what the machine wrote.
                let said = notify::sift(rest);
                self.fed |= said.watchdog;
                let ours = self.definition.boot.ready;
                let lines = match said.ready && ours != Ready::Notify {
                    true => without_ready(&said.lines),
                    false => said.lines,
                };
                if let Some(manager) = &self.manager {
                    manager.tell(&lines, &[]);
                }
                if said.ready && ours == Ready::Notify {
                    self.ready()?;
                }
            }
            inner::TROUBLE => trouble(&String::from_utf8_lossy(rest)),
            _ => {}
        }
        Ok(())
    }

    pub(super) fn make_attendant(&mut self) -> Result<()> {
        let run = self.machine.run();
        let (ours, theirs) = socket::pair().doing(|| "making a socket for the attendant")?;
        let dup = |fd: &OwnedFd| fd.try_clone().doing(|| "making the attendant");
        let given = Attendant {
            run: run.to_owned(),
            keeper: Some(theirs),
            listener: dup(&self.listener)?,
            pipes: [
                (Stream::Stdout, dup(&self.pipes[0])?),
                (Stream::Stderr, dup(&self.pipes[1])?),
                (Stream::Stdout, dup(&self.through.0)?),
            ],
            through: dup(&self.through.1)?,
            notify: dup(&self.notify)?,
            log: Writer::open(&self.definition.log, self.machine.name(), self.machine.dir())?,
            machine: (self.machine.name().to_owned(), self.machine.dir().to_owned()),
            ring: Ring::open(run)?,
            spool: Spool::open(run)?,
        };
        match clone3(0, None).doing(|| "making the attendant")? {
            Cloned::Parent(pid, _) => {
                self.attendant = Some((pid, ours));
                self.introduce();
                Ok(())
            }
            Cloned::Child => {
                let mut kept: Vec<BorrowedFd<'_>> = vec![given.listener.as_fd(), given.notify.as_fd()];
                kept.extend(given.keeper.iter().map(AsFd::as_fd));
                kept.extend(given.pipes.iter().map(|(_, pipe)| pipe.as_fd()));
                kept.extend(given.log.fds());
                kept.extend([given.through.as_fd(), given.ring.as_fd(), given.spool.as_fd()]);
                let code = match process::close_all_but(3, &kept).doing(|| "making the attendant") {
                    Ok(()) => match jail::enter() {
                        Ok(()) => attend::serve(given),
                        Err(err) => {
                            trouble(&err.to_string());
                            1
                        }
                    },
                    Err(_) => 1,
                };
                process::exit_now(code)
            }
        }
    }

    /// The attendant died: another takes its place, at once if it lived for a while.
    pub(super) fn make_attendant_again(&mut self) -> Result<()> {
        if self.ending.as_ref().is_some_and(|ending| ending.drain.is_some()) {
            self.clean_up()?;
        }
        trouble("the attendant died; another one takes its place");
        self.make_attendant()
    }

    /// Gives the attendant what the machine that runs has.
    pub(super) fn introduce(&self) {
        let (Some((_, sock)), Some(init)) = (&self.attendant, &self.init) else { return };
        let mut fds = vec![init.pidfd.as_fd()];
        fds.extend(init.master.as_ref().map(AsFd::as_fd));
        let kind: &[u8] = if init.master.is_some() { b"terminal" } else { b"" };
        let _ = socket::send(sock, &packet(inner::BEGIN, kind), &fds);
    }

    /// Hands the attendant, which can open little itself, the log of the definition.
    pub(super) fn change_log(&self) -> Result<()> {
        let Some((_, sock)) = &self.attendant else { return Ok(()) };
        let log = &self.definition.log;
        let writer = Writer::open(log, self.machine.name(), self.machine.dir())?;
        let text = serde_json::to_vec(log).doing(|| "handing on the log")?;
        let fds: Vec<BorrowedFd<'_>> = writer.fds().into_iter().collect();
        socket::send(sock, &packet(inner::LOG, &text), &fds).doing(|| "handing on the log").map(drop)
    }
}

fn without_ready(lines: &[u8]) -> Vec<u8> {
    lines
        .split_inclusive(|byte| *byte == b'\n')
        .filter(|line| *line != b"READY=1\n")
        .flatten()
        .copied()
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_alone_is_taken_out() {
        assert_eq!(without_ready(b"STATUS=x\nREADY=1\nERRNO=2\n"), b"STATUS=x\nERRNO=2\n");
    }
}
