//! Host names to addresses, without the C library: a static binary cannot load its name services.
//!
//! Owns /etc/hosts, /etc/resolv.conf and the asking of a name server, by UDP and, where the answer
//! is cut, by TCP (RFC 1035). Believes only an answer to its own question.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use ring::rand::{SecureRandom, SystemRandom};
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;

const A: u16 = 1;
const AAAA: u16 = 28;

/// The resolver.
#[derive(Debug, Clone)]
pub struct Names {
    hosts: String,
    servers: Vec<SocketAddr>,
    search: Vec<String>,
    ndots: usize,
    timeout: Duration,
    attempts: u32,
}

impl Names {
    /// As this machine is configured.
    pub fn of_system() -> Names {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        Names::from_text(&read("/etc/hosts"), &read("/etc/resolv.conf"))
    }

    /// From the texts of hosts(5) and resolv.conf(5).
    pub fn from_text(hosts: &str, conf: &str) -> Names {
        let mut names = Names {
            hosts: hosts.to_owned(),
            servers: Vec::new(),
            search: Vec::new(),
            ndots: 1,
            timeout: Duration::from_secs(5),
            attempts: 2,
        };
        for line in conf.lines() {
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => {
                    // A scope behind a link-local address is not followed.
                    let address =
                        words.next().and_then(|word| word.split('%').next()?.parse::<IpAddr>().ok());
                    names.servers.extend(address.map(|address| SocketAddr::new(address, 53)));
                }
                Some("search" | "domain") => names.search = words.map(str::to_owned).collect(),
                Some("options") => {
                    for option in words {
                        match option.split_once(':') {
                            Some(("ndots", n)) => names.ndots = n.parse().unwrap_or(1).min(15),
                            Some(("timeout", n)) => {
                                names.timeout = Duration::from_secs(n.parse().unwrap_or(5).clamp(1, 30));
                            }
                            Some(("attempts", n)) => names.attempts = n.parse().unwrap_or(2).clamp(1, 5),
                            _ => {}
                        }
                    }
                }
                _ => {}
            }
        }
        if names.servers.is_empty() {
            names.servers.push(SocketAddr::from(([127, 0, 0, 1], 53)));
        }
        names
    }

    /// Asks these servers instead.
    pub fn with_servers(mut self, servers: Vec<SocketAddr>, timeout: Duration) -> Names {
        self.servers = servers;
        self.timeout = timeout;
        self
    }

    /// The addresses of `host`.
    pub fn lookup(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        let host = host.trim_start_matches('[').trim_end_matches(']');
        if let Ok(address) = host.parse() {
            return Ok(vec![address]);
        }
        let listed = self.listed(host);
        if !listed.is_empty() {
            return Ok(listed);
        }
        // RFC 6761: these are never asked for.
        if host == "localhost" || host.ends_with(".localhost") {
            return Ok(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]);
        }
        let searched = self.search.iter().map(|domain| format!("{host}.{domain}"));
        let names: Vec<String> = match host.trim_end_matches('.').matches('.').count() {
            _ if host.ends_with('.') => vec![host.trim_end_matches('.').to_owned()],
            dots if dots >= self.ndots => std::iter::once(host.to_owned()).chain(searched).collect(),
            _ => searched.chain(std::iter::once(host.to_owned())).collect(),
        };
        let mut last = io::Error::new(io::ErrorKind::NotFound, "no such host");
        for name in names {
            match self.ask_all(&name) {
                Ok(found) if !found.is_empty() => return Ok(found),
                Ok(_) => {}
                Err(err) => last = err,
            }
        }
        Err(last)
    }

    fn listed(&self, host: &str) -> Vec<IpAddr> {
        let lines = self.hosts.lines().map(|line| line.split('#').next().unwrap_or_default());
        lines
            .filter_map(|line| {
                let mut words = line.split_whitespace();
                let address = words.next()?.parse().ok()?;
                words.any(|name| name.eq_ignore_ascii_case(host)).then_some(address)
            })
            .collect()
    }

    fn ask_all(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        let mut last = io::Error::new(io::ErrorKind::TimedOut, "no name server answers");
        for _ in 0..self.attempts {
            for server in &self.servers {
                let both = [A, AAAA].map(|kind| self.ask(*server, name, kind));
                match both {
                    [Err(err), Err(_)] => last = err,
                    both => return Ok(both.into_iter().flatten().flatten().collect()),
                }
            }
        }
        Err(last)
    }

    fn ask(&self, server: SocketAddr, name: &str, kind: u16) -> io::Result<Vec<IpAddr>> {
        let question = question(name, kind)?;
        let any: SocketAddr = if server.is_ipv4() {
            (Ipv4Addr::UNSPECIFIED, 0).into()
        } else {
            (Ipv6Addr::UNSPECIFIED, 0).into()
        };
        let socket = UdpSocket::bind(any)?;
        socket.connect(server)?;
        socket.send(&question)?;
        let end = Instant::now() + self.timeout;
        let mut packet = [0; 4096];
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "the name server does not answer"));
            }
            socket.set_read_timeout(Some(left))?;
            let n = match socket.recv(&mut packet) {
                Err(err) if err.kind() == io::ErrorKind::Interrupted => continue,
                other => other?,
            };
            match answer(&question, &packet[..n])? {
                Answer::Addresses(found) => return Ok(found),
                Answer::Cut => break,
                Answer::Other => {}
            }
        }
        let mut stream = TcpStream::connect_timeout(&server, self.timeout)?;
        stream.set_read_timeout(Some(self.timeout))?;
        stream.write_all(&(question.len() as u16).to_be_bytes())?;
        stream.write_all(&question)?;
        let mut length = [0; 2];
        stream.read_exact(&mut length)?;
        let mut packet = vec![0; usize::from(u16::from_be_bytes(length))];
        stream.read_exact(&mut packet)?;
        match answer(&question, &packet)? {
            Answer::Addresses(found) => Ok(found),
            _ => Err(io::Error::new(io::ErrorKind::InvalidData, "the name server's answer cannot be read")),
        }
    }
}

