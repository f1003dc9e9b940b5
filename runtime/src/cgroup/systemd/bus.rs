//! A connection to a D-Bus bus, or to systemd itself, for a few calls.
//!
//! One socket, blocking with a time limit, no thread: the runtime must stay single-threaded, as it
//! clones into namespaces. It authenticates with an empty identity so that the other side takes the
//! socket's credentials: the uid as seen inside a user namespace would be refused.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags};

use super::super::control::poll_for;
use super::value::{Reader, Value, pad};
use crate::error::{Context, Error, Kind, Result};

const METHOD_CALL: u8 = 1;
const METHOD_RETURN: u8 = 2;
const ERROR: u8 = 3;
const SIGNAL: u8 = 4;

/// Far more than any answer that is asked for here.
const MAX_MESSAGE: usize = 1 << 20;

/// Where to connect to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// A path, or with `abstract_name` a name in the abstract namespace.
    pub path: String,
    /// See `path`.
    pub abstract_name: bool,
    /// The other end is systemd itself and no bus.
    pub direct: bool,
}

/// What the other side says.
#[derive(Debug)]
pub struct Message {
    kind: u8,
    reply_to: Option<u32>,
    /// The signal's or method's name.
    pub member: String,
    /// The name of the error.
    pub error: String,
    /// The arguments.
    pub args: Vec<Value>,
}

/// How a call failed.
#[derive(Debug)]
pub enum Failure {
    /// The other side refused, with the name and the text of the error.
    Refused {
        /// `org.freedesktop.systemd1.UnitExists`
        name: String,
        /// What it says.
        text: String,
    },
    /// The connection is gone or never was.
    Lost(Error),
}

/// A connection.
#[derive(Debug)]
pub struct Bus {
    stream: UnixStream,
    received: Vec<u8>,
    signals: VecDeque<Message>,
    serial: u32,
    direct: bool,
    end: Instant,
}

impl Bus {
    /// Connects to the first of `addresses` that answers; everything together may take `limit`.
    pub fn connect(addresses: &[Address], limit: Duration) -> Result<Bus, Error> {
        let mut refusal = None;
        for address in addresses {
            let connected = match address.abstract_name {
                false => UnixStream::connect(&address.path),
                true => SocketAddr::from_abstract_name(&address.path)
                    .and_then(|addr| UnixStream::connect_addr(&addr)),
            };
            match connected.doing(|| format!("connecting to {}", address.path)) {
                Ok(stream) => return Bus::start(stream, address.direct, limit),
                Err(err) => {
                    refusal.get_or_insert(err);
                }
            }
        }
        Err(refusal.unwrap_or_else(|| Error::unsupported("no D-Bus address is known")))
    }

    fn start(stream: UnixStream, direct: bool, limit: Duration) -> Result<Bus> {
        let end = Instant::now() + limit;
        let mut bus = Bus { stream, received: Vec::new(), signals: VecDeque::new(), serial: 0, direct, end };
        // All at once, as libsystemd does it: none of our answers depends on theirs.
        bus.write(b"\0AUTH EXTERNAL\r\nDATA\r\nBEGIN\r\n")?;
        if !direct {
            bus.send("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus", "Hello", &[])?;
        }
        for wanted in ["DATA", "OK"] {
            let line = bus.line()?;
            if !line.starts_with(wanted) {
                return Err(Error::new(
                    Kind::System,
                    format!("the D-Bus server refused the login ({line:?})"),
                )
                .hint("the user of this process may not use the bus"));
            }
        }
        Ok(bus)
    }

    /// Whether the other end is systemd itself.
    pub fn is_direct(&self) -> bool {
        self.direct
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.stream.write_all(bytes).doing(|| "writing to the D-Bus socket")
    }

