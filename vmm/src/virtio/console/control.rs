//! The control messages of a console with several ports: port, event, value; a name may follow.

const DEVICE_READY: u16 = 0;
const DEVICE_ADD: u16 = 1;
const PORT_READY: u16 = 3;
const CONSOLE_PORT: u16 = 4;
const PORT_OPEN: u16 = 6;
const PORT_NAME: u16 = 7;

/// What a driver says.
#[derive(Debug, PartialEq, Eq)]
pub enum Message {
    /// It is ready for ports, or failed.
    DeviceReady(bool),
    /// It took a port, or failed to.
    PortReady(u32, bool),
    /// A program opened or closed a port.
    PortOpen(u32, bool),
}

impl Message {
    /// Reads one; none if it is short or unknown.
    pub fn read(bytes: &[u8]) -> Option<Message> {
        let port = u32::from_le_bytes(bytes.get(..4)?.try_into().ok()?);
        let event = u16::from_le_bytes(bytes.get(4..6)?.try_into().ok()?);
        let value = u16::from_le_bytes(bytes.get(6..8)?.try_into().ok()?) == 1;
        match event {
            DEVICE_READY => Some(Message::DeviceReady(value)),
            PORT_READY => Some(Message::PortReady(port, value)),
            PORT_OPEN => Some(Message::PortOpen(port, value)),
            _ => None,
        }
    }

    fn write(port: u32, event: u16, value: u16) -> Vec<u8> {
        let mut bytes = port.to_le_bytes().to_vec();
        bytes.extend(event.to_le_bytes());
        bytes.extend(value.to_le_bytes());
        bytes
    }

    /// There is this port.
    pub fn add(port: u32) -> Vec<u8> {
        Message::write(port, DEVICE_ADD, 1)
    }

    /// It is a console.
    pub fn console(port: u32) -> Vec<u8> {
        Message::write(port, CONSOLE_PORT, 1)
    }

    /// The host opened or closed it.
    pub fn open(port: u32, open: bool) -> Vec<u8> {
        Message::write(port, PORT_OPEN, open.into())
    }

    /// Its name.
    pub fn name(port: u32, name: &str) -> Vec<u8> {
        let mut bytes = Message::write(port, PORT_NAME, 1);
        bytes.extend(name.as_bytes());
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_read_and_noise_is_none() {
        assert_eq!(Message::read(&[0, 0, 0, 0, 0, 0, 1, 0]), Some(Message::DeviceReady(true)));
        assert_eq!(Message::read(&[1, 0, 0, 0, 6, 0, 0, 0, 9]), Some(Message::PortOpen(1, false)));
        assert_eq!(Message::read(&[1, 0, 0, 0, 99, 0, 0, 0]), None);
        assert_eq!(Message::read(&[1, 0, 0, 0, 3, 0, 0]), None);
        assert_eq!(Message::name(1, "x"), [1, 0, 0, 0, 7, 0, 1, 0, b'x']);
    }
}
