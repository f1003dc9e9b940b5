//! What annotations say about a machine: `org.locule.vm.*`.

use locule_runtime::spec::StringMap;
use locule_runtime::{Error, Result};
use locule_vmm::Identity;

pub const PREFIX: &str = "org.locule.vm.";
/// Network interfaces that a machine has at most.
const INTERFACES: std::ops::RangeInclusive<usize> = 0..=8;

/// Addresses of guests on a socket to the host; those below are the host's own (vsock(7)).
const CIDS: std::ops::RangeInclusive<u32> = 3..=u32::MAX - 1;

/// The options of a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Network interfaces; what is in the container's network namespace at the start is given to them.
    pub interfaces: usize,
    /// What the guest is told that it runs on.
    pub identity: Identity,
    /// Whether the kernel's messages go to the container's standard error.
    pub console: bool,
    /// Whether nobody on the host changes the root file system while the machine runs, which may believe for long then what
    /// it has been told of it.
    pub exclusive: bool,
    /// The machine's address on a socket to the host, if it has one.
    pub vsock: Option<u32>,
    /// Whether the stages of the start are told on standard error.
    pub trace: bool,
}

impl Options {
    /// Reads the annotations.
    pub fn of(annotations: &StringMap) -> Result<Options> {
        let mut options = Options {
            interfaces: 1,
            identity: Identity::Kvm,
            console: false,
            exclusive: false,
            vsock: None,
            trace: false,
        };
        for (key, value) in annotations {
            let Some(name) = key.strip_prefix(PREFIX) else { continue };
            let wrong =
                |wanted: &str| Err(Error::invalid(format!("annotations.{key}: {value:?} is not {wanted}")));
            match name {
                "interfaces" => match value.parse() {
                    Ok(count) if INTERFACES.contains(&count) => options.interfaces = count,
                    _ => return wrong("a number from 0 to 8"),
                },
                "identity" => {
                    options.identity = match value.as_str() {
                        "kvm" => Identity::Kvm,
                        "hyperv" => Identity::Hyperv,
                        "none" => Identity::None,
                        _ => return wrong("kvm, hyperv or none"),
                    }
                }
                "console" => match value.as_str() {
                    "stderr" => options.console = true,
                    "none" => {}
                    _ => return wrong("stderr or none"),
                },
                "root" => match value.as_str() {
                    "exclusive" => options.exclusive = true,
                    "shared" => {}
                    _ => return wrong("exclusive or shared"),
                },
                "vsock" => match (value.as_str(), value.parse()) {
                    ("true", _) => options.vsock = Some(*CIDS.start()),
                    ("false", _) => {}
                    (_, Ok(cid)) if CIDS.contains(&cid) => options.vsock = Some(cid),
                    _ => return wrong("true, false or a number from 3 to 4294967294"),
                },
                "trace" => match value.as_str() {
                    "true" => options.trace = true,
                    "false" => {}
                    _ => return wrong("true or false"),
                },
                _ => return Err(Error::invalid(format!("annotations.{key} is not known"))),
            }
        }
        Ok(options)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn annotations_are_read_or_refused() {
        let of = |key: &str, value: &str| {
            Options::of(&StringMap::from([
                (format!("{PREFIX}{key}"), value.to_owned()),
                ("x".into(), "y".into()),
            ]))
        };
        assert_eq!(of("interfaces", "3").unwrap().interfaces, 3);
        assert_eq!(of("identity", "hyperv").unwrap().identity, Identity::Hyperv);
        assert!(of("console", "stderr").unwrap().console && of("trace", "true").unwrap().trace);
        assert!(of("root", "exclusive").unwrap().exclusive && !of("root", "shared").unwrap().exclusive);
        assert_eq!(
            (of("vsock", "true").unwrap().vsock, of("vsock", "false").unwrap().vsock),
            (Some(3), None)
        );
        assert_eq!(of("vsock", "77").unwrap().vsock, Some(77));
        for (key, value) in [
            ("vsock", "2"),
            ("vsock", "4294967295"),
            ("vsock", "yes"),
            ("root", "mine"),
            ("interfaces", "9"),
            ("interfaces", "-1"),
            ("identity", "xen"),
            ("console", "x"),
            ("trace", ""),
            ("memroy", "1"),
        ] {
            assert!(of(key, value).unwrap_err().to_string().contains(key), "{key}={value}");
        }
    }
}