    /// Reads what there is, waiting for something until the time is over.
    fn fill(&mut self) -> Result<()> {
        let doing = || "reading from the D-Bus socket";
        let left = self.end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Error::sys(Errno::ETIMEDOUT, "waiting for an answer on the D-Bus socket"));
        }
        poll_for(&mut [PollFd::new(self.stream.as_fd(), PollFlags::POLLIN)], left).doing(doing)?;
        let mut chunk = [0u8; 4096];
        self.stream.set_nonblocking(true).doing(doing)?;
        let got = self.stream.read(&mut chunk);
        self.stream.set_nonblocking(false).doing(doing)?;
        match got {
            Ok(0) => Err(Error::sys(Errno::ECONNRESET, doing())),
            Ok(n) => {
                self.received.extend_from_slice(&chunk[..n]);
                Ok(())
            }
            Err(err) if err.kind() == std::io::ErrorKind::WouldBlock => Ok(()),
            Err(err) => Err(err).doing(doing),
        }
    }

    fn line(&mut self) -> Result<String> {
        loop {
            if let Some(at) = self.received.windows(2).position(|pair| pair == b"\r\n") {
                let line: Vec<u8> = self.received.drain(..at + 2).take(at).collect();
                return Ok(String::from_utf8_lossy(&line).into_owned());
            }
            if self.received.len() > 4096 {
                return Err(Error::new(Kind::System, "the D-Bus server's login answer has no end"));
            }
            self.fill()?;
        }
    }

    /// Sends a call without waiting; the answer is told by the number returned.
    pub fn send(
        &mut self,
        dest: &str,
        path: &str,
        interface: &str,
        member: &str,
        args: &[Value],
    ) -> Result<u32> {
        self.serial += 1;
        let message = encode_call(self.serial, dest, path, interface, member, args);
        self.write(&message)?;
        Ok(self.serial)
    }

    /// Sends a call and waits for its answer.
    pub fn call(
        &mut self,
        dest: &str,
        path: &str,
        interface: &str,
        member: &str,
        args: &[Value],
    ) -> Result<Vec<Value>, Failure> {
        let serial = self.send(dest, path, interface, member, args).map_err(Failure::Lost)?;
        loop {
            let message = self.receive().map_err(Failure::Lost)?;
            match (message.kind, message.reply_to) {
                (SIGNAL, _) => self.signals.push_back(message),
                (METHOD_RETURN, Some(to)) if to == serial => return Ok(message.args),
                (ERROR, Some(to)) if to == serial => {
                    let text = message.args.first().and_then(Value::as_str).unwrap_or_default().to_owned();
                    return Err(Failure::Refused { name: message.error, text });
                }
                // The answers to what was sent without waiting.
                _ => {}
            }
        }
    }

    /// The next signal, those first that came during calls.
    pub fn signal(&mut self) -> Result<Message> {
        if let Some(message) = self.signals.pop_front() {
            return Ok(message);
        }
        loop {
            let message = self.receive()?;
            if message.kind == SIGNAL {
                return Ok(message);
            }
        }
    }

    fn receive(&mut self) -> Result<Message> {
        loop {
            match message_length(&self.received) {
                Some(length) if length > MAX_MESSAGE => break,
                Some(length) if self.received.len() >= length => {
                    let bytes: Vec<u8> = self.received.drain(..length).collect();
                    match decode(&bytes) {
                        Some(message) => return Ok(message),
                        None => break,
                    }
                }
                _ => self.fill()?,
            }
        }
        Err(Error::new(Kind::System, "malformed message on the D-Bus socket"))
    }
}

fn encode_call(
    serial: u32,
    dest: &str,
    path: &str,
    interface: &str,
    member: &str,
    args: &[Value],
) -> Vec<u8> {
    let mut body = Vec::new();
    args.iter().for_each(|arg| arg.encode(&mut body));
    let signature: String = args.iter().map(Value::signature).collect();
    let field =
        |code: u8, value: Value| Value::Struct(vec![Value::Byte(code), Value::Variant(Box::new(value))]);
    let mut fields = vec![
        field(1, Value::Path(path.into())),
        field(2, Value::str(interface)),
        field(3, Value::str(member)),
        field(6, Value::str(dest)),
    ];
    if !signature.is_empty() {
        fields.push(field(8, Value::Signature(signature)));
    }
    let order = if cfg!(target_endian = "little") { b'l' } else { b'B' };
    let mut out = vec![order, METHOD_CALL, 0, 1];
    Value::U32(body.len() as u32).encode(&mut out);
    Value::U32(serial).encode(&mut out);
    Value::Array("(yv)".into(), fields).encode(&mut out);
    pad(&mut out, 8);
    out.extend(body);
    out
}

