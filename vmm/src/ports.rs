//! The few ports that the machine has: power, reset, the clock, and a serial port if it was asked for.

use std::io::Write;
use std::os::fd::OwnedFd;

use vm_superio::Serial;
use vm_superio::serial::NoEvents;

use crate::cmos::Cmos;
use crate::sys::Event;
use crate::x86_64::layout;

/// What a write to a port means.
#[derive(Debug, PartialEq, Eq)]
pub enum Act {
    /// The guest goes on.
    Nothing,
    /// It powers off.
    PowerOff,
    /// It wants a reset.
    Reset,
}

/// ACPI's sleep control register: go to sleep.
const SLEEP_ENABLE: u8 = 1 << 5;
/// The keyboard controller's command that pulses the reset line.
const KEYBOARD_RESET: u8 = 0xfe;
const CLOCK_DATA: u16 = layout::PORT_CLOCK + 1;
/// Ports of a serial port.
const SERIAL_PORTS: u16 = 8;

/// Raises the serial port's interrupt.
pub struct Line(pub Event);

impl vm_superio::Trigger for Line {
    type E = std::io::Error;

    fn trigger(&self) -> std::io::Result<()> {
        self.0.raise()
    }
}

/// Where the serial port's text goes. What nobody takes is lost: the guest is not held up.
pub struct Sink(std::fs::File);

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let _ = self.0.write(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// The ports.
pub struct Ports {
    clock: Cmos,
    serial: Option<Serial<Line, NoEvents, Sink>>,
}

impl Ports {
    /// With a serial port that writes to `output`, and whose interrupt is `event`.
    pub fn new(serial: Option<(OwnedFd, Event)>) -> Ports {
        let clock = Cmos::default();
        Ports { clock, serial: serial.map(|(output, event)| Serial::new(Line(event), Sink(output.into()))) }
    }

    /// All ones where nothing is.
    pub fn read(&mut self, port: u16, data: &mut [u8]) {
        data.fill(0xff);
        let [byte] = data else { return };
        match port {
            layout::PORT_SLEEP_CONTROL | layout::PORT_SLEEP_STATUS | layout::PORT_RESET => *byte = 0,
            // The keyboard controller takes a command at any time; there is no keyboard.
            layout::PORT_KEYBOARD => *byte = 0,
            CLOCK_DATA => *byte = self.clock.read(),
            _ => {
                if let Some((serial, offset)) = self.serial_at(port) {
                    *byte = serial.read(offset);
                }
            }
        }
    }

    /// Writes a port.
    pub fn write(&mut self, port: u16, data: &[u8]) -> Act {
        let [byte] = *data else { return Act::Nothing };
        match port {
            layout::PORT_SLEEP_CONTROL if byte == layout::SLEEP_TYPE_OFF << 2 | SLEEP_ENABLE => Act::PowerOff,
            layout::PORT_RESET if byte == layout::RESET_VALUE => Act::Reset,
            layout::PORT_CLOCK => {
                self.clock.select(byte);
                Act::Nothing
            }
            layout::PORT_KEYBOARD if byte == KEYBOARD_RESET => Act::Reset,
            _ => {
                if let Some((serial, offset)) = self.serial_at(port) {
                    let _ = serial.write(offset, byte);
                }
                Act::Nothing
            }
        }
    }

    fn serial_at(&mut self, port: u16) -> Option<(&mut Serial<Line, NoEvents, Sink>, u8)> {
        let offset = port.checked_sub(layout::PORT_SERIAL).filter(|offset| *offset < SERIAL_PORTS)?;
        self.serial.as_mut().map(|serial| (serial, offset as u8))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn power_off_and_reset_are_told_apart_from_noise() {
        let mut ports = Ports::new(None);
        assert_eq!(ports.write(layout::PORT_SLEEP_CONTROL, &[0x34]), Act::PowerOff);
        assert_eq!(ports.write(layout::PORT_RESET, &[1]), Act::Reset);
        assert_eq!(ports.write(layout::PORT_KEYBOARD, &[0xfe]), Act::Reset);
        for port in 0..=u16::MAX {
            for data in [&[0u8][..], &[0x14], &[1, 0], &[0x34, 0, 0, 0], &[]] {
                assert_eq!(ports.write(port, data), Act::Nothing);
            }
        }
        let mut word = [0; 4];
        ports.read(0xcf8, &mut word);
        assert_eq!(word, [0xff; 4]);
    }

    #[test]
    fn the_serial_port_writes_where_it_was_told() {
        let (read, write) = nix::unistd::pipe().unwrap();
        let mut ports = Ports::new(Some((write, Event::new().unwrap())));
        ports.write(layout::PORT_SERIAL, b"x");
        let mut byte = [0];
        nix::unistd::read(&read, &mut byte).unwrap();
        assert_eq!(&byte, b"x");
    }
}
