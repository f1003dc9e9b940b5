//! `vm kernel build`: a small kernel from a distribution's source.
//!
//! Owns the order of make's calls. What the kernel has is in `src/vm/kernel.config`.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::{Arg, ArgMatches};
use locule_runtime::error::Context;
use locule_runtime::{Error, Kind, Result};

use crate::args::{Globals, absolute};
use crate::cli::{Verb, option, path_parser, switch};
use crate::out::Out;
use crate::vm::{cache, kernel};

/// The options of the small kernel, over `tinyconfig`.
const FRAGMENT: &str = include_str!("../../vm/kernel.config");

/// The declaration.
pub const VERB: Verb = Verb {
    name: "vm kernel build",
    about: "Build a small kernel for virtual machines",
    usage: "[options] <source>",
    details: "The source is an unpacked tree of Linux 6.12 or newer, or Debian's archive of it (package linux-source, \
/usr/src/linux-source-VERSION.tar.xz). The kernel has what a container needs and nothing for hardware; building it takes \
some ten minutes of two processors, and gcc, libc6-dev, make, flex, bison, bc, libelf-dev and, for the archive, xz-utils; \
nothing is signed, so that libssl-dev is not needed. It is put beside the unpacked kernels and chosen, if --use is given.",
    examples: &[(
        "From Debian's package",
        "apt install linux-source\nlocule vm kernel build --use /usr/src/linux-source-6.12.tar.xz",
    )],
    arguments: |command| {
        command.args([
            option("dir", "DIR", "Build there, and keep it (default: a temporary directory)")
                .value_parser(path_parser()),
            switch("config-only", "Make the configuration, check it, and end"),
            switch("use", "Choose the kernel that was built"),
            Arg::new("source")
                .value_name("source")
                .required(true)
                .value_parser(path_parser())
                .help("Tree or archive"),
        ])
    },
    run,
    ..Verb::BASE
};

fn run(_globals: &Globals, matches: &ArgMatches, out: &mut Out) -> Result<i32> {
    let source = absolute(matches.get_one::<PathBuf>("source").cloned().unwrap_or_default())?;
    let kept = matches.get_one::<PathBuf>("dir").map(absolute).transpose()?;
    let dir = match &kept {
        Some(dir) => dir.clone(),
        None => std::env::temp_dir().join(format!("locule-kernel-{}", std::process::id())),
    };
    std::fs::create_dir_all(&dir).doing(|| format!("making {}", dir.display()))?;
    let built = build(&source, &dir, matches, out);
    if kept.is_none() {
        let _ = std::fs::remove_dir_all(&dir);
    }
    built.map(|()| 0)
}

fn build(source: &Path, dir: &Path, matches: &ArgMatches, out: &mut Out) -> Result<()> {
    let tree = if source.is_dir() {
        source.to_owned()
    } else {
        let tree = dir.join("source");
        std::fs::create_dir_all(&tree).doing(|| format!("making {}", tree.display()))?;
        call(
            Command::new("tar").arg("xf").arg(source).arg("--strip-components=1").arg("-C").arg(&tree),
            "unpacking the source",
        )?;
        tree
    };
    let objects = dir.join("objects");
    std::fs::create_dir_all(&objects).doing(|| format!("making {}", objects.display()))?;
    let make = || {
        let mut make = Command::new("make");
        make.arg("-C").arg(&tree).arg(format!("O={}", objects.display())).arg("-s");
        make
    };
    call(make().arg("tinyconfig"), "making the kernel's configuration")?;
    let config = objects.join(".config");
    let doing = || format!("writing {}", config.display());
    let tiny = std::fs::read_to_string(&config).doing(doing)?;
    std::fs::write(&config, merged(&tiny, FRAGMENT)).doing(doing)?;
    call(make().arg("olddefconfig"), "completing the kernel's configuration")?;
    let made = std::fs::read_to_string(&config).doing(|| format!("reading {}", config.display()))?;
    let lost = lost(FRAGMENT, &made);
    if !lost.is_empty() {
        return Err(Error::unsupported(format!(
            "the source {} does not take {}: it is too old or too new for this version",
            source.display(),
            lost.join(", ")
        )));
    }
    if matches.get_flag("config-only") {
        out.write(&format!("{}\n", config.display()))?;
        return Ok(());
    }
    let jobs = std::thread::available_parallelism().map_or(1, usize::from);
    call(make().arg(format!("-j{jobs}")).arg("vmlinux"), "building the kernel")?;
    let release = Command::new("make")
        .arg("-C")
        .arg(&tree)
        .arg(format!("O={}", objects.display()))
        .arg("-s")
        .arg("kernelrelease")
        .output()
        .doing(|| "asking for the kernel's version")?;
    let release = String::from_utf8_lossy(&release.stdout).trim().to_owned();
    let place = cache::directory()?;
    cache::make(&place)?;
    let target = place.join(format!("vmlinux-{release}"));
    let mut image = File::open(objects.join("vmlinux")).doing(|| "opening the built kernel")?;
    cache::put(&target, &mut image)?;
    cache::put(&place.join(format!("config-{release}")), &mut made.as_bytes())?;
    out.write(&format!("{}\n", target.display()))?;
    if matches.get_flag("use") {
        kernel::choose(&target.to_string_lossy())?;
    }
    Ok(())
}

