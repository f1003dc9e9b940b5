//! Mount options: one table from words to what they set, clear or mean.
//!
//! Pure; unknown words are data for the file system, as with mount(8).

use crate::sys::mount::{MountAttr, attr};

/// What one option word does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Act {
    /// Nothing to do (defaults and words of the kernel's past).
    Nothing,
    /// Sets an attribute of the mount.
    Set(u64),
    /// Clears an attribute of the mount.
    Clear(u64),
    /// Chooses the access-time mode.
    Atime(u64),
    /// The same three on the mount and all below it.
    SetAll(u64),
    ClearAll(u64),
    AtimeAll(u64),
    /// Propagation, and whether it reaches the mounts below.
    Propagate(u64, bool),
    /// A flag of the superblock, under its fsconfig(2) name.
    Superblock(&'static str),
    Bind(bool),
    Remount,
    CopyUp,
    IdMap(bool),
}

use Act::{
    Atime, AtimeAll, Bind, Clear, ClearAll, CopyUp, IdMap, Nothing, Propagate, Remount, Set, SetAll,
    Superblock,
};

/// Every option of the runtime-spec (config.md, Linux mount options) and runc's synonyms.
const TABLE: &[(&str, Act)] = &[
    ("acl", Superblock("acl")),
    ("async", Superblock("async")),
    ("atime", Atime(0)),
    ("bind", Bind(false)),
    ("defaults", Nothing),
    ("dev", Clear(attr::NODEV)),
    ("diratime", Clear(attr::NODIRATIME)),
    ("dirsync", Superblock("dirsync")),
    ("exec", Clear(attr::NOEXEC)),
    ("idmap", IdMap(false)),
    ("iversion", Superblock("iversion")),
    ("lazytime", Superblock("lazytime")),
    ("loud", Nothing),
    ("mand", Superblock("mand")),
    ("noacl", Superblock("noacl")),
    ("noatime", Atime(attr::NOATIME)),
    ("nodev", Set(attr::NODEV)),
    ("nodiratime", Set(attr::NODIRATIME)),
    ("noexec", Set(attr::NOEXEC)),
    ("noiversion", Nothing),
    ("nolazytime", Superblock("nolazytime")),
    ("nomand", Superblock("nomand")),
    ("norelatime", Nothing),
    ("nostrictatime", Nothing),
    ("nosuid", Set(attr::NOSUID)),
    ("nosymfollow", Set(attr::NOSYMFOLLOW)),
    ("private", Propagate(libc::MS_PRIVATE, false)),
    ("ratime", AtimeAll(0)),
    ("rbind", Bind(true)),
    ("rdev", ClearAll(attr::NODEV)),
    ("rdiratime", ClearAll(attr::NODIRATIME)),
    ("relatime", Atime(0)),
    ("remount", Remount),
    ("rexec", ClearAll(attr::NOEXEC)),
    ("ridmap", IdMap(true)),
    ("rnoatime", AtimeAll(attr::NOATIME)),
    ("rnodev", SetAll(attr::NODEV)),
    ("rnodiratime", SetAll(attr::NODIRATIME)),
    ("rnoexec", SetAll(attr::NOEXEC)),
    ("rnorelatime", Nothing),
    ("rnostrictatime", Nothing),
    ("rnosuid", SetAll(attr::NOSUID)),
    ("rnosymfollow", SetAll(attr::NOSYMFOLLOW)),
    ("ro", Set(attr::RDONLY)),
    ("rprivate", Propagate(libc::MS_PRIVATE, true)),
    ("rrelatime", AtimeAll(0)),
    ("rro", SetAll(attr::RDONLY)),
    ("rrw", ClearAll(attr::RDONLY)),
    ("rshared", Propagate(libc::MS_SHARED, true)),
    ("rslave", Propagate(libc::MS_SLAVE, true)),
    ("rstrictatime", AtimeAll(attr::STRICTATIME)),
    ("rsuid", ClearAll(attr::NOSUID)),
    ("rsymfollow", ClearAll(attr::NOSYMFOLLOW)),
    ("runbindable", Propagate(libc::MS_UNBINDABLE, true)),
    ("rw", Clear(attr::RDONLY)),
    ("shared", Propagate(libc::MS_SHARED, false)),
    ("silent", Nothing),
    ("slave", Propagate(libc::MS_SLAVE, false)),
    ("strictatime", Atime(attr::STRICTATIME)),
    ("suid", Clear(attr::NOSUID)),
    ("symfollow", Clear(attr::NOSYMFOLLOW)),
    ("sync", Superblock("sync")),
    ("tmpcopyup", CopyUp),
    ("unbindable", Propagate(libc::MS_UNBINDABLE, false)),
];

