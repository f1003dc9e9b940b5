//! A driver of the device's queues, and programs of the host at the other end.

use std::collections::VecDeque;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{Arc, Mutex};

use virtio_queue::{Queue, QueueT as _};
use vm_memory::{Bytes as _, GuestAddress};

use super::connection::ROOM;
use super::packet::*;
use super::*;
use crate::events::Events;
use crate::memory::Memory;
use crate::sys::Event;
use crate::virtio::device::{Interrupt, Ring};

const CID: u32 = 7;
const SIZE: u16 = 16;
const BUFFER: u64 = 8192;
/// Tables of the two queues, and where each one's buffers lie.
const TABLES: [u64; 2] = [0x1000, 0x8000];
const BUFFERS: [u64; 2] = [0x10_0000, 0x40_0000];
/// Bytes from one buffer to the next.
const STRIDE: u64 = 2 * ROOM as u64;
const AVAILABLE: u64 = 0x2000;
const USED: u64 = 0x4000;

/// A guest's driver, with 16 buffers for packets, which it gives to the device when told to.
struct Driver {
    memory: Memory,
    device: crate::virtio::transport::Shared,
    events: Events,
    kicks: Vec<Event>,
    put: [u16; 2],
    taken: [u16; 2],
    dir: tempfile::TempDir,
    /// Packets that came and were not asked for yet.
    packets: VecDeque<(Header, Vec<u8>)>,
}

impl Driver {
    fn new() -> Driver {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join("sock")).unwrap().into();
        let directory = std::fs::File::open(dir.path()).unwrap().into();
        let vsock = Vsock::new(Config { cid: CID, directory, name: "sock".into(), listener }).unwrap();
        let device: crate::virtio::transport::Shared = Arc::new(Mutex::new(Box::new(vsock)));
        let memory = Memory::new(8 << 20).unwrap();
        let events = Events::new().unwrap();
        let number = events.add(&device);
        let mut driver = Driver {
            memory: memory.clone(),
            device: device.clone(),
            events: events.clone(),
            kicks: Vec::new(),
            put: [0; 2],
            taken: [0; 2],
            dir,
            packets: VecDeque::new(),
        };
        let rings = (0..3)
            .map(|at: usize| {
                let mut queue = Queue::new(SIZE).unwrap();
                if let Some(table) = TABLES.get(at) {
                    queue.set_desc_table_address(Some(*table as u32), Some(0));
                    queue.set_avail_ring_address(Some((table + AVAILABLE) as u32), Some(0));
                    queue.set_used_ring_address(Some((table + USED) as u32), Some(0));
                    queue.set_ready(true);
                }
                let kick = Event::new().unwrap();
                driver.kicks.push(kick.try_clone().unwrap());
                Ring { queue, kick, call: Interrupt::new(|| Ok(())) }
            })
            .collect();
        let activation = Activation {
            memory,
            rings,
            features: 0,
            changed: Interrupt::new(|| Ok(())),
            watcher: events.watcher(number),
        };
        device.lock().unwrap().activate(activation).unwrap();
        for _ in 0..SIZE {
            driver.give(RECEIVE, BUFFER as u32, true);
        }
        driver
    }

    /// Gives the next buffer of a queue to the device.
    fn give(&mut self, queue: usize, length: u32, writable: bool) {
        let index = self.put[queue] % SIZE;
        let at = GuestAddress(TABLES[queue] + u64::from(index) * 16);
        let buffer = BUFFERS[queue] + u64::from(index) * STRIDE;
        self.memory.write_obj(buffer, at).unwrap();
        self.memory.write_obj(length, GuestAddress(at.0 + 8)).unwrap();
        self.memory.write_obj(if writable { 2u32 } else { 0 }, GuestAddress(at.0 + 12)).unwrap();
        let ring = TABLES[queue] + AVAILABLE;
        self.memory.write_obj(index, GuestAddress(ring + 4 + u64::from(index) * 2)).unwrap();
        self.put[queue] = self.put[queue].wrapping_add(1);
        self.memory.write_obj(self.put[queue], GuestAddress(ring + 2)).unwrap();
        self.kicks[queue].raise().unwrap();
    }

    fn say(&mut self, header: Header, bytes: &[u8]) {
        let index = u64::from(self.put[SEND] % SIZE);
        let at = BUFFERS[SEND] + index * STRIDE;
        let packet = [&header.bytes(), bytes].concat();
        self.memory.write_slice(&packet, GuestAddress(at)).unwrap();
        self.give(SEND, packet.len() as u32, false);
        self.events.run_once();
    }

    /// Packets of the device until now; their buffers are given back.
    fn hear(&mut self) -> Option<(Header, Vec<u8>)> {
        // Once for what is readable, once for what that has changed.
        for _ in 0..2 {
            self.events.run_once();
            loop {
                let ring = TABLES[RECEIVE] + USED;
                let used: u16 = self.memory.read_obj(GuestAddress(ring + 2)).unwrap();
                if used == self.taken[RECEIVE] {
                    break;
                }
                let entry = ring + 4 + u64::from(self.taken[RECEIVE] % SIZE) * 8;
                let index: u32 = self.memory.read_obj(GuestAddress(entry)).unwrap();
                let length: u32 = self.memory.read_obj(GuestAddress(entry + 4)).unwrap();
                let mut packet = vec![0; length as usize];
                let buffer = BUFFERS[RECEIVE] + u64::from(index) * STRIDE;
                self.memory.read_slice(&mut packet, GuestAddress(buffer)).unwrap();
                let header = Header::read(&packet).unwrap();
                assert_eq!(header.length as usize, packet.len() - HEADER);
                self.packets.push_back((header, packet[HEADER..].to_vec()));
                self.taken[RECEIVE] = self.taken[RECEIVE].wrapping_add(1);
                self.give(RECEIVE, BUFFER as u32, true);
            }
        }
        self.packets.pop_front()
    }

    fn words(&mut self) -> Vec<u16> {
        std::iter::from_fn(|| self.hear()).map(|(header, _)| header.word).collect()
    }

    fn listen(&self, port: u32) -> UnixListener {
        UnixListener::bind(self.dir.path().join(format!("sock_{port}"))).unwrap()
    }

    /// A connection from the guest's port 9 to the host's port 52: the host's end.
    fn connected(&mut self) -> UnixStream {
        let listener = self.listen(52);
        self.say(from_guest(REQUEST), &[]);
        assert_eq!(self.words(), [RESPONSE]);
        listener.accept().unwrap().0
    }
}

