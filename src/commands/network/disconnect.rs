//! `network disconnect`: a container taken off a network.
//!
//! Owns nothing.

use clap::{Arg, ArgMatches};
use locule_runtime::{Error, Kind, Result};

use super::{lift, open, places};
use crate::args::Globals;
use crate::cli::{Verb, switch, text};
use crate::out::Out;

/// The declaration.
pub const VERB: Verb = Verb {
    name: "network disconnect",
    about: "Take a container off a network",
    usage: "[options] <network> <container-id>\n       locule [global options] network disconnect --all <container-id>",
    details: "Takes a container's interface away, with its address, its published ports and its name. The container may \
be gone already.",
    examples: &[("Off all networks", "locule network disconnect --all web1")],
    arguments: |command| {
        command.args(places()).args([
            Arg::new("first")
                .value_name("network")
                .required(true)
                .help("Name of the network; with --all the container"),
            Arg::new("second").value_name("container-id").help("Name of the container"),
            switch("all", "Take it off every network"),
        ])
    },
    run,
    ..Verb::BASE
};

fn run(_globals: &Globals, matches: &ArgMatches, _out: &mut Out) -> Result<i32> {
    let (first, second) = (text(matches, "first").unwrap_or_default(), text(matches, "second"));
    let (network, container) = match (matches.get_flag("all"), second) {
        (true, None) => (None, first),
        (false, Some(container)) => (Some(first), container),
        (true, Some(_)) => {
            return Err(Error::invalid("network disconnect: --all goes with a container alone"));
        }
        (false, None) => return Err(Error::invalid("network disconnect: container-id is missing")),
    };
    if open(matches)?.detach(container, network).map_err(lift)? {
        return Ok(0);
    }
    let on = network.map_or_else(|| "any network".to_owned(), |network| format!("network {network:?}"));
    Err(Error::new(Kind::NotFound, format!("container {container:?} is not on {on}")))
}
