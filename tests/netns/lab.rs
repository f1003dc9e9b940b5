//! What every test uses: a host, containers and an outside, each a network namespace held by a descriptor.
//!
//! Owns the directory of a lab. A namespace ends with its `Space`, as a container's does with its last process.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, setns, unshare};
use serde_json::Value;

/// The binary under test.
pub const LOCULE: &str = env!("CARGO_BIN_EXE_locule");
/// A call that takes longer hangs; it is no measure of speed.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// How long nothing must come where nothing may come.
pub const SILENCE: Duration = Duration::from_millis(400);
/// The outside's address and the host's towards it (RFC 5737, RFC 3849).
pub const OUTSIDE: &str = "192.0.2.2";
/// The host's address towards the outside.
pub const HOST: &str = "192.0.2.1";
/// The same for IPv6.
pub const OUTSIDE6: &str = "2001:db8::2";
/// The same for IPv6.
pub const HOST6: &str = "2001:db8::1";

/// A network namespace.
#[derive(Debug)]
pub struct Space {
    file: File,
}

impl Space {
    /// A new one.
    pub fn new() -> Space {
        let file = thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).expect("run these tests as tests/lane cargo test --test netns");
            File::open("/proc/thread-self/ns/net").unwrap()
        });
        Space { file: file.join().unwrap() }
    }

    /// One that exists.
    pub fn of(file: File) -> Space {
        Space { file }
    }

    /// A path that leads to it.
    pub fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.file.as_raw_fd())
    }

    /// Starts `act` in it.
    pub fn start<T: Send + 'static>(&self, act: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
        let file = self.file.try_clone().unwrap();
        thread::spawn(move || {
            setns(&file, CloneFlags::CLONE_NEWNET).unwrap();
            // A container may live as long as its namespace: only the lab's descriptor counts.
            drop(file);
            act()
        })
    }

    /// Does `act` in it.
    pub fn run<T: Send + 'static>(&self, act: impl FnOnce() -> T + Send + 'static) -> T {
        self.start(act).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// Runs a program in it, which must succeed; returns its output.
    #[track_caller]
    pub fn sh(&self, line: &str) -> String {
        let command = line.to_owned();
        let output = self.run(move || Command::new("sh").args(["-ec", &command]).output().unwrap());
        assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Answers one TCP connection or datagram: what came, and from which address it seemed to come.
    pub fn serve(&self, protocol: &'static str, port: u16) -> Service {
        let (listening, ready) = std::sync::mpsc::channel();
        let thread = self.start(move || {
            let any: SocketAddr = format!("[::]:{port}").parse().unwrap();
            if protocol == "tcp" {
                // The one before may not be gone yet.
                let listener = until(|| TcpListener::bind(any).ok()).unwrap();
                listening.send(()).unwrap();
                listener.set_nonblocking(true).unwrap();
                let (mut stream, from) = until(|| listener.accept().ok())?;
                stream.set_nonblocking(false).unwrap();
                let mut text = String::new();
                stream.read_to_string(&mut text).ok()?;
                stream.write_all(format!("{text} from {}", plain(from.ip())).as_bytes()).ok()?;
                Some(plain(from.ip()))
            } else {
                let socket = until(|| UdpSocket::bind(any).ok()).unwrap();
                listening.send(()).unwrap();
                socket.set_nonblocking(true).unwrap();
                let mut buffer = [0; 2048];
                let (length, from) = until(|| socket.recv_from(&mut buffer).ok())?;
                let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
                socket.send_to(format!("{text} from {}", plain(from.ip())).as_bytes(), from).ok()?;
                Some(plain(from.ip()))
            }
        });
        ready.recv().unwrap();
        Service { thread: Some(thread) }
    }

    /// Asks a service and returns its answer; `None` when none comes.
    pub fn ask(
        &self,
        protocol: &'static str,
        to: impl Into<String>,
        port: u16,
        patience: Duration,
    ) -> Option<String> {
        let to: IpAddr = to.into().parse().unwrap();
        self.run(move || {
            let at = SocketAddr::new(to, port);
            let mut answer = String::new();
            if protocol == "tcp" {
                let mut stream = TcpStream::connect_timeout(&at, patience).ok()?;
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                stream.write_all(b"hello").ok()?;
                stream.shutdown(std::net::Shutdown::Write).ok()?;
                stream.read_to_string(&mut answer).ok()?;
            } else {
                let local = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
                let socket = UdpSocket::bind(local).unwrap();
                socket.connect(at).ok()?;
                socket.set_read_timeout(Some(patience)).unwrap();
                socket.send(b"hello").ok()?;
                let mut buffer = [0; 2048];
                let length = socket.recv(&mut buffer).ok()?;
                answer = String::from_utf8_lossy(&buffer[..length]).into_owned();
            }
            Some(answer)
        })
    }
}

/// An IPv4 address as such, although the socket is one of both families.
fn plain(address: IpAddr) -> IpAddr {
    address.to_canonical()
}

/// Tries until there is something, or patience ends.
pub fn until<T>(mut attempt: impl FnMut() -> Option<T>) -> Option<T> {
    let begun = Instant::now();
    loop {
        if let Some(found) = attempt() {
            return Some(found);
        }
        if begun.elapsed() > PATIENCE {
            return None;
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// A service that answers once.
#[derive(Debug)]
pub struct Service {
    thread: Option<JoinHandle<Option<IpAddr>>>,
}

impl Service {
    /// Who asked it.
    pub fn asked_by(mut self) -> String {
        let asked = self.thread.take().unwrap().join().unwrap();
        asked.expect("nobody asked").to_string()
    }
}

/// A host with a place for its files.
#[derive(Debug)]
pub struct Lab {
    /// The host.
    pub host: Space,
    /// Its directory.
    pub dir: PathBuf,
}

/// How a call ended and what it said.
#[derive(Debug)]
pub struct Output {
    /// The exit code, or `None` for a call that was killed.
    pub status: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Lab {
    /// A host without any connection.
    pub fn new() -> Lab {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        assert!(
            fs::read_link("/proc/self/ns/mnt").ok() != fs::read_link("/proc/1/ns/mnt").ok(),
            "run these tests as tests/lane cargo test --test netns"
        );
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let dir = Path::new("/mnt").join(format!("netns-{}-{number}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let host = Space::new();
        // As on a host where nobody loaded br_netfilter.
        host.sh("ip link set lo up; for f in /proc/sys/net/bridge/bridge-nf-call-*; do if [ -e $f ]; then echo 0 >$f; fi; done");
        Lab { host, dir }
    }

    /// A host and an outside that it has its default route to.
    pub fn with_outside() -> (Lab, Space) {
        let lab = Lab::new();
        let outside = Space::new();
        lab.host.sh(&format!(
            "ip link add up0 type veth peer name down0 netns {}
             ip addr add {HOST}/24 dev up0
             ip addr add {HOST6}/64 dev up0 nodad
             ip link set up0 up",
            outside.path()
        ));
        outside.sh(&format!(
            "ip link set lo up; ip addr add {OUTSIDE}/24 dev down0; ip addr add {OUTSIDE6}/64 dev down0 nodad
             ip link set down0 up"
        ));
        lab.host.sh(&format!("ip route add default via {OUTSIDE}; ip route add default via {OUTSIDE6}"));
        (lab, outside)
    }

    /// Calls locule on the host.
    pub fn call(&self, words: &[&str]) -> Output {
        self.call_with(words, &[])
    }

    /// Calls locule on the host with more environment.
    pub fn call_with(&self, words: &[&str], variables: &[(&str, &str)]) -> Output {
        let mut command = Command::new(LOCULE);
        command.args(words).env("LOCULE_NETWORKS", self.dir.join("networks"));
        command.env("LOCULE_NETWORK_CLAIMS", self.claims()).envs(variables.iter().copied());
        // Files, not pipes: a container that the call makes keeps its output open.
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let [out, err] = ["out", "err"].map(|name| self.dir.join(format!("{name}-{number}")));
        command.stdin(Stdio::null()).stdout(File::create(&out).unwrap()).stderr(File::create(&err).unwrap());
        let status = self.host.run(move || command.status().unwrap());
        let [stdout, stderr] = [out, err].map(|path| {
            let text = fs::read_to_string(&path).unwrap();
            fs::remove_file(path).unwrap();
            text
        });
        Output { status: status.code(), stdout, stderr }
    }

    /// Where claims and records are.
    pub fn claims(&self) -> PathBuf {
        self.dir.join("claims")
    }

    /// Calls `locule network`, which must succeed.
    #[track_caller]
    pub fn network(&self, line: &str) -> String {
        let words: Vec<_> = std::iter::once("network").chain(line.split_whitespace()).collect();
        let output = self.call(&words);
        assert_eq!(output.status, Some(0), "{line}: {output:?}");
        output.stdout
    }

    /// Calls `locule network`, which must fail with one line; returns it.
    #[track_caller]
    pub fn refused(&self, line: &str) -> String {
        let words: Vec<_> = std::iter::once("network").chain(line.split_whitespace()).collect();
        let output = self.call(&words);
        assert_eq!(output.status, Some(1), "{line}: {output:?}");
        assert_eq!(output.stderr.lines().count(), 1, "{output:?}");
        output.stderr
    }

    /// A new container on a network; returns it with its first addresses of both families.
    #[track_caller]
    pub fn container(&self, network: &str, name: &str, options: &str) -> Container {
        let space = Space::new();
        let (got, file) = self.connect(&space, network, name, options);
        let address = |ipv4: bool| {
            let all = got["interfaces"][0]["addresses"].as_array().unwrap();
            let of_family =
                all.iter().filter_map(|cidr| cidr.as_str()?.split('/').next()?.parse::<IpAddr>().ok());
            of_family
                .into_iter()
                .find(|ip| ip.is_ipv4() == ipv4)
                .map_or_else(String::new, |ip| ip.to_string())
        };
        let host = got["interfaces"][0]["host"].as_str().unwrap_or_default().to_owned();
        Container { space, ip: address(true), ip6: address(false), end: host, hosts: file }
    }

    /// Connects a namespace; returns what it has got, and its hosts file.
    #[track_caller]
    pub fn connect(&self, space: &Space, network: &str, name: &str, options: &str) -> (Value, PathBuf) {
        let text = self.network(&format!(
            "connect --format json --namespace {} {options} {network} {name}",
            space.path()
        ));
        let got: Value = serde_json::from_str(&text).unwrap();
        let hosts = got["hosts"].as_str().unwrap_or_default().into();
        (got, hosts)
    }

    /// `network show` as JSON.
    #[track_caller]
    pub fn show(&self, network: &str) -> Value {
        serde_json::from_str(&self.network(&format!("show --format json {network}"))).unwrap()
    }

    /// Everything that could be left behind: links, tables' elements, files.
    pub fn remains(&self) -> String {
        let links = self.host.sh("ip -o link show | grep -E '^[0-9]+: (lcn-|lci-|lcd-|lcu-|lb-)' || true");
        let rules = self.host.sh("nft -j list ruleset");
        let rules: Value = serde_json::from_str(&rules).unwrap();
        let mut remains = links;
        for item in rules["nftables"].as_array().unwrap() {
            for kind in ["set", "map"] {
                let set = &item[kind];
                let name = set["name"].as_str().unwrap_or_default();
                let fixed = ["to4", "to6", "from4", "from6"].contains(&name);
                if set["table"] == "locule" && !set["elem"].is_null() && !fixed {
                    remains.push_str(&format!("{name}: {}\n", set["elem"]));
                }
            }
        }
        for dir in ["ports", "containers", "devices", "names/containers", "names/resolv"] {
            remains.push_str(&listing(&self.claims().join(dir)));
        }
        for network in fs::read_dir(self.claims().join("addresses")).into_iter().flatten() {
            remains.push_str(&listing(&network.unwrap().path()));
        }
        remains
    }
}

fn listing(dir: &Path) -> String {
    let mut text = String::new();
    for entry in fs::read_dir(dir).into_iter().flatten() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if !name.starts_with(".last-") {
            text.push_str(&format!("{}/{name}\n", dir.display()));
        }
    }
    text
}

impl Drop for Lab {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// A container.
#[derive(Debug)]
pub struct Container {
    /// Its namespace.
    pub space: Space,
    /// Its IPv4 address.
    pub ip: String,
    /// Its IPv6 address.
    pub ip6: String,
    /// The host's end.
    pub end: String,
    /// Its hosts file.
    pub hosts: PathBuf,
}

/// Whether `from` reaches a service on `to` at all these addresses, by TCP and UDP.
#[track_caller]
pub fn reaches(from: &Space, to: &Space, addresses: &[&str]) {
    for address in addresses {
        for protocol in ["tcp", "udp"] {
            let service = to.serve(protocol, 4000);
            let answer = from.ask(protocol, *address, 4000, PATIENCE);
            assert!(
                answer.is_some_and(|answer| answer.starts_with("hello from ")),
                "{protocol} to {address}"
            );
            service.asked_by();
        }
    }
}

/// Whether `from` cannot reach a service at any of these addresses: nothing listens, so that nothing need be waited for
/// there, and an answer of the kernel (a refusal) would be as much of an answer.
#[track_caller]
pub fn cannot_reach(from: &Space, addresses: &[&str]) {
    for address in addresses {
        let to: IpAddr = address.parse().unwrap();
        let outcome = from.run(move || {
            TcpStream::connect_timeout(&SocketAddr::new(to, 4001), SILENCE).map_err(|err| err.kind())
        });
        use std::io::ErrorKind::{HostUnreachable, NetworkUnreachable, TimedOut};
        assert!(
            matches!(outcome, Err(TimedOut | HostUnreachable | NetworkUnreachable)),
            "tcp to {address}: {outcome:?}"
        );
    }
}
