//! `set`: other values for a machine, in its definition and in the running machine in one act.
//!
//! Owns the words of the answer.

use clap::{Arg, ArgAction, ArgMatches};
use locule_machines::definition::Profiles;
use locule_machines::set::{self, Change, Changed, Scope, When};
use locule_runtime::Result;
use serde_json::json;

use super::{given, home, machine};
use crate::args::Globals;
use crate::cli::{Verb, switch, text};
use crate::commands::image::format;
use crate::out::Out;

/// The declaration.
pub const VERB: Verb = Verb {
    name: "set",
    about: "Change a machine, also while it runs",
    usage: "[options] <machine> <key>=<value>...",
    details: "Changes the machine's definition and, where it runs, the machine itself, in one act: the new definition is \
checked, the kernel is told and asked whether it took every value, and the definition is written. If anything fails, \
nothing is changed. What needs a new start says so.\n\n\
KEY=VALUE sets a key, KEY= takes it away (a profile's value counts again then), KEY+=VALUE and KEY-=VALUE add to a list \
and take from it, and VALUE unlimited takes away the limit of a profile as well. All keys of locule-machine.toml(5) can \
be set with their dotted names; memory, swap, cpus, disk, pids, boot, dns and restart stand for memory.limit, \
memory.swap, cpu.limit, disk.size, pids.limit, boot.start, dns.servers and restart.policy. Values of a list are \
separated by commas, the words of a command by spaces, or written as in the file: [\"a\", \"b c\"]. mount+= takes \
SOURCE:TARGET[:OPTION,...], device+= takes PATH[:TARGET][:ACCESS]; mount-= takes the target, device-= the path.\n\n\
Memory is made less without harm: what can be is reclaimed first, and if that does not suffice the call fails and the \
machine keeps what it had.",
    examples: &[
        ("More memory and processor time", "locule set web1 memory=2G cpus=1.5"),
        ("Until it ends, and not in the definition", "locule set --runtime web1 memory.high=1G"),
        ("Another published port, from the next start on", "locule set web1 network.eth0.ports+=8443:443"),
        ("A directory of the host", "locule set web1 mount+=/srv/www:/srv:ro"),
        ("Start it with the host, after another one", "locule set web1 boot=on boot.after+=db1"),
    ],
    arguments: |command| {
        command.args([
            machine(),
            Arg::new("change")
                .value_name("key=value")
                .required(true)
                .action(ArgAction::Append)
                .num_args(1..)
                .help("What to change"),
            switch("runtime", "Change the running machine alone, until it ends"),
            format(),
        ])
    },
    run,
    ..Verb::BASE
};

fn run(globals: &Globals, matches: &ArgMatches, out: &mut Out) -> Result<i32> {
    let words = matches.get_many::<String>("change").into_iter().flatten();
    let changes: Vec<Change> = words.map(|word| Change::parse(word)).collect::<Result<_>>()?;
    let home = home(globals)?;
    let machine = home.find(given(matches))?;
    let scope = if matches.get_flag("runtime") { Scope::Runtime } else { Scope::Both };
    let changed = set::set(&home, &machine, &changes, scope, &Profiles::default())?;
    match text(matches, "format") {
        Some("json") => out.json(&changed.iter().map(object).collect::<Vec<_>>())?,
        _ => out.write(&changed.iter().map(line).collect::<String>())?,
    }
    Ok(0)
}

fn line(changed: &Changed) -> String {
    let value = |value: &Option<_>| value.as_ref().map_or("nothing".to_owned(), ToString::to_string);
    let later = match changed.when {
        When::Now => "",
        When::NextStart => " (takes effect at the next start)",
    };
    format!("{}: {} -> {}{later}\n", changed.key, value(&changed.from), value(&changed.to))
}

fn object(changed: &Changed) -> serde_json::Value {
    json!({
        "key": changed.key,
        "from": changed.from.as_ref().map(locule_machines::definition::tree::Value::json),
        "to": changed.to.as_ref().map(locule_machines::definition::tree::Value::json),
        "pending": changed.when == When::NextStart,
    })
}
