//! Where a container's cgroup lies: from `linux.cgroupsPath`, the id and the manager.
//!
//! Pure computation on text, with runc's rules so that engines find what they expect.
//! It never looks at the cgroup file system.

use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::Manager;
use crate::error::{Error, Result};

/// The unit prefix of scopes whose `cgroupsPath` names none.
const SCOPE_PREFIX: &str = "locule";

/// What decides where the cgroup lies.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// The container's id, already checked to be one plain path component.
    pub id: &'a str,
    /// `linux.cgroupsPath`; an empty text counts as absent.
    pub cgroups_path: Option<&'a str>,
    /// Who makes the cgroup.
    pub manager: Manager,
    /// Whether the runtime lacks the host root's rights over the cgroup tree.
    pub rootless: bool,
}

/// A systemd scope and the slice that it lies in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unit {
    /// `machine.slice`
    pub slice: String,
    /// `libpod-0123.scope`
    pub scope: String,
}

/// The place of a cgroup; paths are relative to the cgroup2 mount and begin with `/`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Location {
    /// Who makes the cgroup.
    pub manager: Manager,
    /// The path. For a scope of a user's systemd it lacks the prefix that only that systemd knows;
    /// the real one is read from the process once it is in the scope.
    pub path: PathBuf,
    /// Tried in order where `path` may not be made.
    pub alternatives: Vec<PathBuf>,
    /// Nobody asked for a certain place: where none can be made and no limit is asked for, the
    /// container runs without a cgroup of its own (runc's rule for rootless containers).
    pub optional: bool,
    /// The scope, with the systemd manager.
    pub unit: Option<Unit>,
}

impl Location {
    /// The place for `request`. `own` gives the caller's own cgroup and is asked only where the
    /// answer depends on it.
    pub fn resolve(request: &Request<'_>, own: impl FnOnce() -> Result<PathBuf>) -> Result<Location> {
        let asked = request.cgroups_path.filter(|path| !path.is_empty());
        match request.manager {
            Manager::Disabled => Ok(Location::at(Manager::Disabled, PathBuf::from("/"))),
            Manager::Systemd { user } => {
                let unit = Unit::parse(asked, request.id, user)?;
                let path = expand_slice(&unit.slice)?.join(&unit.scope);
                Ok(Location { unit: Some(unit), ..Location::at(request.manager, path) })
            }
            Manager::Cgroupfs => match asked {
                Some(path) if path.starts_with('/') => {
                    Ok(Location::at(request.manager, clean(Path::new(path))?))
                }
                // The caller's own cgroup holds the caller, so its children can have no domain
                // controllers; its parent is where runc puts relative paths.
                Some(path) => {
                    let inner = clean(Path::new(path))?;
                    let inner = inner.strip_prefix("/").unwrap_or(&inner);
                    Ok(Location::at(request.manager, parent(&own()?).join(inner)))
                }
                None if request.rootless => {
                    // Without any cgroup v2 to be in there is nothing to make, unless limits ask for it.
                    let own = own().unwrap_or_else(|_| PathBuf::from("/"));
                    let path = parent(&own).join(request.id);
                    let below = own.join(request.id);
                    let alternatives = if below == path { Vec::new() } else { vec![below] };
                    Ok(Location { alternatives, optional: true, ..Location::at(request.manager, path) })
                }
                None => Ok(Location::at(request.manager, Path::new("/").join(request.id))),
            },
        }
    }

    /// What to remember before anything is made there.
    pub fn record(&self) -> super::Record {
        super::Record {
            manager: self.manager,
            path: self.path.clone(),
            unit: self.unit.clone(),
            identity: None,
        }
    }

    fn at(manager: Manager, path: PathBuf) -> Location {
        Location { manager, path, alternatives: Vec::new(), optional: false, unit: None }
    }
}

impl Unit {
    /// Reads `slice:prefix:name`; an absent path stands for the default slice and the id.
    fn parse(asked: Option<&str>, id: &str, user: bool) -> Result<Unit> {
        let (slice, prefix, name) = match asked {
            None => ("", SCOPE_PREFIX, id),
            Some(text) => {
                let mut parts = text.split(':');
                match (parts.next(), parts.next(), parts.next(), parts.next()) {
                    (Some(slice), Some(prefix), Some(name), None) => (slice, prefix, name),
                    _ => {
                        return Err(Error::invalid(format!(
                            "linux.cgroupsPath {text:?}: expected slice:prefix:name with the systemd cgroup manager"
                        ))
                        .hint("leave out --systemd-cgroup to use a path"));
                    }
                }
            }
        };
        let slice = match (slice, user) {
            ("", false) => "system.slice",
            ("", true) => "user.slice",
            (slice, _) => slice,
        };
        let scope = match prefix {
            "" => format!("{name}.scope"),
            prefix => format!("{prefix}-{name}.scope"),
        };
        let legal = |c: char| c.is_ascii_alphanumeric() || ":-_.\\@".contains(c);
        if name.is_empty() || name.ends_with(".slice") || scope.len() > 255 || !scope.chars().all(legal) {
            return Err(Error::invalid(format!(
                "linux.cgroupsPath: {scope:?} cannot be the name of a scope"
            ))
            .hint("systemd allows letters, digits and :-_.\\@, at most 255 in all"));
        }
        expand_slice(slice)?;
        Ok(Unit { slice: slice.to_owned(), scope })
    }
}

