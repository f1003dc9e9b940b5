//! `image pull`: images from a registry.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Arg, ArgMatches};
use locule_images::manifest::Platform;
use locule_images::registry::client::{Client, Patience};
use locule_images::registry::config::Registries;
use locule_images::registry::policy::Policy;
use locule_images::registry::pull::Pull;
use locule_images::unpack::Options;
use locule_images::{Reference, Store};
use locule_runtime::{Error, Result};

use super::import::{platform, wanted};
use super::progress::Bar;
use super::{files, images, told};
use crate::args::Globals;
use crate::cli::{Verb, option, path_parser, switch, text};
use crate::out::Out;

/// The declaration.
pub const VERB: Verb = Verb {
    name: "image pull",
    about: "Fetch an image from a registry",
    usage: "[options] <image>",
    details: "Fetches an image from an OCI or Docker registry, side by side and unpacked while it comes. A cut \
download goes on where it ended, also in a later call. Prints the name.\n\nRead are containers-registries.conf(5) \
(locations, mirrors, insecure and blocked registries), containers-auth.json(5) and Docker's config.json with their \
credential helpers, containers-certs.d(5) and containers-policy.json(5); a policy that demands signatures needs skopeo. \
Registries on this machine's loopback need no TLS.",
    examples: &[
        ("From Docker Hub", "locule image pull debian:13"),
        ("Pinned to its content", "locule image pull registry.example/app@sha256:…"),
    ],
    arguments: |command| {
        command.args([
            images(),
            platform(),
            auth_file(),
            option("policy", "FILE", "What may be taken (default: as containers-policy.json(5))")
                .value_parser(path_parser()),
            timeout(),
            tries(),
            switch("quiet", "Draw no progress bar").short('q'),
            Arg::new("image").value_name("image").required(true).help("Name of the image in its registry"),
        ])
    },
    run,
    ..Verb::BASE
};

/// `--authfile`.
pub fn auth_file() -> Arg {
    option("authfile", "FILE", "Credentials (default: as containers-auth.json(5))")
        .value_parser(path_parser())
}

/// `--timeout`.
pub fn timeout() -> Arg {
    option("timeout", "SECONDS", "How long a registry may be silent")
        .default_value("30")
        .value_parser(clap::value_parser!(u64).range(1..))
}

/// `--tries`.
pub fn tries() -> Arg {
    option("tries", "NUMBER", "Attempts of one request")
        .default_value("5")
        .value_parser(clap::value_parser!(u32).range(1..=100))
}

/// The client that the options describe.
pub fn client(matches: &ArgMatches) -> Client {
    let patience = Patience {
        idle: Duration::from_secs(matches.get_one::<u64>("timeout").copied().unwrap_or(30)),
        tries: matches.get_one::<u32>("tries").copied().unwrap_or(5),
    };
    Client::new(patience, matches.get_one::<PathBuf>("authfile").cloned())
}

fn run(_globals: &Globals, matches: &ArgMatches, out: &mut Out) -> Result<i32> {
    let name = text(matches, "image").unwrap_or_default();
    if name == locule_images::host::NAME {
        return Err(Error::invalid("the image host is built in: there is nothing to fetch"));
    }
    let reference: Reference = name.parse().map_err(told)?;
    let policy =
        Policy::of_system(matches.get_one::<PathBuf>("policy").map(PathBuf::as_path)).map_err(told)?;
    let store = files(matches)?;
    let pull = Pull {
        reference: &reference,
        platform: &wanted(matches)?,
        options: &Options::here(),
        registries: &Registries::of_system().map_err(told)?,
        policy: &policy,
        client: &client(matches),
        progress: &Bar::new(matches.get_flag("quiet")),
    };
    let record = pull.run(&store).map_err(told)?;
    out.write(&format!("{}\n", record.reference))?;
    Ok(0)
}

/// Fetches the image `name` into `store`, as the system is configured: for verbs that need an image which is not there.
pub fn fetch(store: &Store, name: &str) -> Result<()> {
    let reference: Reference = name.parse().map_err(told)?;
    let pull = Pull {
        reference: &reference,
        platform: &Platform::here(),
        options: &Options::here(),
        registries: &Registries::of_system().map_err(told)?,
        policy: &Policy::of_system(None).map_err(told)?,
        client: &Client::new(Patience { idle: Duration::from_secs(30), tries: 5 }, None),
        progress: &Bar::new(false),
    };
    pull.run(store).map(drop).map_err(told)
}
