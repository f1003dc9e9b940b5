//! bpf(2): array maps, device programs of a cgroup, and finding both again by id.
//!
//! Owned descriptors in and out. It knows the calls and the instruction format, not what a
//! program means.

use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;

const MAP_CREATE: libc::c_int = 0;
const MAP_LOOKUP_ELEM: libc::c_int = 1;
const MAP_UPDATE_ELEM: libc::c_int = 2;
const PROG_LOAD: libc::c_int = 5;
const PROG_ATTACH: libc::c_int = 8;
const PROG_DETACH: libc::c_int = 9;
const PROG_GET_FD_BY_ID: libc::c_int = 13;
const MAP_GET_FD_BY_ID: libc::c_int = 14;
const OBJ_GET_INFO_BY_FD: libc::c_int = 15;
const PROG_QUERY: libc::c_int = 16;

const MAP_TYPE_ARRAY: u32 = 2;
const PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const CGROUP_DEVICE: u32 = 6;
const F_ALLOW_MULTI: u32 = 2;
const F_REPLACE: u32 = 4;

/// The length of an object's name with its final NUL (`BPF_OBJ_NAME_LEN`).
pub const NAME_LEN: usize = 16;

/// One instruction (`struct bpf_insn`), as the kernel reads it.
#[repr(transparent)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Insn(pub u64);

/// An object's name, padded with NUL.
pub type Name = [u8; NAME_LEN];

/// `text` as an object's name; what does not fit is cut.
pub const fn name(text: &str) -> Name {
    let mut out = [0; NAME_LEN];
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() && at < NAME_LEN - 1 {
        out[at] = bytes[at];
        at += 1;
    }
    out
}

/// What a map is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MapInfo {
    /// Its name.
    pub name: Name,
    /// Bytes a value.
    pub value_size: u32,
}

/// What a program is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProgInfo {
    /// Its name.
    pub name: Name,
    /// The ids of the maps that it uses.
    pub maps: Vec<u32>,
}

/// bpf(2) with one of the argument structures below.
///
/// # Safety
/// Every address inside `attr` must be valid for what `command` does with it.
unsafe fn bpf<T>(command: libc::c_int, attr: &mut T) -> nix::Result<libc::c_int> {
    // SAFETY: attr is an initialised structure of the size given; the rest is the caller's promise.
    let ret = unsafe { libc::syscall(libc::SYS_bpf, command, attr as *mut T, size_of::<T>()) };
    Errno::result(ret).map(|ret| ret as libc::c_int)
}

