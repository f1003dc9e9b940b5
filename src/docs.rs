//! The manual pages and completion scripts, made from the declarations of the verbs.
//!
//! Owns `man/` and `completions/`: a test compares the committed files with what the declarations
//! say, and `LOCULE_WRITE_DOCS=1 cargo test --bin locule docs` (`make docs`) writes them anew.
//! Never part of the binary.

use std::fmt::Write;
use std::path::Path;

use clap::Command;
use clap_complete::shells::{Bash, Fish, Zsh};
use clap_mangen::Man;
use clap_mangen::roff::{Inline, Roff, bold, italic, roman};

use locule_machines::definition::keys::KEYS;
use locule_machines::definition::profiles::SHIPPED;
use locule_machines::openvz::OPTIONS;

use crate::cli::{self, VERBS, Verb};

const EXIT_STATUS: &[(&str, &str)] = &[
    ("0", "The call succeeded; for a foreground run or exec, the program did."),
    ("1", "The call failed, or the command line was not understood. Nothing of a failed create is left."),
    ("126", "run: the program was found and cannot be executed."),
    ("127", "run: the program was not found."),
    ("128+n", "run and exec in the foreground: signal n ended the program."),
    ("255", "exec: the program was not started, whatever the reason."),
    ("other", "run and exec in the foreground: the program's own exit code."),
];

const ENVIRONMENT: &[(&str, &str)] = &[
    ("XDG_RUNTIME_DIR", "Where a user's state root is, and that of root inside a user namespace."),
    ("NOTIFY_SOCKET", "create, run: sd_notify(3) messages of the container are passed on to this socket."),
    ("LISTEN_FDS, LISTEN_PID, LISTEN_FDNAMES", "create, run: these descriptors are passed to the container."),
];

const FILES: &[(&str, &str)] = &[
    ("/run/locule", "State root of the host's administrator."),
    ("$XDG_RUNTIME_DIR/locule", "State root of a user."),
    ("BUNDLE/config.json", "The container's definition, as the OCI runtime specification has it."),
];

const DIAGNOSTICS: &[&str] = &[
    "A failed call prints one line on standard error: what was being done, to what, why it failed and, where \
that is known, what to do. With --log the same is appended to the file as one record, as text or as JSON with \
the members level, msg and time (RFC 3339, UTC).",
    "Warnings go to the log file if there is one, else to standard error. A JSON log gets them only with --debug, \
because engines read it as the error of one call.",
];

const EXAMPLES: &[(&str, &str)] = &[
    (
        "Run a shell in a bundle made from the host's busybox",
        "mkdir -p box/rootfs/bin && cd box\ncp /bin/busybox rootfs/bin/sh\nlocule spec\nlocule run box",
    ),
    (
        "What an engine does",
        "locule create --bundle /srv/web --pid-file web1.pid web1\nlocule start web1\nlocule kill web1 TERM\nlocule delete web1",
    ),
];

/// Paragraphs of `text` as roff.
fn paragraphs(roff: &mut Roff, text: &str) {
    for (number, paragraph) in text.split("\n\n").enumerate() {
        if number > 0 {
            roff.control("PP", []);
        }
        roff.text([roman(paragraph.replace('\n', " "))]);
    }
}

fn section(roff: &mut Roff, title: &str) {
    roff.control("SH", [title]);
}

fn terms(roff: &mut Roff, list: &[(&str, &str)]) {
    for (term, text) in list {
        roff.control("TP", []);
        roff.text([bold(*term)]);
        roff.text([roman(*text)]);
    }
}

fn examples(roff: &mut Roff, list: &[(&str, &str)]) {
    if list.is_empty() {
        return;
    }
    section(roff, "EXAMPLES");
    for (what, how) in list {
        roff.control("PP", []);
        roff.text([roman(format!("{what}:"))]);
        roff.control("PP", []);
        roff.control("RS", ["4"]);
        roff.control("nf", []);
        for line in how.lines() {
            roff.text([roman(line)]);
        }
        roff.control("fi", []);
        roff.control("RE", []);
    }
}

/// The head of a page: title, name and synopsis.
fn head(name: &str, about: &str, synopsis: Vec<Inline>) -> Roff {
    let mut roff = Roff::new();
    let manual = "Containers with locule";
    roff.control(
        "TH",
        [name.to_uppercase().as_str(), "1", "", concat!("locule ", env!("CARGO_PKG_VERSION")), manual],
    );
    section(&mut roff, "NAME");
    roff.text([roman(format!("{name} - {}", lower_first(about)))]);
    section(&mut roff, "SYNOPSIS");
    roff.text(synopsis);
    section(&mut roff, "DESCRIPTION");
    roff
}

