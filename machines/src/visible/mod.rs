//! The numbers that a machine sees of itself in /proc and /sys.
//!
//! Owns their files, which lie on the runtime directory's tmpfs and are bound over those of the kernel. Whoever
//! reads never waits for a process that may be gone:
//!
//! ```text
//! static   cpuinfo, cpu/online          written at start and by `set`; nobody serves them
//! kernel   /proc/pressure               the control group's own files, bound
//!          uptime, start times          a time namespace
//! live     meminfo, stat, loadavg, …    the keeper is asked before a reader gets them (fanotify's FAN_ACCESS_PERM)
//!                                       and writes them anew, at most every 100 ms each; the kernel drops the
//!                                       question with the keeper, and the last text stands
//! ```
//!
//! The files belong to the host's root and are seen inside as nobody's: root inside, who may make the mount writable
//! again, must not be able to fill the host's tmpfs through them.

mod measure;
mod texts;

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use locule_runtime::spec::Mount;
use nix::errno::Errno;
use nix::fcntl::AT_FDCWD;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use nix::sys::fanotify::{
    EventFFlags, Fanotify, FanotifyResponse, InitFlags, MarkFlags, MaskFlags, Response,
};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};

use crate::{Context, Definition, Error, Kind, Result};
use measure::{Live, Measure};

/// How long a text is good enough for the next reader.
const FRESH: Duration = Duration::from_millis(100);
/// How often the load is sampled while somebody reads it, and files are written where readers cannot be seen.
const SAMPLE: Duration = Duration::from_secs(5);
/// After so long without a reader of the load it is not sampled any more.
const IDLE: Duration = Duration::from_secs(600);
/// How many groups a user may have where the host allows fewer than there are machines.
const GROUPS: u32 = 16384;
const LIMIT: &str = "/proc/sys/fs/fanotify/max_user_groups";

const CPUINFO: &str = "cpuinfo";
const ONLINE: &str = "online";
const STARTED: &str = "started";

/// Serves the files of one machine.
#[derive(Debug)]
pub struct View {
    dir: PathBuf,
    poll: Epoll,
    readers: Option<Fanotify>,
    timer: TimerFd,
    ticking: bool,
    asked_for_load: Instant,
    files: Vec<Served>,
    measure: Measure,
}

#[derive(Debug)]
struct Served {
    live: Live,
    file: File,
    inode: u64,
    len: u64,
    written: Option<Instant>,
}

/// Makes the files of a machine in `dir`, which must be on a tmpfs, and says how they are bound: after /proc and
/// /sys. `group` is the machine's control group, made here if it is not there yet, so that its pressure can be bound.
pub fn prepare(dir: &Path, definition: &Definition, group: &Path) -> Result<Vec<Mount>> {
    if definition.visible == Some(false) {
        return Ok(Vec::new());
    }
    let doing = || format!("making {}", dir.display());
    std::fs::DirBuilder::new().recursive(true).mode(0o755).create(dir).doing(doing)?;
    refresh_static(dir, definition)?;
    let started = measure::now();
    write(&dir.join(STARTED), &format!("{}\n", started.as_nanos()))?;
    let mut mounts = vec![bind(&dir.join(CPUINFO), "/proc/cpuinfo")];
    for name in ["online", "present", "possible"] {
        mounts.push(bind(&dir.join(ONLINE), &format!("/sys/devices/system/cpu/{name}")));
    }
    let mut first = Measure::new(group, started, cpus(dir));
    let pressure = Path::new("/proc/pressure");
    if pressure.is_dir() && std::fs::create_dir_all(group).is_ok() {
        for name in ["cpu", "io", "memory"] {
            let file = group.join(format!("{name}.pressure"));
            if file.exists() {
                mounts.push(bind(&file, &format!("/proc/pressure/{name}")));
            }
        }
    }
    for live in kinds() {
        let path = dir.join(live.name());
        // Without a limit set yet the host's text is a beginning; the first reader gets a new one.
        let text =
            first.text(live).or_else(|| std::fs::read_to_string(Path::new("/proc").join(live.name())).ok());
        write(&path, &text.unwrap_or_default())?;
        mounts.push(bind(&path, &format!("/proc/{}", live.name())));
    }
    Ok(mounts)
}

/// Writes the files that depend on limits alone; also for a running machine whose limits were changed.
pub fn refresh_static(dir: &Path, definition: &Definition) -> Result<()> {
    if definition.visible == Some(false) {
        return Ok(());
    }
    let host = std::fs::read_to_string("/sys/devices/system/cpu/online").ok();
    let host = host.and_then(|list| texts::listed(&list)).unwrap_or(1);
    let count = visible_cpus(definition, host);
    write(&dir.join(ONLINE), &texts::online(count))?;
    let info = std::fs::read_to_string("/proc/cpuinfo").doing(|| "reading /proc/cpuinfo")?;
    write(&dir.join(CPUINFO), &texts::cpuinfo(&info, count))
}