fn owned(fd: libc::c_int) -> OwnedFd {
    // SAFETY: the kernel returned a fresh descriptor (close-on-exec) that nothing else owns.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

fn raw(fd: impl AsFd) -> u32 {
    fd.as_fd().as_raw_fd() as u32
}

/// An array map with one value of `value_size` bytes, all zero.
pub fn map_create(name: Name, value_size: u32) -> nix::Result<OwnedFd> {
    #[repr(C)]
    struct Attr {
        map_type: u32,
        key_size: u32,
        value_size: u32,
        max_entries: u32,
        map_flags: u32,
        inner_map_fd: u32,
        numa_node: u32,
        map_name: Name,
    }
    let mut attr = Attr {
        map_type: MAP_TYPE_ARRAY,
        key_size: 4,
        value_size,
        max_entries: 1,
        map_flags: 0,
        inner_map_fd: 0,
        numa_node: 0,
        map_name: name,
    };
    // SAFETY: the structure holds no address.
    unsafe { bpf(MAP_CREATE, &mut attr) }.map(owned)
}

#[repr(C)]
struct Elem {
    map_fd: u32,
    pad: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// Replaces the only value of `map`; `value` must be of the map's size.
pub fn map_write(map: impl AsFd, size: u32, value: &[u8]) -> nix::Result<()> {
    if value.len() != size as usize {
        return Err(Errno::EINVAL);
    }
    let key = 0u32;
    let mut attr =
        Elem { map_fd: raw(map), pad: 0, key: &raw const key as u64, value: value.as_ptr() as u64, flags: 0 };
    // SAFETY: key has the four bytes of the map's keys; value has the map's size by the check above.
    unsafe { bpf(MAP_UPDATE_ELEM, &mut attr) }.map(drop)
}

/// Reads the only value of `map`, which has `size` bytes.
pub fn map_read(map: impl AsFd, size: u32) -> nix::Result<Vec<u8>> {
    let fd = map.as_fd();
    if map_info(fd)?.value_size != size {
        return Err(Errno::EINVAL);
    }
    let key = 0u32;
    // The kernel copies values in steps of eight bytes.
    let mut value = vec![0u8; (size as usize).next_multiple_of(8)];
    let mut attr = Elem {
        map_fd: raw(fd),
        pad: 0,
        key: &raw const key as u64,
        value: value.as_mut_ptr() as u64,
        flags: 0,
    };
    // SAFETY: key has four bytes; value has at least the map's value size, checked above.
    unsafe { bpf(MAP_LOOKUP_ELEM, &mut attr) }?;
    value.truncate(size as usize);
    Ok(value)
}

/// Loads a program that decides on device access. A `log` is filled with the verifier's reasons.
pub fn prog_load(name: Name, insns: &[Insn], log: Option<&mut [u8]>) -> nix::Result<OwnedFd> {
    #[repr(C)]
    struct Attr {
        prog_type: u32,
        insn_cnt: u32,
        insns: u64,
        license: u64,
        log_level: u32,
        log_size: u32,
        log_buf: u64,
        kern_version: u32,
        prog_flags: u32,
        prog_name: Name,
        prog_ifindex: u32,
        expected_attach_type: u32,
    }
    let (log_level, log_size, log_buf) = match log {
        Some(log) => (1, log.len() as u32, log.as_mut_ptr() as u64),
        None => (0, 0, 0),
    };
    let mut attr = Attr {
        prog_type: PROG_TYPE_CGROUP_DEVICE,
        insn_cnt: insns.len() as u32,
        insns: insns.as_ptr() as u64,
        license: c"Apache-2.0".as_ptr() as u64,
        log_level,
        log_size,
        log_buf,
        kern_version: 0,
        prog_flags: 0,
        prog_name: name,
        prog_ifindex: 0,
        expected_attach_type: CGROUP_DEVICE,
    };
    // SAFETY: insns, the license and the log are valid for the lengths given.
    unsafe { bpf(PROG_LOAD, &mut attr) }.map(owned)
}

#[repr(C)]
struct Attach {
    target_fd: u32,
    attach_bpf_fd: u32,
    attach_type: u32,
    attach_flags: u32,
    replace_bpf_fd: u32,
}

/// Attaches `prog` to `cgroup`, beside the programs of others or in place of `replace`.
pub fn device_attach(cgroup: impl AsFd, prog: impl AsFd, replace: Option<&OwnedFd>) -> nix::Result<()> {
    let mut attr = Attach {
        target_fd: raw(cgroup),
        attach_bpf_fd: raw(prog),
        attach_type: CGROUP_DEVICE,
        attach_flags: F_ALLOW_MULTI | if replace.is_some() { F_REPLACE } else { 0 },
        replace_bpf_fd: replace.map_or(0, raw),
    };
    // SAFETY: the structure holds no address.
    unsafe { bpf(PROG_ATTACH, &mut attr) }.map(drop)
}

/// Takes `prog` off `cgroup`.
pub fn device_detach(cgroup: impl AsFd, prog: impl AsFd) -> nix::Result<()> {
    let mut attr = Attach {
        target_fd: raw(cgroup),
        attach_bpf_fd: raw(prog),
        attach_type: CGROUP_DEVICE,
        attach_flags: 0,
        replace_bpf_fd: 0,
    };
    // SAFETY: the structure holds no address.
    unsafe { bpf(PROG_DETACH, &mut attr) }.map(drop)
}

/// The ids of the device programs attached to `cgroup` itself.
pub fn device_query(cgroup: impl AsFd) -> nix::Result<Vec<u32>> {
    #[repr(C)]
    struct Attr {
        target_fd: u32,
        attach_type: u32,
        query_flags: u32,
        attach_flags: u32,
        prog_ids: u64,
        prog_cnt: u32,
        pad: u32,
        prog_attach_flags: u64,
    }
    // The kernel allows 64 programs a cgroup (BPF_CGROUP_MAX_PROGS).
    let mut ids = vec![0u32; 64];
    let mut attr = Attr {
        target_fd: raw(cgroup),
        attach_type: CGROUP_DEVICE,
        query_flags: 0,
        attach_flags: 0,
        prog_ids: ids.as_mut_ptr() as u64,
        prog_cnt: ids.len() as u32,
        pad: 0,
        prog_attach_flags: 0,
    };
    // SAFETY: prog_ids points to prog_cnt numbers that outlive the call.
    unsafe { bpf(PROG_QUERY, &mut attr) }?;
    ids.truncate(attr.prog_cnt as usize);
    Ok(ids)
}

fn by_id(command: libc::c_int, id: u32) -> nix::Result<OwnedFd> {
    #[repr(C)]
    struct Attr {
        id: u32,
        next_id: u32,
        open_flags: u32,
    }
    let mut attr = Attr { id, next_id: 0, open_flags: 0 };
    // SAFETY: the structure holds no address.
    unsafe { bpf(command, &mut attr) }.map(owned)
}

/// The program with this id.
pub fn prog_by_id(id: u32) -> nix::Result<OwnedFd> {
    by_id(PROG_GET_FD_BY_ID, id)
}

/// The map with this id.
pub fn map_by_id(id: u32) -> nix::Result<OwnedFd> {
    by_id(MAP_GET_FD_BY_ID, id)
}

/// Fills `info` with what the kernel knows of the object behind `fd`.
///
/// # Safety
/// `T` must be a prefix of the kernel's information structure for this kind of object, and every
/// address in it valid for the count beside it.
unsafe fn info<T>(fd: RawFd, info: &mut T) -> nix::Result<()> {
    #[repr(C)]
    struct Attr {
        bpf_fd: u32,
        info_len: u32,
        info: u64,
    }
    let mut attr = Attr { bpf_fd: fd as u32, info_len: size_of::<T>() as u32, info: info as *mut T as u64 };
    // SAFETY: info points to info_len bytes; what lies inside is the caller's promise.
    unsafe { bpf(OBJ_GET_INFO_BY_FD, &mut attr) }.map(drop)
}

/// What `map` is.
pub fn map_info(map: impl AsFd) -> nix::Result<MapInfo> {
    #[repr(C)]
    #[derive(Default)]
    struct Info {
        kind: u32,
        id: u32,
        key_size: u32,
        value_size: u32,
        max_entries: u32,
        map_flags: u32,
        name: Name,
    }
    let mut out = Info::default();
    // SAFETY: the first fields of struct bpf_map_info; no address among them.
    unsafe { info(map.as_fd().as_raw_fd(), &mut out) }?;
    Ok(MapInfo { name: out.name, value_size: out.value_size })
}

/// What `prog` is.
pub fn prog_info(prog: impl AsFd) -> nix::Result<ProgInfo> {
    #[repr(C)]
    #[derive(Default)]
    struct Info {
        kind: u32,
        id: u32,
        tag: [u8; 8],
        jited_len: u32,
        xlated_len: u32,
        jited_insns: u64,
        xlated_insns: u64,
        load_time: u64,
        created_by_uid: u32,
        map_cnt: u32,
        map_ids: u64,
        name: Name,
    }
    let mut maps = vec![0u32; 8];
    let mut out = Info { map_cnt: maps.len() as u32, map_ids: maps.as_mut_ptr() as u64, ..Info::default() };
    // SAFETY: the first fields of struct bpf_prog_info; map_ids points to map_cnt numbers, the
    // other addresses are null with a length of zero.
    unsafe { info(prog.as_fd().as_raw_fd(), &mut out) }?;
    maps.truncate(out.map_cnt as usize);
    Ok(ProgInfo { name: out.name, maps })
}

/// Returns once every program that was running when this was called has ended.
///
/// membarrier's global form waits for an RCU grace period, and programs run inside RCU's read side.
pub fn wait_for_running_programs() -> nix::Result<()> {
    // SAFETY: membarrier(MEMBARRIER_CMD_GLOBAL) takes no address.
    let ret = unsafe { libc::syscall(libc::SYS_membarrier, 1, 0, 0) };
    Errno::result(ret).map(drop)
}
