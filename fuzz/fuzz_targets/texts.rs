//! Short texts that others write: an image's passwd, /proc/self/cgroup, ids, `cgroupsPath`.
#![no_main]

mod shared;

use std::path::{Component, PathBuf};

use libfuzzer_sys::fuzz_target;
use locule_runtime::attrs::user;
use locule_runtime::cgroup::{Location, Manager, Request, own_cgroup};
use locule_runtime::state::check_id;

fuzz_target!(|input: &[u8]| {
    let Some((which, rest)) = input.split_first() else { return };
    let Ok(text) = std::str::from_utf8(rest) else { return };
    match which % 4 {
        0 => passwd(text),
        1 => match own_cgroup(text) {
            Ok(path) => assert!(!path.components().any(|part| part == Component::ParentDir), "{path:?}"),
            Err(err) => shared::refused(&err),
        },
        2 => match check_id(text) {
            Ok(()) => {
                assert!(!text.starts_with('.') && !text.contains('/') && text.is_ascii() && text.len() < 256)
            }
            Err(err) => shared::refused(&err),
        },
        _ => place(text),
    }
});

/// A home is that of a line with the number in its place, and absolute.
fn passwd(text: &str) {
    for uid in [0, 1000, u32::MAX] {
        let home = user::home_for(uid, text);
        assert!(home.starts_with('/'), "{home:?}");
        assert!(home == "/" || text.contains(&home), "{home:?}");
    }
}

/// A cgroup lies below the mount, whatever the document asks for.
fn place(text: &str) {
    for manager in [Manager::Cgroupfs, Manager::Systemd { user: false }, Manager::Systemd { user: true }] {
        let request = Request { id: "fuzzed", cgroups_path: Some(text), manager, rootless: false };
        match Location::resolve(&request, || Ok(PathBuf::from("/own/cgroup"))) {
            Ok(place) => {
                let plain = |part| matches!(part, Component::RootDir | Component::Normal(_));
                assert!(place.path.is_absolute() && place.path.components().all(plain), "{place:?}");
                assert!(place.path.components().count() > 1, "{place:?}");
                assert!(place.record().path == place.path);
            }
            Err(err) => shared::refused(&err),
        }
    }
}
