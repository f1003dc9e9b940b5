//! The console device with two ports: `hvc0`, and a named one that is the channel to the agent.
//!
//! Virtio 1.2, 5.3. Queues: input and output of port 0, input and output of the control messages, input and
//! output of port 1. Control messages are in `control`, a port's end on the host in `port`.

mod control;
mod port;
mod tail;

use std::collections::VecDeque;
use std::os::fd::OwnedFd;

use virtio_queue::QueueT as _;

use self::control::Message;
use self::port::{Port, Taken};
pub use self::tail::Tail;
use super::EVENT_IDX;
use super::device::{Activation, Device};
use crate::Result;

/// The name of the channel's port: `/dev/virtio-ports/org.locule.channel` where udev runs.
pub const CHANNEL: &str = "org.locule.channel";
/// The numbers of the ports.
const HVC0: usize = 0;
const CHANNEL_PORT: usize = 1;
const PORTS: usize = 2;

const SIZES: [u16; 6] = [64, 64, 16, 16, 64, 64];
const CONTROL_IN: usize = 2;
const CONTROL_OUT: usize = 3;
const fn input(port: usize) -> usize {
    if port == 0 { 0 } else { 2 + port * 2 }
}
const fn output(port: usize) -> usize {
    input(port) + 1
}

const MULTIPORT: u64 = 1 << 1;
/// Tokens from here on are the ports' ends on the host; those below are queues.
const HOST: u64 = 16;
/// Control messages that wait for the driver. A driver that takes none gets no more.
const MOST_WAITING: usize = 32;
/// A control message of the driver is 8 bytes; what is longer is cut.
const MOST_CONTROL: usize = 64;

/// The device.
pub struct Console {
    ports: [Port; PORTS],
    tail: Tail,
    waiting: VecDeque<Vec<u8>>,
    active: Option<Activation>,
}

impl Console {
    /// A console whose text goes to `console`, and a channel to the stream socket `channel`; with the end of the text.
    pub fn new(console: Option<OwnedFd>, channel: Option<OwnedFd>) -> Result<(Console, Tail)> {
        let tail = Tail::default();
        let console = Console {
            ports: [Port::new(console)?, Port::new(channel)?],
            tail: tail.clone(),
            waiting: VecDeque::new(),
            active: None,
        };
        Ok((console, tail))
    }

    /// Handles what is ready for `token`.
    fn handle(&mut self, token: u64) -> Result<()> {
        if self.active.is_none() {
            return Ok(());
        }
        if let Some(port) = token.checked_sub(HOST) {
            let port = port as usize;
            if port < PORTS {
                self.send(port)?;
                self.receive(port)?;
            }
            return Ok(());
        }
        let queue = token as usize;
        if let Some(ring) = self.active.as_mut().and_then(|active| active.rings.get_mut(queue)) {
            ring.kick.take().map_err(|error| crate::Error::system("reading a queue's kick", error))?;
        }
        match queue {
            CONTROL_IN => self.tell(),
            CONTROL_OUT => self.listen(),
            queue => match (0..PORTS).find(|port| queue == input(*port) || queue == output(*port)) {
                Some(port) if queue == input(port) => self.receive(port),
                Some(port) => self.send(port),
                None => Ok(()),
            },
        }
    }

    /// Moves what the guest wrote to a port to the host.
    fn send(&mut self, number: usize) -> Result<()> {
        let Some(active) = &mut self.active else { return Ok(()) };
        let (port, ring) = (&mut self.ports[number], &mut active.rings[output(number)]);
        if !ring.queue.ready() {
            return Ok(());
        }
        let mut used = false;
        loop {
            if !port.flush() {
                break;
            }
            let Some(chain) = ring.next(&active.memory) else {
                // With the event index the driver must be asked to kick again, and may have been quicker.
                match ring.again(&active.memory)? {
                    true => continue,
                    false => break,
                }
            };
            let text = chain.copy(port::MOST);
            if number == HVC0 {
                self.tail.put(&text);
            }
            port.put(text);
            ring.done(&active.memory, chain.head, 0)?;
            used = true;
        }
        if used {
            ring.notify(&active.memory)?;
        }
        self.watch(number)
    }

