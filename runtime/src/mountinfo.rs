//! /proc/self/mountinfo (proc_pid_mountinfo(5)): which mounts show a whole procfs or sysfs.
//!
//! Owns the format of a line and its escapes. Never reads the file and never touches a mount.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

/// The mount points of every procfs and sysfs in `table` that is mounted from its own root, in its order.
///
/// Lines of any other form are passed over: fields may be added to the format, none is ever taken away.
pub fn kernel_file_systems(table: &[u8]) -> Vec<PathBuf> {
    table.split(|byte| *byte == b'\n').filter_map(kernel_file_system).collect()
}

fn kernel_file_system(line: &[u8]) -> Option<PathBuf> {
    let mut fields = line.split(|byte| *byte == b' ').skip(3);
    let (root, place) = (fields.next()?, fields.next()?);
    // A number of optional fields ends with a dash.
    let kind = fields.skip_while(|field| *field != b"-").nth(1)?;
    let whole = root == b"/" && matches!(kind, b"proc" | b"sysfs");
    whole.then(|| PathBuf::from(OsString::from_vec(unescaped(place))))
}

/// The kernel writes space, tab, newline, backslash and `#` as a backslash and three octal digits.
fn unescaped(field: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, after)) = rest.split_first() {
        let code = after.get(..3).filter(|_| *first == b'\\').and_then(|digits| {
            let digits = std::str::from_utf8(digits).ok()?;
            digits.bytes().all(|digit| digit.is_ascii_digit()).then_some(())?;
            u8::from_str_radix(digits, 8).ok()
        });
        bytes.push(code.unwrap_or(*first));
        rest = if code.is_some() { &after[3..] } else { after };
    }
    bytes
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt;

    use super::*;

    #[test]
    fn finds_whole_kernel_file_systems_alone() {
        let table = b"22 1 0:21 / /proc rw,nosuid shared:12 master:1 - proc proc rw\n\
            23 1 0:22 / /sys rw - sysfs sysfs rw\n\
            24 1 0:21 /sys /masked rw - proc proc rw\n\
            25 1 8:1 / / rw - ext4 /dev/vda rw\n\
            26 1 0:21 / /a\\040b\\134c\\012 rw - proc proc rw\n\
            27 1 0:21 / /\xff rw - proc proc rw\n\
            28 1 0:21 / /cut\n";
        let found = kernel_file_systems(table);
        let found: Vec<&[u8]> = found.iter().map(|path| path.as_os_str().as_bytes()).collect();
        assert_eq!(found, [&b"/proc"[..], b"/sys", b"/a b\\c\n", b"/\xff"]);
    }

    #[test]
    fn what_is_no_escape_stays() {
        for text in ["\\", "\\04", "\\999", "\\+12", "a\\"] {
            assert_eq!(unescaped(text.as_bytes()), text.as_bytes());
        }
        assert_eq!(unescaped(b"\\134040"), b"\\040");
    }
}