fn lower_first(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map(|first| first.to_lowercase().chain(letters).collect()).unwrap_or_default()
}

/// clap's own rendering of the options, which knows defaults and possible values.
fn options(command: Command, title: &str) -> String {
    let mut text = Vec::new();
    Man::new(command).render_options_section(&mut text).unwrap();
    String::from_utf8(text).unwrap().replacen(".SH OPTIONS", &format!(".SH \"{title}\""), 1)
}

/// `image pull` has the page locule-image-pull(1).
fn page_name(verb: &Verb) -> String {
    verb.name.replace(' ', "-")
}

fn page(verb: &Verb) -> String {
    let synopsis =
        vec![bold("locule"), roman(" [global options] "), bold(verb.name), roman(format!(" {}", verb.usage))];
    let mut roff = head(&format!("locule-{}", page_name(verb)), verb.about, synopsis);
    paragraphs(&mut roff, if verb.details.is_empty() { verb.about } else { verb.details });
    let mut text = roff.to_roff();
    if verb.command().get_arguments().next().is_some() {
        text.push_str(&options(verb.command(), "OPTIONS"));
    }
    let mut rest = Roff::new();
    if verb.becomes_workload || verb.failure != Verb::BASE.failure {
        section(&mut rest, "EXIT STATUS");
        terms(&mut rest, EXIT_STATUS);
    }
    examples(&mut rest, verb.examples);
    section(&mut rest, "SEE ALSO");
    rest.text([bold("locule"), roman("(1)")]);
    text.push_str(&rest.render());
    text
}

fn main_page() -> String {
    let mut roff = head(
        "locule",
        "Run containers from OCI bundles",
        vec![bold("locule"), roman(" [global options] "), italic("COMMAND"), roman(" [options] [arguments]")],
    );
    paragraphs(
        &mut roff,
        "locule makes and runs Linux containers as the OCI runtime specification describes them. Its command line \
is that of runc, so that engines can use it in runc's place. There is no daemon: each call does its work and ends, \
and what is known of a container stands in files under the state root.\n\nLong options may be written with one dash \
or two, and their values after a space or an equals sign.",
    );
    let mut text = roff.to_roff();
    let globals = Command::new("locule").disable_help_flag(true).args(cli::global_arguments());
    text.push_str(&options(globals, "GLOBAL OPTIONS"));
    let mut rest = Roff::new();
    section(&mut rest, "COMMANDS");
    for verb in VERBS {
        rest.control("TP", []);
        rest.text([bold(format!("locule-{}", page_name(verb))), roman("(1)")]);
        rest.text([roman(verb.about)]);
    }
    section(&mut rest, "EXIT STATUS");
    terms(&mut rest, EXIT_STATUS);
    section(&mut rest, "DIAGNOSTICS");
    paragraphs(&mut rest, &DIAGNOSTICS.join("\n\n"));
    section(&mut rest, "ENVIRONMENT");
    terms(&mut rest, ENVIRONMENT);
    section(&mut rest, "FILES");
    terms(&mut rest, FILES);
    examples(&mut rest, EXAMPLES);
    section(&mut rest, "SEE ALSO");
    rest.text([
        bold("runc"),
        roman("(8), "),
        bold("namespaces"),
        roman("(7), "),
        bold("cgroups"),
        roman("(7)"),
    ]);
    text.push_str(&rest.render());
    text
}

/// locule-machine.toml(5), from the table of keys.
fn machine_page() -> String {
    let mut roff = Roff::new();
    let version = concat!("locule ", env!("CARGO_PKG_VERSION"));
    roff.control("TH", ["LOCULE-MACHINE.TOML", "5", "", version, "Containers with locule"]);
    section(&mut roff, "NAME");
    roff.text([roman("locule-machine.toml - the definition of a machine")]);
    section(&mut roff, "SYNOPSIS");
    roff.text([bold("/var/lib/locule/machines/"), italic("NAME"), bold("/machine.toml")]);
    section(&mut roff, "DESCRIPTION");
    paragraphs(&mut roff, MACHINE);
    section(&mut roff, "VALUES");
    terms(&mut roff, VALUES);
    section(&mut roff, "KEYS");
    for key in KEYS {
        roff.control("TP", []);
        roff.text([bold(key.path), roman(format!(" ({})", key.form.word()))]);
        let mut text = vec![key.meaning.to_owned()];
        if key.unlimited {
            text.push("unlimited takes a profile's limit away.".into());
        }
        text.push(format!("A change holds {}.", key.holds.word()));
        if !key.aliases.is_empty() {
            text.push(format!("locule set knows it as {} as well.", key.aliases.join(", ")));
        }
        if !key.kernel.is_empty() {
            text.push(format!("The kernel keeps it in {}.", key.kernel));
        }
        if !key.vzctl.is_empty() {
            text.push(format!("vzctl: {}.", key.vzctl));
        }
        roff.text([roman(text.join(" "))]);
    }
    section(&mut roff, "PROFILES");
    paragraphs(&mut roff, PROFILES);
    for (name, text) in SHIPPED {
        let about = text.lines().next().unwrap_or_default().trim_start_matches("# ");
        terms(&mut roff, &[(name, about)]);
    }
    examples(&mut roff, MACHINE_EXAMPLES);
    section(&mut roff, "SEE ALSO");
    let pages = ["locule-launch", "locule-set", "locule-show", "locule-openvz-import"];
    let last = pages.len() - 1;
    roff.text(
        pages
            .iter()
            .enumerate()
            .flat_map(|(at, page)| [bold(*page), roman(if at == last { "(1)" } else { "(1), " })])
            .collect::<Vec<_>>(),
    );
    roff.render()
}