fn head_number(bytes: &[u8], at: usize) -> Option<usize> {
    let four: [u8; 4] = bytes.get(at..at + 4)?.try_into().ok()?;
    let number = if bytes[0] == b'l' { u32::from_le_bytes(four) } else { u32::from_be_bytes(four) };
    Some(number as usize)
}

/// The length of the whole message that begins here, as soon as its head is there.
fn message_length(bytes: &[u8]) -> Option<usize> {
    let (body, fields) = (head_number(bytes, 4)?, head_number(bytes, 12)?);
    Some((16 + fields).next_multiple_of(8) + body)
}

fn decode(bytes: &[u8]) -> Option<Message> {
    let little = match bytes.first()? {
        b'l' => true,
        b'B' => false,
        _ => return None,
    };
    let fields = Reader::new(bytes, 12, little).all("a(yv)")?;
    let mut message = Message {
        kind: bytes[1],
        reply_to: None,
        member: String::new(),
        error: String::new(),
        args: Vec::new(),
    };
    let mut signature = String::new();
    let [Value::Array(_, fields)] = &fields[..] else { return None };
    for field in fields {
        let Value::Struct(parts) = field else { return None };
        let [Value::Byte(code), Value::Variant(value)] = &parts[..] else { return None };
        match (code, &**value) {
            (3, Value::Str(member)) => message.member.clone_from(member),
            (4, Value::Str(error)) => message.error.clone_from(error),
            (5, Value::U32(serial)) => message.reply_to = Some(*serial),
            (8, Value::Signature(text)) => signature.clone_from(text),
            _ => {}
        }
    }
    let body = (16 + head_number(bytes, 12)?).next_multiple_of(8);
    // Types that are not read here (dictionaries) come only in signals nobody asked for.
    message.args = Reader::new(bytes, body, little).all(&signature).unwrap_or_default();
    Some(message)
}

/// The unix sockets in a D-Bus address list, as in `DBUS_SESSION_BUS_ADDRESS`.
pub fn parse_addresses(text: &str) -> Vec<Address> {
    let parse = |one: &str| {
        let options = one.strip_prefix("unix:")?;
        options.split(',').find_map(|option| {
            let (key, value) = option.split_once('=')?;
            let abstract_name = match key {
                "path" => false,
                "abstract" => true,
                _ => return None,
            };
            Some(Address { path: unescape(value)?, abstract_name, direct: false })
        })
    };
    text.split(';').filter_map(parse).collect()
}

