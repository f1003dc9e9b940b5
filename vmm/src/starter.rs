//! Starts threads for devices while the guest runs.
//!
//! Devices are activated by a processor's thread, whose filter its children would inherit. This service's thread
//! has the file server's filter, which lets it start threads: what it starts can do what the file server can.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{Builder, JoinHandle};

use crate::{Doing as _, Error, Result};

type Body = Box<dyn FnOnce() + Send>;

struct Request {
    name: String,
    body: Body,
    reply: Sender<Result<JoinHandle<()>>>,
}

/// Has threads started; clones share the service that does it.
#[derive(Clone)]
pub struct Starter(Sender<Request>);

/// What starts them.
pub struct Service {
    requests: Receiver<Request>,
    stack: usize,
}

impl Starter {
    /// A starter and its service; the threads have stacks of `stack` bytes.
    pub fn new(stack: usize) -> (Starter, Service) {
        let (sender, requests) = channel();
        (Starter(sender), Service { requests, stack })
    }

    /// Starts a thread that runs `body`. Waits for the service.
    ///
    /// # Errors
    /// Where the kernel refuses it, and when the service is over.
    pub fn start(&self, name: &str, body: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>> {
        let (reply, told) = channel();
        let gone = || Error::refused(format!("starting the thread {name}"), "the machine has ended");
        let request = Request { name: name.to_owned(), body: Box::new(body), reply };
        self.0.send(request).map_err(|_| gone())?;
        told.recv().map_err(|_| gone())?
    }
}

impl Service {
    /// Serves until the last starter is gone.
    pub fn run(self) {
        for Request { name, body, reply } in self.requests {
            let doing = format!("starting the thread {name}");
            let started = Builder::new().name(name).stack_size(self.stack).spawn(body).doing(doing);
            // Who asked may be gone; the thread then runs on its own.
            let _ = reply.send(started);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_is_started_by_the_service_with_the_filter_of_the_file_server() {
        let (starter, service) = Starter::new(256 << 10);
        let server = std::thread::spawn(move || {
            crate::filter::enter(crate::filter::Kind::Files).unwrap();
            service.run();
        });
        let (tell, told) = channel();
        let thread = starter.start("fs0", move || {
            let refused = nix::unistd::pipe().unwrap_err();
            tell.send((std::thread::current().name().map(str::to_owned), refused)).unwrap();
        });
        thread.unwrap().join().unwrap();
        assert_eq!(told.recv().unwrap(), (Some("fs0".into()), nix::errno::Errno::EPERM));
        drop(starter);
        server.join().unwrap();
    }
}