/// A packet from port 9 to port 52, of a guest with room for much.
fn from_guest(word: u16) -> Header {
    Header {
        from: CID.into(),
        to: HOST,
        from_port: 9,
        to_port: 52,
        kind: STREAM,
        word,
        room: 1 << 20,
        ..Header::default()
    }
}

fn bytes_of(bytes: &[u8]) -> Header {
    Header { length: bytes.len() as u32, ..from_guest(RW) }
}

#[test]
fn a_guest_connects_to_a_socket_of_the_host() {
    let mut driver = Driver::new();
    let mut host = driver.connected();
    driver.say(bytes_of(b"from inside"), b"from inside");
    let mut text = [0; 11];
    host.read_exact(&mut text).unwrap();
    assert_eq!(&text, b"from inside");
    host.write_all(b"from outside").unwrap();
    let (header, bytes) = driver.hear().unwrap();
    assert_eq!((header.word, header.from_port, header.to_port, header.passed), (RW, 52, 9, 11));
    assert_eq!(bytes, b"from outside");
    // The host ends its half, then the guest both.
    host.shutdown(std::net::Shutdown::Write).unwrap();
    let (header, _) = driver.hear().unwrap();
    assert_eq!((header.word, header.flags), (SHUTDOWN, NO_SEND));
    driver.say(bytes_of(b"last"), b"last");
    driver.say(Header { flags: NO_RECEIVE | NO_SEND, ..from_guest(SHUTDOWN) }, &[]);
    let mut rest = String::new();
    host.read_to_string(&mut rest).unwrap();
    assert_eq!((rest.as_str(), driver.words().as_slice()), ("last", &[RST][..]));
}

