//! Directories, read entry by entry.

use std::ffi::{CStr, CString};
use std::sync::PoisonError;

use nix::errno::Errno;

use super::super::abi::{Dirent, EntryOut, InHeader, ROOT, ReadIn, Wire};
use super::super::handles::Handle;
use super::super::nodes::{Body as Is, Made};
use super::super::request::Body;
use super::super::server::Reply;
use super::super::sys::file;
use super::super::worker::Worker;

/// The most that one answer holds.
const ANSWER_MAX: usize = 256 * 1024;
/// The most that is read from the kernel at once.
const CHUNK: usize = 32 * 1024;
/// `linux_dirent64` before its name: inode, offset, length of the record, type.
const DIRENT64: usize = 19;

/// An entry as the kernel has it.
struct Found<'a> {
    ino: u64,
    next: u64,
    kind: u8,
    name: &'a CStr,
}

/// An answer that grows to a limit.
struct Answer {
    bytes: Vec<u8>,
    limit: usize,
}

impl Answer {
    /// Whether an entry of that name fits.
    fn fits(&self, name: &CStr, plus: bool) -> bool {
        self.bytes.len() + length(name, plus) <= self.limit
    }

    fn push(&mut self, entry: Option<&EntryOut>, found: &Found<'_>) {
        if let Some(entry) = entry {
            entry.encode(&mut self.bytes);
        }
        let name = found.name.to_bytes();
        let dirent =
            Dirent { ino: found.ino, off: found.next, namelen: name.len() as u32, kind: found.kind.into() };
        dirent.encode(&mut self.bytes);
        self.bytes.extend_from_slice(name);
        self.bytes.resize(self.bytes.len().next_multiple_of(8), 0);
    }
}

fn length(name: &CStr, plus: bool) -> usize {
    let head = Dirent::SIZE + if plus { EntryOut::SIZE } else { 0 };
    (head + name.count_bytes()).next_multiple_of(8)
}

impl Worker {
    pub(in super::super) fn readdir(
        &mut self,
        header: &InHeader,
        mut body: Body,
        space: usize,
        plus: bool,
    ) -> Result<Reply, Errno> {
        let read: ReadIn = body.take()?;
        let handle = self.server.handles.get(read.fh, header.nodeid)?;
        let limit = (read.size as usize).min(space).min(ANSWER_MAX);
        let mut answer = Answer { bytes: Vec::new(), limit };
        match &handle.node.body {
            Is::Made(made) => self.list_made(&handle, made, read.offset, &mut answer, plus),
            Is::File(_) => self.list(&handle, read.offset, &mut answer, plus)?,
        }
        Ok(Reply::Bytes(answer.bytes))
    }

    fn list(&self, handle: &Handle, offset: u64, answer: &mut Answer, plus: bool) -> Result<(), Errno> {
        let mut position = handle.position.lock().unwrap_or_else(PoisonError::into_inner);
        let fd = handle.fd()?;
        if *position != offset {
            file::seek(fd, i64::try_from(offset).map_err(|_| Errno::EINVAL)?, libc::SEEK_SET)?;
            *position = offset;
        }
        // About as many entries as the answer will hold, so that few are read twice.
        let chunk = (answer.limit / if plus { 4 } else { 1 }).clamp(1024, CHUNK);
        let mut buffer = vec![0; chunk];
        loop {
            let count = match file::entries(fd, &mut buffer) {
                Ok(0) => return Ok(()),
                Ok(count) => count,
                // What is in the answer is lost otherwise; the error comes again.
                Err(_) if !answer.bytes.is_empty() => return Ok(()),
                Err(errno) => return Err(errno),
            };
            let mut next = *position;
            let mut rest = buffer.get(..count).unwrap_or_default();
            while let Some((found, after)) = parse(rest) {
                if !self.add(handle, answer, &found, plus) {
                    // The kernel stands behind what was read, not behind what was told.
                    *position = u64::MAX;
                    return if answer.bytes.is_empty() { Err(Errno::EINVAL) } else { Ok(()) };
                }
                next = found.next;
                rest = after;
            }
            *position = next;
            if answer.bytes.len() + answer.limit / 8 > answer.limit {
                return Ok(());
            }
        }
    }

    /// Adds an entry; false if there is no space for it.
    fn add(&self, handle: &Handle, answer: &mut Answer, found: &Found<'_>, plus: bool) -> bool {
        if !answer.fits(found.name, plus) {
            return false;
        }
        let dots = matches!(found.name.to_bytes(), b"." | b"..");
        let top = handle.node.file().is_ok_and(|file| file.top);
        if found.name == c".." && top {
            // Where the entry of the tree lies on the host is not the guest's.
            answer.push(plus.then(EntryOut::default).as_ref(), &Found { ino: ROOT, ..*found });
        } else if !plus {
            answer.push(None, found);
        } else if dots {
            answer.push(Some(&EntryOut::default()), found);
        } else {
            match self.find(&handle.node, found.name) {
                Ok((node, stat)) => {
                    let entry = self.entry(&node, &stat);
                    answer.push(Some(&entry), &Found { ino: entry.attr.ino, ..*found });
                }
                // Gone since.
                Err(Errno::ENOENT) => {}
                // There, but not to be looked at: the guest may try for itself.
                Err(_) => answer.push(Some(&EntryOut::default()), found),
            }
        }
        true
    }

    /// An offset is the number of the first node that was not told yet, so that it holds when names come and go.
    /// Two lower ones are for the dots: no name leads to a node below 2.
    fn list_made(&self, handle: &Handle, made: &Made, offset: u64, answer: &mut Answer, plus: bool) {
        for (next, id, name) in [(1, handle.node.id, c"."), (2, made.parent, c"..")] {
            let found = Found { ino: id, next, kind: libc::DT_DIR, name };
            if offset < next && !self.add(handle, answer, &found, plus) {
                return;
            }
        }
        for (name, node) in self.server.nodes.names(handle.node.id, offset) {
            let kind = match &node.body {
                Is::File(file) if file.kind == libc::S_IFREG => libc::DT_REG,
                _ => libc::DT_DIR,
            };
            let Ok(name) = CString::new(name) else { continue };
            let found = Found { ino: node.id, next: node.id + 1, kind, name: &name };
            if !self.add(handle, answer, &found, plus) {
                return;
            }
        }
    }
}

/// The first entry of what `getdents64` gave, and what is behind it.
fn parse(bytes: &[u8]) -> Option<(Found<'_>, &[u8])> {
    let record = usize::from(u16::from_ne_bytes(*bytes.get(16..)?.first_chunk()?));
    let (entry, rest) = bytes.split_at_checked(record)?;
    let number = |at: usize| entry.get(at..)?.first_chunk().map(|bytes| u64::from_ne_bytes(*bytes));
    let name = CStr::from_bytes_until_nul(entry.get(DIRENT64..)?).ok()?;
    Some((Found { ino: number(0)?, next: number(8)?, kind: *entry.get(18)?, name }, rest))
}