/// The words that this runtime understands itself, for `features`.
pub fn known() -> impl Iterator<Item = &'static str> {
    TABLE.iter().map(|(word, _)| *word)
}

/// The options of one mount, sorted by what they act on.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// `bind` or `rbind`; the value is whether it is recursive.
    pub bind: Option<bool>,
    /// Change an existing mount.
    pub remount: bool,
    /// Copy what the image has there into the new tmpfs.
    pub copy_up: bool,
    /// `idmap` or `ridmap`; the value is whether it is recursive.
    pub idmap: Option<bool>,
    /// What stands behind `idmap=` or `ridmap=`: maps of the mount's own, as crun and Podman write them.
    pub idmap_maps: Option<String>,
    /// For the mount itself.
    pub attr: MountAttr,
    /// Whether any word was about the attributes of the mount itself.
    pub exact: bool,
    /// For the mount and all below it.
    pub attr_all: MountAttr,
    /// In order: propagation flag and whether it is recursive.
    pub propagation: Vec<(u64, bool)>,
    /// Flags of the superblock.
    pub superblock: Vec<&'static str>,
    /// `key` or `key=value` for the file system.
    pub data: Vec<String>,
}

/// Sorts the words of `options`.
pub fn parse(options: &[String]) -> Options {
    let mut out = Options::default();
    for word in options {
        if let Some((name @ ("idmap" | "ridmap"), maps)) = word.split_once('=') {
            out.idmap = Some(name == "ridmap");
            out.idmap_maps = Some(maps.to_owned());
            continue;
        }
        let Ok(at) = TABLE.binary_search_by_key(&word.as_str(), |(name, _)| name) else {
            // A propagation or flag word never has a value, so what is left is data.
            out.data.extend(word.split(',').filter(|w| !w.is_empty()).map(str::to_owned));
            continue;
        };
        out.exact |= matches!(TABLE[at].1, Set(_) | Clear(_) | Atime(_));
        match TABLE[at].1 {
            Nothing => {}
            Set(bits) => set(&mut out.attr, bits),
            Clear(bits) => clear(&mut out.attr, bits),
            Atime(mode) => atime(&mut out.attr, mode),
            SetAll(bits) => set(&mut out.attr_all, bits),
            ClearAll(bits) => clear(&mut out.attr_all, bits),
            AtimeAll(mode) => atime(&mut out.attr_all, mode),
            Propagate(flag, recursive) => out.propagation.push((flag, recursive)),
            Superblock(flag) => out.superblock.push(flag),
            Bind(recursive) => out.bind = Some(recursive),
            Remount => out.remount = true,
            CopyUp => out.copy_up = true,
            IdMap(recursive) => out.idmap = Some(recursive),
        }
    }
    out
}

fn set(attr: &mut MountAttr, bits: u64) {
    attr.set |= bits;
    attr.clear &= !bits;
}

fn clear(attr: &mut MountAttr, bits: u64) {
    attr.clear |= bits;
    attr.set &= !bits;
}

/// The kernel wants the whole access-time field cleared whenever its mode is chosen.
fn atime(attr: &mut MountAttr, mode: u64) {
    attr.clear |= attr::ATIME_MASK;
    attr.set = attr.set & !attr::ATIME_MASK | mode;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Options {
        parse(&text.split(' ').map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn table_is_sorted() {
        assert!(TABLE.is_sorted_by_key(|(name, _)| *name));
    }

    #[test]
    fn later_words_win() {
        let out = words("ro rw nosuid noatime relatime");
        assert_eq!(out.attr.set, attr::NOSUID);
        assert_eq!(out.attr.clear, attr::RDONLY | attr::ATIME_MASK);
    }

    #[test]
    fn recursive_words_do_not_touch_the_plain_set() {
        let out = words("rbind rro rstrictatime rslave");
        assert_eq!((out.bind, out.exact), (Some(true), false));
        assert_eq!((out.attr.set, out.attr.clear), (0, 0));
        assert_eq!(out.attr_all.set, attr::RDONLY | attr::STRICTATIME);
        assert_eq!(out.propagation, [(libc::MS_SLAVE, true)]);
    }

    #[test]
    fn maps_behind_a_word_are_kept() {
        let out = words("rbind ridmap=uids=0-1-10#10-11-10;gids=0-3-10");
        assert_eq!(out.idmap, Some(true));
        assert_eq!(out.idmap_maps.as_deref(), Some("uids=0-1-10#10-11-10;gids=0-3-10"));
        assert!(out.data.is_empty());
        assert_eq!(words("rbind idmap").idmap_maps, None);
    }

    #[test]
    fn unknown_words_are_data() {
        assert_eq!(
            words("mode=755 size=64k,nr_inodes=5 nosuid").data,
            ["mode=755", "size=64k", "nr_inodes=5"]
        );
    }
}