#[test]
fn a_program_of_the_host_connects_to_a_port_of_the_guest() {
    let mut driver = Driver::new();
    let host = UnixStream::connect(driver.dir.path().join("sock")).unwrap();
    (&host).write_all(b"CONN").unwrap();
    assert_eq!(driver.hear(), None);
    (&host).write_all(b"ECT 80\nearly").unwrap();
    let (header, _) = driver.hear().unwrap();
    assert_eq!((header.word, header.to_port, header.to), (REQUEST, 80, CID.into()));
    let back = Header { from_port: 80, to_port: header.from_port, ..from_guest(RESPONSE) };
    driver.say(back, &[]);
    let mut lines = BufReader::new(&host);
    let mut line = String::new();
    lines.read_line(&mut line).unwrap();
    assert_eq!(line, format!("OK {}\n", header.from_port));
    assert_eq!(driver.hear().unwrap().1, b"early");
    // Nobody has the host's end any more: the guest may give up both ways.
    drop(host);
    let (last, _) = driver.hear().unwrap();
    assert_eq!((last.word, last.flags), (SHUTDOWN, NO_RECEIVE | NO_SEND));
    driver.say(Header { word: RST, ..back }, &[]);
    assert_eq!(driver.words(), [0u16; 0]);

    // What makes no sense, and what the guest refuses, is ended.
    for line in ["CONNECT x\n", "hello\n", "CONNECT 42949672959999"] {
        let mut host = UnixStream::connect(driver.dir.path().join("sock")).unwrap();
        host.write_all(line.as_bytes()).unwrap();
        assert_eq!(driver.words(), [0u16; 0]);
        assert_eq!(host.read_to_end(&mut Vec::new()).map_err(|err| err.kind()).unwrap_or(0), 0, "{line}");
    }
    let mut host = UnixStream::connect(driver.dir.path().join("sock")).unwrap();
    host.write_all(b"CONNECT 81\n").unwrap();
    let (header, _) = driver.hear().unwrap();
    driver.say(Header { from_port: 81, to_port: header.from_port, ..from_guest(RST) }, &[]);
    assert_eq!(host.read(&mut [0]).unwrap(), 0);
    // One that goes away before the answer is forgotten.
    let mut host = UnixStream::connect(driver.dir.path().join("sock")).unwrap();
    host.write_all(b"CONNECT 82\n").unwrap();
    assert_eq!(driver.words(), [REQUEST]);
    drop(host);
    assert_eq!(driver.words(), [RST]);
}

#[test]
fn neither_side_gets_more_than_it_has_room_for() {
    let mut driver = Driver::new();
    let mut host = driver.connected();
    // The guest has room for ten bytes, then for none, then for the rest.
    driver.say(Header { room: 10, ..from_guest(CREDIT_UPDATE) }, &[]);
    host.write_all(b"0123456789abcdef").unwrap();
    assert_eq!(driver.hear().unwrap().1, b"0123456789");
    assert_eq!(driver.words(), [CREDIT_REQUEST], "asked once");
    driver.say(Header { room: 10, passed: 11, ..from_guest(CREDIT_UPDATE) }, &[]);
    assert_eq!(driver.words(), [CREDIT_REQUEST], "more passed on than was sent is no room");
    driver.say(Header { room: 10, passed: 10, ..from_guest(CREDIT_UPDATE) }, &[]);
    assert_eq!(driver.hear().unwrap().1, b"abcdef");

    // The host reads nothing: what its socket does not take is kept, up to the room that the guest was told.
    let block = vec![7; 32 << 10];
    let mut sent = 0;
    loop {
        driver.say(bytes_of(&block), &block);
        sent += block.len() as u32;
        match driver.hear() {
            Some((header, _)) if header.word == CREDIT_UPDATE => {
                assert_eq!((header.room, header.passed), (ROOM as u32, sent));
            }
            None => break,
            other => panic!("{other:?}"),
        }
    }
    driver.say(from_guest(CREDIT_REQUEST), &[]);
    let (header, _) = driver.hear().unwrap();
    let room = ROOM as u32 - (sent - header.passed);
    assert!(header.word == CREDIT_UPDATE && room < ROOM as u32, "{header:?}");
    driver.say(bytes_of(&block[..room as usize]), &block[..room as usize]);
    sent += room;
    // As the host reads, the guest is told.
    let mut read = 0;
    let mut passed = 0;
    while read < sent as usize {
        read += host.read(&mut vec![0; ROOM]).unwrap();
        while let Some((header, _)) = driver.hear() {
            assert_eq!(header.word, CREDIT_UPDATE);
            passed = header.passed;
        }
    }
    assert_eq!((read, passed), (sent as usize, sent));
    // One byte too many is the end.
    let much = vec![7; ROOM + 1];
    driver.say(bytes_of(&much), &much);
    assert_eq!(driver.words(), [RST]);
    assert_eq!(host.read(&mut [0]).unwrap(), 0);
}

