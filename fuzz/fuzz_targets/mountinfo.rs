//! Tables of mounts: any bytes as one, and any bytes as a mount point in one.
#![no_main]

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use libfuzzer_sys::fuzz_target;
use locule_runtime::mountinfo::kernel_file_systems;

fuzz_target!(|input: &[u8]| {
    let lines = input.split(|byte| *byte == b'\n').count();
    assert!(kernel_file_systems(input).len() <= lines);
    let mut table = b"22 1 0:21 / ".to_vec();
    for byte in input {
        match byte {
            // As the kernel's mangle_path.
            b' ' | b'\t' | b'\n' | b'\\' | b'#' => table.extend(format!("\\{byte:03o}").bytes()),
            byte => table.push(*byte),
        }
    }
    table.extend(b" rw,nosuid shared:12 - proc proc rw\n");
    assert_eq!(kernel_file_systems(&table), [Path::new(std::ffi::OsStr::from_bytes(input))]);
});