/// `a-b.slice` lies at `/a.slice/a-b.slice` (systemd.slice(5)); `-.slice` is the root.
pub fn expand_slice(slice: &str) -> Result<PathBuf> {
    let wrong = || Error::invalid(format!("linux.cgroupsPath: {slice:?} is not the name of a slice"));
    let stem = slice.strip_suffix(".slice").filter(|stem| !stem.contains('/')).ok_or_else(wrong)?;
    let mut path = PathBuf::from("/");
    if stem == "-" {
        return Ok(path);
    }
    for (at, _) in stem.match_indices('-').chain([(stem.len(), "")]) {
        let upto = &stem[..at];
        if upto.is_empty() || upto.ends_with('-') {
            return Err(wrong());
        }
        path.push(format!("{upto}.slice"));
    }
    Ok(path)
}

/// The caller's cgroup from the text of `/proc/self/cgroup`.
pub fn own_cgroup(text: &str) -> Result<PathBuf> {
    let path = text.lines().find_map(|line| line.strip_prefix("0::")).ok_or_else(|| {
        Error::unsupported("/proc/self/cgroup has no cgroup v2 entry")
            .hint("boot the host with cgroup v2 or use --cgroup-manager=disabled")
    })?;
    // "/../x" is what a process outside of its cgroup namespace's root sees.
    if path.split('/').any(|part| part == "..") {
        return Err(Error::unsupported(format!("own cgroup {path} lies outside of the cgroup namespace"))
            .hint("give an absolute linux.cgroupsPath"));
    }
    let path = path.strip_suffix(" (deleted)").unwrap_or(path);
    Ok(PathBuf::from(path))
}

/// Removes `.`, `..` and double slashes; `..` stops at the root, as for a path inside a root.
fn clean(path: &Path) -> Result<PathBuf> {
    let mut out = PathBuf::from("/");
    for part in path.components() {
        match part {
            Component::Normal(name) => out.push(name),
            Component::ParentDir => {
                out.pop();
            }
            _ => {}
        }
    }
    if out == Path::new("/") {
        return Err(Error::invalid(format!(
            "linux.cgroupsPath {:?} is the root of the cgroup tree",
            path.display()
        ))
        .hint("name a cgroup for the container alone"));
    }
    Ok(out)
}

fn parent(path: &Path) -> PathBuf {
    path.parent().unwrap_or(Path::new("/")).to_path_buf()
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: &str = "/user.slice/user-7.slice/session-1.scope";

    fn resolve(path: &str, manager: Manager, rootless: bool) -> Result<Location> {
        let request = Request { id: "web", cgroups_path: Some(path), manager, rootless };
        Location::resolve(&request, || Ok(PathBuf::from(OWN)))
    }

    fn path(path: &str) -> String {
        resolve(path, Manager::Cgroupfs, false).unwrap().path.display().to_string()
    }

    #[test]
    fn cgroupfs_paths_follow_runc() {
        assert_eq!(path("/a/b"), "/a/b");
        assert_eq!(path("/a//./../../b/"), "/b");
        assert_eq!(path("a/../../../b"), "/user.slice/user-7.slice/b");
        assert_eq!(path(""), "/web");
        assert!(resolve("/..", Manager::Cgroupfs, false).is_err());
    }

    #[test]
    fn rootless_without_a_path_is_optional_and_near_the_caller() {
        let location = resolve("", Manager::Cgroupfs, true).unwrap();
        assert!(location.optional);
        assert_eq!(location.path, Path::new("/user.slice/user-7.slice/web"));
        assert_eq!(location.alternatives, [Path::new(OWN).join("web")]);
        assert!(!resolve("/a", Manager::Cgroupfs, true).unwrap().optional);
    }

    #[test]
    fn scopes_lie_in_expanded_slices() {
        let manager = Manager::Systemd { user: false };
        let unit = |path: &str| resolve(path, manager, false).map(|l| l.path.display().to_string());
        assert_eq!(unit("machine.slice:libpod:1").unwrap(), "/machine.slice/libpod-1.scope");
        assert_eq!(unit("a-b-c.slice::n").unwrap(), "/a.slice/a-b.slice/a-b-c.slice/n.scope");
        assert_eq!(unit("-.slice:p:n").unwrap(), "/p-n.scope");
        assert_eq!(unit("").unwrap(), "/system.slice/locule-web.scope");
        for wrong in [
            "/a/b",
            "a:b",
            "a:b:c:d",
            "a--b.slice:p:n",
            "-a.slice:p:n",
            "x:p:n",
            "a.slice:p:",
            "a.slice:p:n+1",
        ] {
            assert!(unit(wrong).is_err(), "{wrong}");
        }
        let user = resolve(":p:n", Manager::Systemd { user: true }, true).unwrap();
        assert_eq!(user.unit.unwrap().slice, "user.slice");
    }

    #[test]
    fn own_cgroup_is_the_v2_line() {
        let text = "9:name=systemd:/x\n0::/a/b\n";
        assert_eq!(own_cgroup(text).unwrap(), Path::new("/a/b"));
        assert!(own_cgroup("1:cpu:/\n").is_err());
        assert!(own_cgroup("0::/../b\n").is_err());
    }
}