#[test]
fn what_was_sent_arrives_though_the_guest_is_gone() {
    let mut driver = Driver::new();
    let mut host = driver.connected();
    let block = vec![7; 32 << 10];
    let mut sent = 0;
    loop {
        driver.say(bytes_of(&block), &block);
        sent += block.len();
        if driver.hear().is_none() {
            break;
        }
    }
    driver.say(Header { flags: NO_RECEIVE | NO_SEND, ..from_guest(SHUTDOWN) }, &[]);
    // Not before it has arrived; this guest does not wait for it.
    assert_eq!(driver.words(), [0u16; 0]);
    driver.say(from_guest(RST), &[]);
    let mut read = 0;
    loop {
        match host.read(&mut vec![0; ROOM]).unwrap() {
            0 => break,
            count => read += count,
        }
        assert_eq!(driver.words(), [0u16; 0]);
    }
    assert_eq!(read, sent);
}

#[test]
fn bad_packets_are_refused_or_not_heard() {
    let mut driver = Driver::new();
    for (header, answer) in [
        (from_guest(REQUEST), Some(RST)),
        (from_guest(RW), Some(RST)),
        (from_guest(99), Some(RST)),
        (from_guest(RST), None),
        (Header { kind: 2, ..from_guest(REQUEST) }, Some(RST)),
        (Header { to: 4, ..from_guest(REQUEST) }, Some(RST)),
        (Header { from: 4, ..from_guest(REQUEST) }, None),
    ] {
        driver.say(header, &[]);
        let heard = driver.hear().map(|(heard, _)| heard);
        assert_eq!(heard.map(|heard| heard.word), answer, "{header:?}");
        assert!(heard.is_none_or(|heard| heard == header.refusal()), "{heard:?}");
    }
    // Less than a header, and less than is said to be behind it.
    driver.give(SEND, 43, false);
    assert_eq!(driver.hear(), None);
    let mut host = driver.connected();
    driver.say(Header { length: 5, ..from_guest(RW) }, b"four");
    assert_eq!(driver.words(), [RST]);
    assert_eq!(host.read(&mut [0]).unwrap(), 0);
}

#[test]
fn a_guest_that_takes_no_answers_is_not_heard_for_ever() {
    let mut driver = Driver::new();
    // All buffers are used by the first answers, and none comes back.
    let heard =
        |driver: &Driver| -> u16 { driver.memory.read_obj(GuestAddress(TABLES[SEND] + USED + 2)).unwrap() };
    while driver.put[SEND] - heard(&driver) < SIZE {
        driver.say(from_guest(RW), &[]);
        assert!(driver.put[SEND] < 1000, "it takes whatever comes");
    }
    // Taken, they make room for the rest.
    let answers = driver.words();
    assert!(answers.iter().all(|word| *word == RST));
    assert_eq!((answers.len(), heard(&driver)), (driver.put[SEND].into(), driver.put[SEND]));
}

#[test]
fn there_are_only_so_many_connections() {
    let mut driver = Driver::new();
    let listener = driver.listen(52);
    let mut ends = Vec::new();
    for port in 0..table::MOST as u32 + 3 {
        driver.say(Header { from_port: port, ..from_guest(REQUEST) }, &[]);
        let (header, _) = driver.hear().unwrap();
        let granted = (port as usize) < table::MOST;
        assert_eq!(header.word, if granted { RESPONSE } else { RST }, "{port}");
        ends.push(listener.accept().unwrap().0);
    }
    // One that goes makes room; a second request for what stands ends it.
    driver.say(Header { from_port: 5, ..from_guest(RST) }, &[]);
    driver.say(Header { from_port: 999, ..from_guest(REQUEST) }, &[]);
    assert_eq!(driver.words(), [RESPONSE]);
    driver.say(Header { from_port: 999, ..from_guest(REQUEST) }, &[]);
    assert_eq!(driver.words(), [RST]);
    // The driver's reset ends all.
    driver.device.lock().unwrap().reset();
    assert!(ends.iter_mut().all(|end| end.read(&mut [0]).unwrap() == 0));
}
