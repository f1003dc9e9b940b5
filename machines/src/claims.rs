//! Numbers that only one machine of a host may have: ranges of user ids.
//!
//! Owns the claim files, one a number, made with O_EXCL. A number is written into the machine's state before it is
//! claimed, so a claim that no state names belongs to nobody, whatever was killed when.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::ops::Range;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use locule_images::rootfs::Map;

use crate::state::State;
use crate::{Context, Error, Home, Kind, Machine, Result, file, lock};

/// How many ids a machine has.
pub const COUNT: u32 = 65536;
/// The first range begins here, as systemd's does (UIDS-GIDS).
const FIRST: u32 = 524_288;
/// No range begins above.
const LAST: u32 = 1_878_982_656;

fn place(home: &Home) -> PathBuf {
    home.data().join("claims/uid")
}

/// Gives `machine` a range of its own and writes it into its state.
pub fn take_ids(home: &Home, machine: &Machine, state: &mut State) -> Result<Map> {
    let dir = place(home);
    lock::make_private(&dir)?;
    let foreign = foreign(Path::new("/etc"));
    let slots = (LAST - FIRST) / COUNT;
    let start = hash(machine.name()) % slots;
    for step in 0..slots {
        let first = FIRST + (start + step) % slots * COUNT;
        let range = u64::from(first)..u64::from(first + COUNT);
        if foreign.iter().any(|other| other.start < range.end && range.start < other.end) {
            continue;
        }
        let map = Map { first, count: COUNT };
        let path = dir.join(first.to_string());
        if path.exists() {
            continue;
        }
        state.map = Some(map);
        state.save(machine.dir())?;
        match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path) {
            Ok(mut claim) => {
                // For people; the machines' states decide.
                let _ = writeln!(claim, "{}", machine.name());
                file::sync_dir(&dir)?;
                return Ok(map);
            }
            Err(err) if err.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(err) => return Err(err).doing(|| format!("claiming user ids with {}", path.display())),
        }
    }
    Err(Error::new(Kind::System, "no range of 65536 user ids is free")
        .hint("locule repair frees what nobody has"))
}

/// Gives the range back.
pub fn release_ids(home: &Home, map: Map) -> Result<()> {
    file::remove(&place(home).join(map.first.to_string()))
}

/// Writes the machine's new name into its claim.
pub fn renamed(home: &Home, machine: &Machine) -> Result<()> {
    match machine.state()?.map {
        Some(map) => {
            let path = place(home).join(map.first.to_string());
            file::write_whole(&path, format!("{}\n", machine.name()).as_bytes())
        }
        None => Ok(()),
    }
}

/// Removes claims that no machine has; tells which.
pub fn sweep(home: &Home) -> Result<Vec<String>> {
    // Claims before states: whoever claims after this look wrote its state before.
    let claims = names(&place(home))?;
    let taken: Vec<u32> = names(&home.machines())?
        .iter()
        .filter_map(|name| State::load(&home.machines().join(name)).ok()?.map)
        .map(|map| map.first)
        .collect();
    let mut freed = Vec::new();
    for claim in claims {
        if claim.parse().is_ok_and(|first: u32| !taken.contains(&first)) {
            file::remove(&place(home).join(&claim))?;
            freed.push(claim);
        }
    }
    Ok(freed)
}

/// Names in a directory that may not be there.
pub(crate) fn names(dir: &Path) -> Result<Vec<String>> {
    let doing = || format!("listing {}", dir.display());
    let mut names = Vec::new();
    match fs::read_dir(dir) {
        Ok(entries) => {
            for entry in entries {
                names.extend(entry.doing(doing)?.file_name().into_string().ok());
            }
        }
        Err(err) if err.kind() == std::io::ErrorKind::NotFound => {}
        Err(err) => return Err(err).doing(doing),
    }
    names.sort_unstable();
    Ok(names)
}

/// FNV-1a: the same name gets the same range again, wherever it is free.
fn hash(name: &str) -> u32 {
    name.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

/// Ids that somebody else has by the files of `etc`.
fn foreign(etc: &Path) -> Vec<Range<u64>> {
    let read = |name: &str| fs::read_to_string(etc.join(name)).unwrap_or_default();
    let mut ranges = Vec::new();
    for name in ["subuid", "subgid"] {
        for line in read(name).lines() {
            let mut fields = line.split(':').skip(1).map(|field| field.trim().parse::<u64>());
            if let (Some(Ok(first)), Some(Ok(count))) = (fields.next(), fields.next()) {
                ranges.push(first..first.saturating_add(count));
            }
        }
    }
    for name in ["passwd", "group"] {
        for line in read(name).lines() {
            if let Some(Ok(id)) = line.split(':').nth(2).map(str::parse::<u64>) {
                ranges.push(id..id + 1);
            }
        }
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;

    fn home(dir: &Path) -> Home {
        Home::new(&dir.join("data"), &dir.join("run"))
    }

    #[test]
    fn ranges_never_meet_and_come_back() {
        let dir = tempfile::tempdir().unwrap();
        let home = home(dir.path());
        let take = |name: &str| {
            let machine = home.machine(name).unwrap();
            fs::create_dir_all(machine.dir()).unwrap();
            let mut state = State::new().unwrap();
            take_ids(&home, &machine, &mut state).unwrap()
        };
        let maps: Vec<Map> = (0..50).map(|n| take(&format!("m{n}"))).collect();
        for (at, map) in maps.iter().enumerate() {
            assert!(map.first >= FIRST && (map.first - FIRST).is_multiple_of(COUNT));
            assert!(maps[..at].iter().all(|other| other.first != map.first));
        }
        // Nobody's claim goes, the others stay.
        fs::write(place(&home).join("589824000"), "gone\n").unwrap();
        assert_eq!(sweep(&home).unwrap(), ["589824000"]);
        release_ids(&home, maps[0]).unwrap();
        assert_eq!(take("m0"), maps[0]);
    }

    #[test]
    fn what_others_have_is_left_alone() {
        let etc = tempfile::tempdir().unwrap();
        fs::write(etc.path().join("subuid"), "user:100000:65536\n# x\nbroken\nbig:524288:200000\n").unwrap();
        fs::write(etc.path().join("passwd"), "root:x:0:0::/:/bin/sh\nfar:x:900000000:1::/:/bin/sh\n")
            .unwrap();
        let ranges = foreign(etc.path());
        assert!(ranges.contains(&(524_288..724_288)) && ranges.contains(&(900_000_000..900_000_001)));
    }
}