const MACHINE: &str = "The definition says what its owner asked for, and nothing that locule chose. It is TOML. Keys are \
written with dots or in tables, as cpu.limit = 1.5 or [cpu] limit = 1.5. What is absent has the meaning that its key \
says. An unknown key, a value of another form and values that do not go together are refused with file, line and \
column.\n\nlocule-set(1) changes the file and the running machine in one act, and keeps comments and order. After a change \
by hand, limits of a running machine are as they were until locule set names them or the machine is started again. \
locule-show(1) shows what is asked, and what is in force.";

const VALUES: &[(&str, &str)] = &[
    ("size", "Bytes as a number, or text with K, M, G or T, powers of 1024: \"512M\", \"1.5G\"."),
    ("time", "Seconds as a number, or text with ms, s, m or h: \"500ms\", \"90s\"."),
    ("processors", "A number of at least 0.01 and at most five decimals, as 1.5."),
    ("rate", "Text with bit, kbit, mbit or gbit, a second: \"100mbit\"."),
    ("port", "Text: [ADDRESS:]HOST:INSIDE[/tcp|/udp], ranges as 9000-9009."),
];

const PROFILES: &str = "A profile is a file of the same form, NAME.toml in /etc/locule/profiles or \
/usr/share/locule/profiles; the first found counts, and those below are in the binary. include names profiles, which may \
include others; a circle is refused. They are merged in their order, the later winning over the earlier and the \
machine's own file over all: tables are merged key by key, everything else, also a list, is replaced. A profile is \
merged once, before the first that includes it. locule set memory=unlimited takes away a limit that a profile makes, and \
locule set KEY+=VALUE writes the list of the profile with the addition. A change of a profile holds for machines at their \
next start.";

const MACHINE_EXAMPLES: &[(&str, &str)] = &[(
    "A web server",
    "include = [\"small\", \"web\"]\nimage = \"debian:13\"\n\n[memory]\nlimit = \"1G\"\n\n[network.eth0]\n\
ports = [\"8080:80\"]\nup = \"100mbit\"\n\n[[mount]]\nsource = \"/srv/www\"\ntarget = \"/srv\"\noptions = [\"ro\"]\n\n\
[boot]\nafter = [\"db1\"]",
)];

/// The map of `vzctl set` in docs/openvz.md.
fn vzctl_map() -> String {
    let mut text = String::from("| vzctl, prlctl | here | | |\n|---|---|---|---|\n");
    for row in OPTIONS {
        let names: Vec<_> = row.option.split(", ").map(|name| format!("`--{name}`")).collect();
        let here =
            if row.here.is_empty() { String::new() } else { format!("`{}`", row.here.replace('|', "\\|")) };
        writeln!(text, "| {} | {here} | {} | {} |", names.join(", "), row.outcome.word(), row.note).unwrap();
    }
    text
}

/// docs/openvz.md with its map made anew.
fn openvz_guide() -> String {
    const MARKS: [&str; 2] = ["<!-- map: made by `make docs` -->\n", "<!-- end of the map -->"];
    let text = include_str!("../docs/openvz.md");
    let (before, rest) = text.split_once(MARKS[0]).unwrap();
    let (_, after) = rest.split_once(MARKS[1]).unwrap();
    format!("{before}{}{}{}{after}", MARKS[0], vzctl_map(), MARKS[1])
}

