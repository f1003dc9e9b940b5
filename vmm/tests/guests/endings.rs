//! Power-off, reset, panic, triple fault and a guest that hangs are told apart.

use std::os::fd::AsFd as _;
use std::time::Duration;

use locule_vmm::{Config, Ending, Identity, Monitor, Running};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::payload::{Code, MEMORY};

/// A machine with nothing but what every machine has, and `code`.
pub fn config(code: &Code) -> Config {
    let mut kernel = tempfile::tempfile().unwrap();
    code.write_kernel(&mut kernel).unwrap();
    Config {
        kvm: None,
        memory: MEMORY << 20,
        growth: 0,
        vcpus: 1,
        kernel,
        initramfs: None,
        command_line: String::new(),
        tree: None,
        channel: None,
        console: None,
        serial: None,
        networks: Vec::new(),
        disks: Vec::new(),
        vsock: None,
        identity: Identity::Kvm,
        trace: false,
        filter: true,
    }
}

/// True where there is no KVM, which is said.
pub fn without_kvm() -> bool {
    let missing = !std::path::Path::new("/dev/kvm").exists();
    if missing {
        eprintln!("skipped: there is no /dev/kvm");
    }
    missing
}

/// Waits for the end, at most `seconds`; a guest that still runs then is stopped, and false.
pub fn ends(running: &Running, seconds: u64) -> bool {
    let ending = running.ending();
    let mut wanted = [PollFd::new(ending.as_fd(), PollFlags::POLLIN)];
    let timeout = PollTimeout::try_from(Duration::from_secs(seconds)).unwrap();
    let ended = poll(&mut wanted, timeout).unwrap() == 1;
    if !ended {
        running.stop();
    }
    ended
}

fn ending(code: &Code) -> Ending {
    let running = Monitor::new(config(code)).unwrap().start().unwrap();
    assert!(ends(&running, 60), "the guest goes on");
    running.wait()
}

#[test]
fn each_end_is_told() {
    if without_kvm() {
        return;
    }
    let mut code = Code::default();
    assert!(matches!(ending(code.power_off().halt()), Ending::PowerOff));
    let mut code = Code::default();
    assert!(matches!(ending(code.reset().halt()), Ending::Reset));
    // The keyboard controller's way.
    let mut code = Code::default();
    assert!(matches!(ending(code.output(0x64, 0xfe, 1).halt()), Ending::Reset));
    // A reset after Linux wrote that it is a warm one.
    let mut code = Code::default();
    assert!(matches!(ending(code.write(0x472, 0x1234, 2).reset().halt()), Ending::Panic));
    let mut code = Code::default();
    assert!(matches!(ending(code.triple_fault().halt()), Ending::TripleFault));
}

#[test]
fn a_guest_that_hangs_is_stopped() {
    if without_kvm() {
        return;
    }
    let mut code = Code::default();
    let running = Monitor::new(config(code.input(0x70, 1).halt())).unwrap().start().unwrap();
    // It has done something by then: it got as far as its one exit.
    while running.exits().ports == 0 {
        std::thread::sleep(Duration::from_millis(1));
    }
    running.stop();
    assert!(matches!(running.wait(), Ending::PowerOff));
}
