//! The file server: any bytes as FUSE requests of a guest, beside a canary tree that must stay as it is.
//!
//! The input is a sequence of requests: length, operation, node, names and numbers. Nodes and handles are small
//! numbers, so that the fuzzer meets those that the server gave out. Two operations are not the guest's: the monitor
//! adds an entry, and removes one.
#![no_main]

use std::cell::RefCell;
use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use locule_vmm::fs::{Access, Cache, Server, Tree, Worker};
use vm_memory::VolatileSlice;

/// `FUSE_INIT` of a guest that offers everything.
const INIT: u32 = 26;
const MKNOD: u32 = 8;
/// What no guest can ask for.
const ADD: u8 = 200;
const REMOVE: u8 = 201;

struct Guest {
    server: Arc<Server>,
    worker: Worker,
}

thread_local! {
    static GUEST: RefCell<Option<Guest>> = const { RefCell::new(None) };
}

fuzz_target!(|input: &[u8]| {
    let place = Place::new();
    let before = place.canaries();
    GUEST.with_borrow_mut(|guest| {
        // A worker keeps its thread; its server is made anew, as its tree is.
        let server = place.serve();
        *guest = Some(Guest { worker: server.worker().unwrap(), server });
        let guest = guest.as_mut().unwrap();
        let offer = [7, 45, 0, u32::MAX, u32::MAX].map(u32::to_le_bytes).concat();
        guest.send(INIT, 0, 0, &[&offer[..], &[0; 44]].concat());
        let mut rest = input;
        while let Some((head, after)) = rest.split_at_checked(4) {
            let length = usize::from(head[0]) * 2;
            let (body, after) = after.split_at(length.min(after.len()));
            match head[1] {
                ADD => place.add(&guest.server, head[2], head[3]),
                REMOVE => guest.server.shares().remove(&name(head[2])),
                // Device nodes of the machine that fuzzes are nobody's business.
                op if u32::from(op) == MKNOD => {}
                op => guest.send(op.into(), head[2].into(), head[3], body),
            }
            rest = after;
        }
        assert!(guest.server.known() < 4096);
    });
    assert_eq!(place.canaries(), before, "something outside was touched");
    let mut names: Vec<_> = fs::read_dir(&place.0).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["fixed", "outside", "root"], "something was made outside");
});

impl Guest {
    fn send(&mut self, op: u32, node: u64, how: u8, body: &[u8]) {
        // Now and then the header lies about the length, or there is little room for an answer.
        let length = if how & 1 == 0 { body.len() as u32 + 40 } else { u32::from(how) };
        let room = if how & 2 == 0 { 4096 } else { usize::from(how) };
        let id = u32::from(how >> 4);
        let mut request = [length, op].map(u32::to_le_bytes).concat();
        request.extend([9, node].map(u64::to_le_bytes).concat());
        request.extend([id, id, 1, 0].map(u32::to_le_bytes).concat());
        request.extend_from_slice(body);
        let mut reply = vec![0; room];
        let cut = usize::from(how) % request.len();
        let (one, two) = request.split_at_mut(cut);
        let (three, four) = reply.split_at_mut(usize::from(how).min(room));
        let filled = self
            .worker
            .handle(&[one, two].map(VolatileSlice::from), &[three, four].map(VolatileSlice::from));
        assert!(filled <= room);
    }
}

/// Of an entry that comes and goes; the first is there from the start.
fn name(which: u8) -> String {
    format!("m/{}", ["f", "1", "2", "3"][usize::from(which % 4)])
}

/// A directory of this process, emptied for each input.
struct Place(PathBuf);

impl Place {
    fn new() -> Place {
        let base = if Path::new("/dev/shm").is_dir() { PathBuf::from("/dev/shm") } else { std::env::temp_dir() };
        let dir = base.join(format!("locule-fuzz-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        for made in ["outside/dir", "root/d/e", "fixed/d"] {
            fs::create_dir_all(dir.join(made)).unwrap();
        }
        for made in ["outside/file", "root/f", "root/d/f", "fixed/f"] {
            fs::write(dir.join(made), "canary").unwrap();
        }
        symlink("file", dir.join("outside/link")).unwrap();
        // So that short links lead out.
        symlink("../outside", dir.join("root/o")).unwrap();
        Place(dir)
    }

    fn serve(&self) -> Arc<Server> {
        let mut tree = Tree::new();
        let open = |name: &str| File::open(self.0.join(name)).unwrap().into();
        tree.add("r", open("root"), Access::ReadWrite);
        tree.add("m/f", open("fixed"), Access::ReadOnly);
        tree.directory("m");
        Server::limited(tree, 200).unwrap()
    }

    /// The monitor adds one of three entries, if its name is free and the guest has not removed what it shows.
    fn add(&self, server: &Arc<Server>, which: u8, how: u8) {
        let (source, access) = match how % 3 {
            0 => ("root/d", Access::ReadWrite),
            1 => ("root/f", Access::ReadWrite),
            _ => ("fixed", Access::ReadOnly),
        };
        let path = self.0.join(source);
        // Links of the guest's making lead out, and its pipes are waited for.
        let meta = fs::symlink_metadata(&path);
        if meta.is_ok_and(|meta| meta.is_dir() || meta.is_file())
            && let Ok(file) = File::open(path)
        {
            let _ = server.shares().add(&name(which), file.into(), access, Cache::AUTO);
        }
    }

    fn canaries(&self) -> Vec<String> {
        ["outside", "outside/dir", "outside/file", "outside/link", "fixed", "fixed/d", "fixed/f"]
            .iter()
            .map(|name| {
                let path = self.0.join(name);
                let meta = fs::symlink_metadata(&path).unwrap();
                let count = if meta.is_dir() { fs::read_dir(&path).unwrap().count() } else { 0 };
                let text = if meta.is_file() { fs::read(&path).unwrap() } else { Vec::new() };
                format!("{:o} {} {} {} {count} {text:?}", meta.mode(), meta.uid(), meta.nlink(), meta.mtime_nsec())
            })
            .collect()
    }
}