/// `%20` and the like.
fn unescape(text: &str) -> Option<String> {
    let mut out = Vec::new();
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'%' => {
                let digit = |byte: u8| char::from(byte).to_digit(16);
                (digit(bytes.next()?)? * 16 + digit(bytes.next()?)?) as u8
            }
            byte => byte,
        });
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_reads_back() {
        let args = [Value::str("x.scope"), Value::Array("(sv)".into(), vec![])];
        let bytes = encode_call(7, "org.x", "/org/x", "org.x.Y", "Do", &args);
        assert_eq!(message_length(&bytes), Some(bytes.len()));
        assert_eq!(message_length(&bytes[..15]), None);
        let message = decode(&bytes).unwrap();
        assert_eq!(message.kind, METHOD_CALL);
        assert_eq!(message.member, "Do");
        assert_eq!(message.args, args);
    }

    #[test]
    fn addresses_of_both_kinds() {
        let all = parse_addresses("tcp:host=x;unix:path=/run/user/7/b%20us,guid=1;unix:abstract=/tmp/x");
        let paths: Vec<_> = all.iter().map(|a| (&*a.path, a.abstract_name)).collect();
        assert_eq!(paths, [("/run/user/7/b us", false), ("/tmp/x", true)]);
        assert!(parse_addresses("unix:path=/x%zz").is_empty());
    }

    const BUS: &str = "org.freedesktop.DBus";
    const ADDRESS: &str = "LOCULE_TEST_BUS";

    /// A bus of its own on a socket of its own.
    struct Daemon {
        process: std::process::Child,
        address: String,
    }

    impl Daemon {
        fn start() -> Daemon {
            let mut process = std::process::Command::new("dbus-daemon")
                .args(["--session", "--nofork", "--nopidfile", "--print-address=1"])
                .arg("--address=unix:tmpdir=/tmp")
                .stdout(std::process::Stdio::piped())
                .spawn()
                .expect("dbus-daemon(1) starts: install the package dbus-daemon");
            let mut line = String::new();
            let stdout = process.stdout.take().unwrap();
            std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut line).unwrap();
            Daemon { process, address: line.trim().to_owned() }
        }
    }

    impl Drop for Daemon {
        fn drop(&mut self) {
            let _ = self.process.kill();
            let _ = self.process.wait();
        }
    }

    fn connect(address: &str) -> Bus {
        Bus::connect(&parse_addresses(address), Duration::from_secs(20)).unwrap()
    }

    fn ask(bus: &mut Bus, member: &str, args: &[Value]) -> Result<Vec<Value>, Failure> {
        bus.call(BUS, "/org/freedesktop/DBus", BUS, member, args)
    }

    #[test]
    fn talks_to_a_real_bus() {
        let daemon = Daemon::start();
        let mut bus = connect(&daemon.address);
        let args = [Value::str("org.locule.Test"), Value::U32(4)];
        assert_eq!(ask(&mut bus, "RequestName", &args).unwrap(), [Value::U32(1)]);
        let owner = ask(&mut bus, "GetNameOwner", &args[..1]).unwrap();
        // The bus told us of our names before it answered: signals wait while calls are answered.
        let own = owner[0].as_str().unwrap();
        for name in [own, "org.locule.Test"] {
            let signal = bus.signal().unwrap();
            assert_eq!((&*signal.member, signal.args[0].as_str()), ("NameAcquired", Some(name)));
        }
        match ask(&mut bus, "Nonesuch", &[]) {
            Err(Failure::Refused { name, text }) => {
                assert_eq!(name, "org.freedesktop.DBus.Error.UnknownMethod");
                assert!(text.contains("Nonesuch"), "{text}");
            }
            other => panic!("{other:?}"),
        }
        // A match on one argument, as for the jobs of one unit: the other name is not told.
        let rule = "type='signal',member='NameOwnerChanged',arg0='org.locule.Seen'";
        bus.send(BUS, "/org/freedesktop/DBus", BUS, "AddMatch", &[Value::str(rule)]).unwrap();
        ask(&mut bus, "GetId", &[]).unwrap();
        let mut other = connect(&daemon.address);
        for name in ["org.locule.Unseen", "org.locule.Seen"] {
            ask(&mut other, "RequestName", &[Value::str(name), Value::U32(4)]).unwrap();
        }
        let signal = bus.signal().unwrap();
        assert_eq!((&*signal.member, signal.args[0].as_str()), ("NameOwnerChanged", Some("org.locule.Seen")));
        drop(daemon);
        assert!(matches!(ask(&mut bus, "GetId", &[]), Err(Failure::Lost(_))));
    }

    #[test]
    fn the_uid_inside_a_user_namespace_does_not_matter() {
        if let Ok(address) = std::env::var(ADDRESS) {
            ask(&mut connect(&address), "GetId", &[]).unwrap();
            return;
        }
        let daemon = Daemon::start();
        let name = "cgroup::systemd::bus::tests::the_uid_inside_a_user_namespace_does_not_matter";
        let status = std::process::Command::new("unshare")
            .args(["--user", "--map-user=4242", "--"])
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", name, "--test-threads=1"])
            .env(ADDRESS, &daemon.address)
            .status()
            .unwrap();
        assert!(status.success());
    }

    #[test]
    fn a_silent_server_ends_in_a_time_out() {
        let path = format!("/tmp/locule-test-silent-{}", std::process::id());
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let err = Bus::connect(&parse_addresses(&format!("unix:path={path}")), Duration::from_millis(50))
            .unwrap_err();
        assert_eq!(err.errno(), Some(Errno::ETIMEDOUT));
        drop(listener);
        std::fs::remove_file(&path).unwrap();
    }
}