/// A question for records of `kind`, recursion desired.
fn question(name: &str, kind: u16) -> io::Result<Vec<u8>> {
    let refuse = || io::Error::new(io::ErrorKind::InvalidInput, "not a host name");
    let mut id = [0; 2];
    SystemRandom::new().fill(&mut id).map_err(|_| io::Error::other("no random numbers"))?;
    let mut packet = vec![id[0], id[1], 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        if label.is_empty() || label.len() > 63 || !label.is_ascii() {
            return Err(refuse());
        }
        packet.push(label.len() as u8);
        packet.extend_from_slice(label.as_bytes());
    }
    packet.push(0);
    packet.extend_from_slice(&kind.to_be_bytes());
    packet.extend_from_slice(&[0, 1]);
    if packet.len() > 12 + 255 + 4 { Err(refuse()) } else { Ok(packet) }
}

enum Answer {
    Addresses(Vec<IpAddr>),
    /// It did not fit: ask by TCP.
    Cut,
    /// Not an answer to this question.
    Other,
}

fn answer(question: &[u8], packet: &[u8]) -> io::Result<Answer> {
    let bad = || io::Error::new(io::ErrorKind::InvalidData, "the name server's answer cannot be read");
    if packet.len() < 12 || packet[..2] != question[..2] || packet[2] & 0x80 == 0 {
        return Ok(Answer::Other);
    }
    let count = |at: usize| u16::from_be_bytes([packet[at], packet[at + 1]]);
    let asked = packet.get(12..question.len()).ok_or_else(bad)?;
    if count(4) != 1 || !asked.eq_ignore_ascii_case(&question[12..]) {
        return Ok(Answer::Other);
    }
    if packet[2] & 2 != 0 {
        return Ok(Answer::Cut);
    }
    match packet[3] & 15 {
        0 => {}
        3 => return Ok(Answer::Addresses(Vec::new())),
        code => return Err(io::Error::other(format!("the name server refuses, code {code}"))),
    }
    let mut at = question.len();
    let mut found = Vec::new();
    for _ in 0..count(6) {
        at = skip_name(packet, at).ok_or_else(bad)?;
        let head = packet.get(at..at + 10).ok_or_else(bad)?;
        let (kind, length) = (u16::from_be_bytes([head[0], head[1]]), u16::from_be_bytes([head[8], head[9]]));
        let data = packet.get(at + 10..at + 10 + usize::from(length)).ok_or_else(bad)?;
        at += 10 + usize::from(length);
        match kind {
            A => found.extend(<[u8; 4]>::try_from(data).map(IpAddr::from)),
            AAAA => found.extend(<[u8; 16]>::try_from(data).map(IpAddr::from)),
            _ => {}
        }
    }
    Ok(Answer::Addresses(found))
}