fn call(command: &mut Command, act: &str) -> Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    // Standard output is this program's own.
    let status =
        command.stdout(std::process::Stdio::null()).status().doing(|| format!("{act}: running {program}"))?;
    match status.success() {
        true => Ok(()),
        false => Err(Error::new(Kind::System, format!("{act}: {program} failed ({status})"))
            .hint("what it lacks stands above; locule vm kernel build --help lists what it needs")),
    }
}

/// The option that a line of a configuration sets, or says to be off.
fn option_of(line: &str) -> Option<&str> {
    let line = line.strip_prefix("# ").unwrap_or(line).strip_prefix("CONFIG_")?;
    line.split(['=', ' ']).next()
}

/// A configuration with the lines of `fragment` instead of its own for the same options: two would make the kernel's
/// make complain.
fn merged(config: &str, fragment: &str) -> String {
    let set: std::collections::BTreeSet<&str> = fragment.lines().filter_map(option_of).collect();
    let kept = config.lines().filter(|line| option_of(line).is_none_or(|option| !set.contains(option)));
    kept.chain(fragment.lines()).map(|line| format!("{line}\n")).collect()
}

/// Lines of `fragment` that did not make it into `made`.
fn lost(fragment: &str, made: &str) -> Vec<String> {
    fragment
        .lines()
        .map(|line| line.split_once(" #").map_or(line, |(line, _)| line).trim())
        .filter_map(|line| line.strip_prefix("CONFIG_"))
        .filter(|line| {
            let (option, value) = line.split_once('=').unwrap_or((line, ""));
            let found = made
                .lines()
                .find_map(|made| made.strip_prefix("CONFIG_")?.strip_prefix(option)?.strip_prefix('='));
            if value == "n" { found.is_some() } else { found != Some(value) }
        })
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_source_does_not_take_is_told() {
        let fragment = "# a comment\nCONFIG_A=y\nCONFIG_B=y # why\nCONFIG_C=n\nCONFIG_D=\"x\"\n";
        assert!(lost(fragment, "CONFIG_A=y\nCONFIG_B=y\n# CONFIG_C is not set\nCONFIG_D=\"x\"\n").is_empty());
        assert_eq!(
            lost(fragment, "CONFIG_A=m\nCONFIG_BB=y\nCONFIG_C=y\nCONFIG_D=\"x\"\n"),
            ["A=y", "B=y", "C=n"]
        );
    }

    #[test]
    fn the_fragments_lines_come_instead_of_others() {
        let config = "# a comment\nCONFIG_A=n\n# CONFIG_B is not set\nCONFIG_AB=y\n";
        assert_eq!(
            merged(config, "# CONFIG_A is not set\nCONFIG_B=y\n"),
            "# a comment\nCONFIG_AB=y\n# CONFIG_A is not set\nCONFIG_B=y\n"
        );
    }

    #[test]
    fn the_fragment_has_what_machines_need() {
        for option in
            ["VIRTIO_PCI", "VIRTIO_FS", "FUSE_FS", "VIRTIO_CONSOLE", "PVH", "ACPI", "SERIAL_8250_PNP"]
        {
            assert!(FRAGMENT.lines().any(|line| line == format!("CONFIG_{option}=y")), "{option}");
        }
    }
}