/// How many processors a machine sees of the host's `host` ones.
pub fn visible_cpus(definition: &Definition, host: u32) -> u32 {
    let cpu = &definition.cpu;
    let set = cpu.set.as_deref().and_then(texts::listed);
    let quota = cpu.limit.map(|limit| limit.ceil() as u32);
    [cpu.count, set, quota].into_iter().flatten().fold(host, u32::min).max(1)
}

/// Whether the kernel has time namespaces, which tell the time since the start without anybody's help.
fn has_time_namespaces() -> bool {
    Path::new("/proc/self/ns/time").exists()
}

impl View {
    /// One for the machine whose files are in `dir`, now or later. By the machine's keeper, while it still has
    /// CAP_SYS_ADMIN; nothing else here needs a capability.
    pub fn new(dir: &Path) -> Result<View> {
        let doing = || format!("watching {}", dir.display());
        let readers = match readers() {
            Ok(readers) => Some(readers),
            Err(errno) => {
                locule_runtime::warn::warn(format!(
                    "{}: {}: they are written every {} s instead of when they are read",
                    doing(),
                    errno.desc(),
                    SAMPLE.as_secs()
                ));
                None
            }
        };
        let poll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).doing(doing)?;
        let flags = TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK;
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, flags).doing(doing)?;
        let event = |data| EpollEvent::new(EpollFlags::EPOLLIN, data);
        poll.add(&timer, event(0)).doing(doing)?;
        if let Some(readers) = &readers {
            poll.add(readers, event(1)).doing(doing)?;
        }
        Ok(View {
            dir: dir.to_owned(),
            poll,
            readers,
            timer,
            ticking: false,
            asked_for_load: Instant::now(),
            files: Vec::new(),
            measure: Measure::new(Path::new(""), Duration::ZERO, 1),
        })
    }

    /// Begins to serve: the machine runs in the control group `group`, just started, started again, or found. Nothing
    /// is done for a machine without such files.
    pub fn begin(&mut self, group: &Path) -> Result<()> {
        let dir = self.dir.clone();
        let doing = || format!("opening the files in {}", dir.display());
        self.files.clear();
        let started = match std::fs::read_to_string(dir.join(STARTED)) {
            Err(err) if err.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            other => other.doing(doing)?,
        };
        let started = started.trim().parse().map(Duration::from_nanos).map_err(|err| {
            Error::new(Kind::System, format!("reading {}: {err}", dir.join(STARTED).display()))
        })?;
        self.measure = Measure::new(group, started, cpus(&dir));
        for live in kinds() {
            let path = dir.join(live.name());
            let file = match File::options().write(true).custom_flags(libc::O_NOFOLLOW).open(&path) {
                Err(err) if err.kind() == std::io::ErrorKind::NotFound => continue,
                other => other.doing(doing)?,
            };
            let about = file.metadata().doing(doing)?;
            if let Some(readers) = &self.readers {
                let mask = MaskFlags::FAN_ACCESS_PERM;
                readers.mark(MarkFlags::FAN_MARK_ADD, mask, AT_FDCWD, Some(&path)).doing(doing)?;
            }
            self.files.push(Served { live, file, inode: about.ino(), len: about.len(), written: None });
        }
        match &self.readers {
            Some(_) => Ok(()),
            None => self.tick(true).doing(doing),
        }
    }

    /// Readable when there is something to [`serve`](View::serve).
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.poll.0.as_fd()
    }

    /// Whether files are written when they are read, and not by the clock.
    pub fn sees_readers(&self) -> bool {
        self.readers.is_some()
    }

    /// Answers readers that wait, and samples the load when it is time. Never blocks. After an error the view is to be
    /// dropped: nobody waits for it then.
    pub fn serve(&mut self) -> Result<()> {
        let doing = || "serving the numbers of a machine";
        // An expired timer reads eight bytes, any other nothing.
        if nix::unistd::read(self.timer.as_fd(), &mut [0; 8]).is_ok() {
            self.measure.sample();
            if self.readers.is_none() {
                (0..self.files.len()).for_each(|at| self.refresh(at));
            } else if self.asked_for_load.elapsed() > IDLE {
                self.tick(false).doing(doing)?;
            }
        }
        let Some(readers) = self.readers.take() else { return Ok(()) };
        let served = self.answer(&readers);
        self.readers = Some(readers);
        served.doing(doing)
    }

    fn answer(&mut self, readers: &Fanotify) -> nix::Result<()> {
        let events = match readers.read_events() {
            Err(Errno::EAGAIN | Errno::EINTR) => return Ok(()),
            other => other?,
        };
        let mut failure = Ok(());
        for event in &events {
            let Some(fd) = event.fd() else { continue };
            let inode = nix::sys::stat::fstat(fd).map(|about| about.st_ino);
            if let Some(at) = self.files.iter().position(|file| Ok(file.inode) == inode) {
                self.refresh(at);
            }
            // Whatever happened before: who waits is let go.
            if let Err(errno) = readers.write_response(FanotifyResponse::new(fd, Response::FAN_ALLOW)) {
                failure = Err(errno);
            }
        }
        failure
    }

    /// Writes a file anew unless it is fresh. A failure leaves the text as it is.
    fn refresh(&mut self, at: usize) {
        let Some(served) = self.files.get_mut(at) else { return };
        let live = served.live;
        if live == Live::Loadavg {
            self.asked_for_load = Instant::now();
        }
        if served.written.is_some_and(|written| written.elapsed() < FRESH) {
            return;
        }
        served.written = Some(Instant::now());
        if live == Live::Loadavg && !self.ticking {
            self.measure.sample();
            let _ = self.tick(true);
        }
        if live == Live::Stat {
            self.measure.set_count(cpus(&self.dir));
        }
        let (Some(text), Some(served)) = (self.measure.text(live), self.files.get_mut(at)) else { return };
        let written = served.file.write_all_at(text.as_bytes(), 0);
        if written.is_ok()
            && served.len != text.len() as u64
            && served.file.set_len(text.len() as u64).is_ok()
        {
            served.len = text.len() as u64;
        }
    }

    fn tick(&mut self, on: bool) -> nix::Result<()> {
        self.ticking = on;
        match on {
            false => self.timer.unset(),
            true => {
                let every = Expiration::Interval(TimeSpec::from(SAMPLE));
                self.timer.set(every, TimerSetTimeFlags::empty())
            }
        }
    }
}