/// Behind the name at `at`: labels, or a pointer to where they are.
fn skip_name(packet: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match *packet.get(at)? {
            0 => return Some(at + 1),
            length if length & 0xc0 == 0xc0 => return Some(at + 2),
            length if length & 0xc0 == 0 => at += 1 + usize::from(length),
            _ => return None,
        }
    }
}

impl Resolver for Names {
    fn resolve(
        &self,
        uri: &ureq::http::Uri,
        _config: &ureq::config::Config,
        _timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let host = uri.host().ok_or(ureq::Error::HostNotFound)?;
        let port = uri.port_u16().unwrap_or(if uri.scheme_str() == Some("http") { 80 } else { 443 });
        let found = self.lookup(host).map_err(ureq::Error::Io)?;
        let mut addresses = self.empty();
        for address in found.into_iter().take(16) {
            addresses.push(SocketAddr::new(address, port));
        }
        Ok(addresses)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_come_first() {
        let names = Names::from_text(
            "10.1.2.3 a.example Alias # x\n::1 b\n",
            "nameserver 192.0.2.1\noptions ndots:2 timeout:1\n",
        );
        assert_eq!(names.lookup("alias").unwrap(), [IpAddr::from([10, 1, 2, 3])]);
        assert_eq!(names.lookup("127.0.0.9").unwrap(), [IpAddr::from([127, 0, 0, 9])]);
        assert_eq!(names.lookup("[::1]").unwrap(), [IpAddr::from(Ipv6Addr::LOCALHOST)]);
        assert_eq!(names.lookup("x.localhost").unwrap()[0], IpAddr::from(Ipv4Addr::LOCALHOST));
        assert_eq!((names.ndots, names.timeout), (2, Duration::from_secs(1)));
    }

    /// Answers what is asked: first a forged answer, then a true one; one name only by TCP.
    #[test]
    fn a_server_is_asked() {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = server.local_addr().unwrap();
        let tcp = std::net::TcpListener::bind(address).unwrap();
        let reply = |question: &[u8], cut: bool| {
            let mut packet = question.to_vec();
            packet[2] |= 0x80 | if cut { 2 } else { 0 };
            let kind = packet[packet.len() - 3];
            if !cut && kind == 1 {
                packet[7] = 2;
                // A CNAME first, by pointer, then the address.
                packet.extend([0xc0, 12, 0, 5, 0, 1, 0, 0, 0, 9, 0, 2, 0xc0, 12]);
                packet.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 9, 0, 4, 192, 0, 2, 7]);
            }
            packet
        };
        let thread = std::thread::spawn(move || {
            for _ in 0..4 {
                let mut packet = [0; 512];
                let (n, from) = server.recv_from(&mut packet).unwrap();
                let question = &packet[..n];
                let mut forged = reply(question, false);
                forged[0] ^= 1;
                server.send_to(&forged, from).unwrap();
                server.send_to(b"junk", from).unwrap();
                let cut = question.windows(3).any(|part| part == b"big");
                server.send_to(&reply(question, cut), from).unwrap();
                if cut {
                    let (mut stream, _) = tcp.accept().unwrap();
                    let mut question = vec![0; n + 2];
                    stream.read_exact(&mut question).unwrap();
                    let full = reply(&question[2..], false);
                    stream.write_all(&(full.len() as u16).to_be_bytes()).unwrap();
                    stream.write_all(&full).unwrap();
                }
            }
        });
        let names = Names::from_text("", "").with_servers(vec![address], Duration::from_secs(20));
        for host in ["small.example", "big.example"] {
            assert_eq!(names.lookup(host).unwrap(), [IpAddr::from([192, 0, 2, 7])]);
        }
        thread.join().unwrap();
    }

    #[test]
    fn hostile_answers_are_errors() {
        let question = question("a.example", A).unwrap();
        let mut packet = question.clone();
        packet[2] |= 0x80;
        packet[7] = 200;
        for tail in [&[][..], &[0xc0], &[0xff; 40], &[63; 3], &[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 9, 0xff, 0xff]]
        {
            let mut packet = packet.clone();
            packet.extend_from_slice(tail);
            assert!(answer(&question, &packet).is_err());
        }
        assert!(super::question("a..b", A).is_err());
        assert!(super::question(&"a.".repeat(200), A).is_err());
    }
}
