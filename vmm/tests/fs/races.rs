//! Somebody on the host moves directories and links about while the guest works in them.

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};

use super::client::*;

#[test]
fn a_directory_that_becomes_a_link_leads_nowhere() {
    let dir = tempfile::tempdir().unwrap();
    let (outside, root) = (dir.path().join("outside"), dir.path().join("root"));
    fs::create_dir_all(&outside).unwrap();
    fs::create_dir_all(root.join("d")).unwrap();
    for name in ["secret", "victim"] {
        fs::write(outside.join(name), "canary").unwrap();
        fs::write(root.join("d").join(name), "inside").unwrap();
    }
    symlink(&outside, root.join("l")).unwrap();
    let canary = fs::metadata(&outside).unwrap().ino();
    let outside_file = fs::metadata(outside.join("secret")).unwrap().ino();

    let end = Arc::new(AtomicBool::new(false));
    let mover = {
        let (end, one, two) = (end.clone(), root.join("d"), root.join("l"));
        thread::spawn(move || {
            let mut count = 0u64;
            while !end.load(Ordering::Relaxed) {
                renameat2(AT_FDCWD, &one, AT_FDCWD, &two, RenameFlags::RENAME_EXCHANGE).unwrap();
                count += 1;
            }
            count
        })
    };
    let guest = Client::on(&root);
    let top = guest.walk("root").node;
    let (mut links, mut found) = (0, 0);
    for turn in 0..2000 {
        let entry = guest.lookup(top, "d").unwrap();
        assert_ne!(entry.ino, canary);
        if entry.mode & libc::S_IFMT == libc::S_IFLNK {
            links += 1;
            assert_eq!(guest.lookup(entry.node, "secret").err(), Some(libc::ENOTDIR));
            assert_eq!(guest.create(entry.node, "new", libc::O_RDWR, 0o644, 0).err(), Some(libc::ENOTDIR));
            assert_eq!(guest.call(UNLINK, entry.node, &[&z("victim")]), Err(libc::ENOTDIR));
            continue;
        }
        // What was a directory stays that directory, wherever its name leads now.
        let file = guest.lookup(entry.node, "secret").unwrap();
        assert_ne!(file.ino, outside_file);
        let fh = guest.open(file.node, libc::O_RDONLY).unwrap();
        assert_eq!(guest.read(file.node, fh, 0, 99).unwrap(), b"inside");
        guest.release(file.node, fh).unwrap();
        let name = format!("n{turn}");
        guest.touch(entry.node, &name);
        guest.call(UNLINK, entry.node, &[&z(&name)]).unwrap();
        found += 1;
    }
    end.store(true, Ordering::Relaxed);
    let moved = mover.join().unwrap();
    assert!(moved > 100 && links > 10 && found > 10, "{moved} {links} {found}");
    let mut names: Vec<_> = fs::read_dir(&outside).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["secret", "victim"]);
    assert_eq!(fs::read(outside.join("victim")).unwrap(), b"canary");
}

#[test]
fn threads_that_find_one_file_find_one_node() {
    let dir = tempfile::tempdir().unwrap();
    for number in 0..50 {
        File::create(dir.path().join(number.to_string())).unwrap();
    }
    let guest = Client::on(dir.path());
    let root = guest.walk("root").node;
    let before = guest.server.known();
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let guest = Client::raw(&guest.server);
            thread::spawn(move || {
                for turn in 0..500 {
                    let entry = guest.lookup(root, &(turn % 50).to_string()).unwrap();
                    let again = guest.lookup(root, &(turn % 50).to_string()).unwrap();
                    assert_eq!(entry.node, again.node);
                    let fh = guest.open(entry.node, libc::O_RDWR).unwrap();
                    guest.write(entry.node, fh, 0, b"x").unwrap();
                    guest.release(entry.node, fh).unwrap();
                    guest.bytes(guest.message(FORGET, entry.node, &[&q(&[2])]), 0);
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    assert_eq!(guest.server.known(), before, "each was forgotten as often as it was found");
}