    /// Moves what the host wrote to a port to the guest.
    fn receive(&mut self, number: usize) -> Result<()> {
        let Some(active) = &mut self.active else { return Ok(()) };
        let (port, ring) = (&mut self.ports[number], &mut active.rings[input(number)]);
        let (mut used, mut starved, mut closed) = (false, false, false);
        while ring.queue.ready() && port.open && port.readable() {
            let Some(chain) = ring.next(&active.memory) else {
                if ring.again(&active.memory)? {
                    continue;
                }
                starved = true;
                break;
            };
            match port.take(chain.room()) {
                Taken::Bytes(bytes) => {
                    let length = chain.answer(&bytes);
                    ring.done(&active.memory, chain.head, length)?;
                    used = true;
                }
                Taken::Nothing => {
                    ring.undo();
                    break;
                }
                Taken::Closed => {
                    ring.undo();
                    closed = true;
                    break;
                }
            }
        }
        if used {
            ring.notify(&active.memory)?;
        }
        port.starved = starved;
        if closed {
            self.queue(Message::open(number as u32, false));
            self.tell()?;
        }
        self.watch(number)
    }

    /// Waits for what a port can do now.
    fn watch(&mut self, number: usize) -> Result<()> {
        let Some(active) = &self.active else { return Ok(()) };
        self.ports[number].watch(&active.watcher, HOST + number as u64)
    }

    fn queue(&mut self, message: Vec<u8>) {
        if self.waiting.len() < MOST_WAITING {
            self.waiting.push_back(message);
        }
    }

    /// Gives waiting control messages to the driver.
    fn tell(&mut self) -> Result<()> {
        let Some(active) = &mut self.active else { return Ok(()) };
        let ring = &mut active.rings[CONTROL_IN];
        let mut used = false;
        while ring.queue.ready() && !self.waiting.is_empty() {
            let Some(chain) = ring.next(&active.memory) else {
                match ring.again(&active.memory)? {
                    true => continue,
                    false => break,
                }
            };
            let length = self.waiting.pop_front().map_or(0, |message| chain.answer(&message));
            ring.done(&active.memory, chain.head, length)?;
            used = true;
        }
        if used { ring.notify(&active.memory) } else { Ok(()) }
    }

    /// Reads the driver's control messages.
    fn listen(&mut self) -> Result<()> {
        let mut heard = Vec::new();
        if let Some(active) = &mut self.active {
            let ring = &mut active.rings[CONTROL_OUT];
            if ring.queue.ready() {
                ring.serve(&active.memory, |chain| {
                    heard.push(chain.copy(MOST_CONTROL));
                    Ok(0)
                })?;
            }
        }
        for bytes in heard {
            self.obey(&bytes)?;
        }
        self.tell()
    }

    fn obey(&mut self, bytes: &[u8]) -> Result<()> {
        match Message::read(bytes) {
            Some(Message::DeviceReady(true)) => {
                for port in 0..PORTS as u32 {
                    self.queue(Message::add(port));
                }
            }
            Some(Message::PortReady(port, true)) if (port as usize) < PORTS => {
                match port as usize {
                    HVC0 => {
                        self.queue(Message::console(port));
                        // Consoles are open without being opened by a program.
                        self.ports[HVC0].open = true;
                    }
                    _ => self.queue(Message::name(port, CHANNEL)),
                }
                self.queue(Message::open(port, true));
                self.receive(port as usize)?;
            }
            Some(Message::PortOpen(port, open)) if port as usize == CHANNEL_PORT => {
                self.ports[CHANNEL_PORT].open = open;
                self.receive(CHANNEL_PORT)?;
            }
            _ => {}
        }
        Ok(())
    }
}

impl Device for Console {
    fn kind(&self) -> u32 {
        3
    }

    fn features(&self) -> u64 {
        MULTIPORT | EVENT_IDX
    }

    fn queue_sizes(&self) -> &[u16] {
        &SIZES
    }

    fn vectors(&self) -> usize {
        // One for all queues: text is no load, and each further one costs a boot ten exits.
        2
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        // Columns and rows (0: not known), then the number of ports.
        let mut config = [0u8; 12];
        config[4] = PORTS as u8;
        super::read_bytes(&config, offset, data);
    }

    fn activate(&mut self, activation: Activation) -> Result<()> {
        super::watch_kicks(&activation)?;
        self.ports[HVC0].open = activation.features & MULTIPORT == 0;
        self.active = Some(activation);
        Ok(())
    }

    fn event(&mut self, token: u64) -> Result<()> {
        self.handle(token)
    }

    fn reset(&mut self) {
        if let Some(active) = self.active.take() {
            super::forget_kicks(&active);
            for port in &mut self.ports {
                port.forget(&active.watcher);
            }
        }
        self.waiting.clear();
    }
}
