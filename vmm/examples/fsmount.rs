//! Runs a command on a directory as a guest would see it through the file server: `fsmount DIR TARGET CMD...`.
//!
//! The directory is `TARGET/root` to the command, in a mount namespace of its own. Needs root and `/dev/fuse`.

#[path = "../tests/fs/bridge.rs"]
#[allow(clippy::unwrap_used, clippy::expect_used, reason = "it is a part of tests")]
mod bridge;

use std::fs::File;
use std::path::Path;
use std::process::{Command, ExitCode};

use locule_vmm::fs::{Access, Server, Tree};

fn main() -> ExitCode {
    let words: Vec<_> = std::env::args_os().skip(1).collect();
    let [dir, target, command, arguments @ ..] = words.as_slice() else {
        eprintln!("usage: fsmount DIR TARGET CMD...");
        return ExitCode::from(2);
    };
    let threads = std::env::var("THREADS").ok().and_then(|text| text.parse().ok()).unwrap_or(2);
    let mut tree = Tree::new();
    match File::open(dir) {
        Ok(file) => tree.add("root", file.into(), Access::ReadWrite),
        Err(error) => {
            eprintln!("fsmount: opening {}: {error}", dir.display());
            return ExitCode::FAILURE;
        }
    }
    let server = match Server::new(tree) {
        Ok(server) => server,
        Err(error) => {
            eprintln!("fsmount: {error}");
            return ExitCode::FAILURE;
        }
    };
    let _mount = bridge::Mount::new(&server, Path::new(target), threads);
    match Command::new(command).args(arguments).status() {
        Ok(status) => ExitCode::from(status.code().unwrap_or(1) as u8),
        Err(error) => {
            eprintln!("fsmount: {}: {error}", command.display());
            ExitCode::FAILURE
        }
    }
}