/// A group that is asked before files are read.
fn readers() -> nix::Result<Fanotify> {
    let new = || {
        let flags = InitFlags::FAN_CLASS_CONTENT | InitFlags::FAN_NONBLOCK | InitFlags::FAN_CLOEXEC;
        Fanotify::init(flags, EventFFlags::O_RDONLY | EventFFlags::O_CLOEXEC)
    };
    match new() {
        // Every machine has a group, and a host allows 128 unless somebody said otherwise.
        Err(Errno::EMFILE) if raise_limit() => new(),
        other => other,
    }
}

fn raise_limit() -> bool {
    let now = std::fs::read_to_string(LIMIT).ok().and_then(|text| text.trim().parse::<u32>().ok());
    now.is_some_and(|now| now < GROUPS) && std::fs::write(LIMIT, GROUPS.to_string()).is_ok()
}

/// The live files that this kernel asks for.
fn kinds() -> impl Iterator<Item = Live> {
    let all = [Live::Meminfo, Live::Stat, Live::Loadavg, Live::Swaps, Live::Diskstats, Live::Vmstat];
    all.into_iter().chain((!has_time_namespaces()).then_some(Live::Uptime))
}

/// The processors that the view in `dir` shows.
fn cpus(dir: &Path) -> u32 {
    let list = std::fs::read_to_string(dir.join(ONLINE)).ok();
    list.and_then(|list| texts::listed(&list)).unwrap_or(1)
}

/// Writes a file in place: the mounts are of its inode.
fn write(path: &Path, text: &str) -> Result<()> {
    let doing = || format!("writing {}", path.display());
    let mut options = File::options();
    options.write(true).create(true).truncate(false).mode(0o644).custom_flags(libc::O_NOFOLLOW);
    let file = options.open(path).doing(doing)?;
    file.write_all_at(text.as_bytes(), 0).doing(doing)?;
    file.set_len(text.len() as u64).doing(doing)
}

fn bind(source: &Path, target: &str) -> Mount {
    let options = ["bind", "ro", "nosuid", "nodev", "noexec"];
    Mount {
        destination: target.into(),
        kind: Some("bind".into()),
        source: Some(source.to_owned()),
        options: options.iter().map(ToString::to_string).collect(),
        ..Mount::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processors_are_the_least_of_what_limits_them() {
        let mut definition = Definition::default();
        assert_eq!(visible_cpus(&definition, 8), 8);
        definition.cpu.limit = Some(1.5);
        assert_eq!(visible_cpus(&definition, 8), 2);
        definition.cpu.set = Some("4".into());
        assert_eq!(visible_cpus(&definition, 8), 1);
        definition.cpu = crate::definition::Cpu { count: Some(16), ..Default::default() };
        assert_eq!(visible_cpus(&definition, 4), 4);
        definition.cpu.limit = Some(0.1);
        assert_eq!(visible_cpus(&definition, 4), 1);
    }

    #[test]
    fn without_a_view_nothing_is_made() {
        let dir = tempfile::tempdir().unwrap();
        let view = dir.path().join("view");
        let hidden = Definition { visible: Some(false), ..Definition::default() };
        assert!(prepare(&view, &hidden, &dir.path().join("group")).unwrap().is_empty());
        assert!(!view.exists());
        View::new(&view).unwrap().begin(dir.path()).unwrap();
    }
}