/// The whole tree of commands, which nothing but completions needs.
fn tree() -> Command {
    let root = Command::new("locule")
        .disable_help_subcommand(true)
        .disable_help_flag(true)
        .args(cli::global_arguments())
        .arg(cli::switch("help", "Print help").short('h'))
        .arg(cli::switch("version", "Print the version").short('v'));
    let leaf = |verb: &Verb, name: &'static str| {
        let command = match verb.name {
            // The shell offers the keys.
            "set" => verb.command().mut_arg("change", |arg| {
                arg.value_parser(clap::builder::PossibleValuesParser::new(settable()))
            }),
            _ => verb.command(),
        };
        command.name(name).about(verb.about).arg(cli::switch("help", "Print help").short('h'))
    };
    let root = VERBS
        .iter()
        .filter(|verb| !verb.name.contains(' '))
        .fold(root, |root, verb| root.subcommand(leaf(verb, verb.name)));
    nouns(root, "", &leaf)
}

/// The nouns below `above`, each with its verbs and the nouns below it.
fn nouns(parent: Command, above: &str, leaf: &dyn Fn(&Verb, &'static str) -> Command) -> Command {
    let below =
        |name: &'static str| name.strip_prefix(above).filter(|rest| !rest.is_empty() && !rest.contains(' '));
    cli::NOUNS.iter().filter_map(|(noun, about)| Some((noun, about, below(noun)?))).fold(
        parent,
        |parent, (noun, about, name)| {
            let verbs = VERBS
                .iter()
                .filter_map(|verb| Some((verb, verb.name.strip_prefix(noun)?.strip_prefix(' ')?)));
            let made = Command::new(name).about(*about).disable_help_subcommand(true).disable_help_flag(true);
            let made = verbs
                .filter(|(_, rest)| !rest.contains(' '))
                .fold(made, |made, (verb, rest)| made.subcommand(leaf(verb, rest)));
            parent.subcommand(nouns(made, &format!("{noun} "), leaf))
        },
    )
}

fn completion(generator: impl clap_complete::Generator) -> String {
    let mut text = Vec::new();
    clap_complete::generate(generator, &mut tree(), "locule", &mut text);
    String::from_utf8(text).unwrap()
}

/// Keys as `set` takes them, but for those with names of the owner's.
fn settable() -> Vec<&'static str> {
    let paths = KEYS.iter().flat_map(|key| key.aliases.iter().chain([&key.path]));
    paths.filter(|path| !path.contains(['*', '['])).map(|path| &*format!("{path}=").leak()).collect()
}

/// Every file that is made from the declarations.
fn files() -> Vec<(String, String)> {
    let mut files = vec![
        ("man/locule.1".to_owned(), main_page()),
        ("man/locule-machine.toml.5".to_owned(), machine_page()),
        ("docs/openvz.md".to_owned(), openvz_guide()),
        ("completions/locule.bash".to_owned(), completion(Bash)),
        ("completions/_locule".to_owned(), completion(Zsh)),
        ("completions/locule.fish".to_owned(), completion(Fish)),
    ];
    files.extend(VERBS.iter().map(|verb| (format!("man/locule-{}.1", page_name(verb)), page(verb))));
    files
}

#[test]
fn committed_pages_and_completions_are_current() {
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    let write = std::env::var_os("LOCULE_WRITE_DOCS").is_some();
    let mut stale = String::new();
    for (name, text) in files() {
        let path = top.join(&name);
        if write {
            std::fs::write(&path, text).unwrap();
        } else if std::fs::read_to_string(&path).unwrap_or_default() != text {
            write!(stale, " {name}").unwrap();
        }
    }
    assert!(stale.is_empty(), "run `make docs` and commit:{stale}");
}

#[test]
fn no_page_is_left_of_a_verb_that_is_gone() {
    let made: Vec<_> = files().into_iter().map(|(name, _)| name).collect();
    for folder in ["man", "completions"] {
        for entry in std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)).unwrap() {
            let name = format!("{folder}/{}", entry.unwrap().file_name().into_string().unwrap());
            assert!(made.contains(&name), "{name} is made from no declaration");
        }
    }
}

#[test]
fn declarations_are_sound() {
    for verb in VERBS {
        verb.command().debug_assert();
        assert!(!verb.about.is_empty() && !verb.about.ends_with('.'), "{}", verb.name);
        for arg in verb.command().get_arguments() {
            assert!(arg.get_help().is_some(), "{}: {} has no help", verb.name, arg.get_id());
        }
    }
}

#[test]
fn every_documented_global_is_read() {
    use std::ffi::OsString;
    for arg in cli::global_arguments() {
        let long = arg.get_long().unwrap();
        let value = arg.get_possible_values().first().map_or("x", |value| value.get_name()).to_owned();
        let word =
            if arg.get_action().takes_values() { format!("--{long}={value}") } else { format!("--{long}") };
        let mut globals = crate::args::Globals::default();
        let words = [OsString::from(word.clone()), "list".into()];
        assert!(globals.read(&mut words.into_iter()).is_ok(), "{word}");
    }
}
