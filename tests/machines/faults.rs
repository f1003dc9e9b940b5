//! Calls that are killed: what they leave is found and taken away by the next.

use std::fs;

use crate::lab::{LOCULE, Lab, until};

/// Kills `locule launch` at the `nth` of its calls of `syscall`; whether it got so far.
fn killed_at(lab: &Lab, name: &str, syscall: &str, nth: usize) -> bool {
    let run = lab.run();
    let log = lab.own().join("strace");
    let output = lab
        .command(
            "strace",
            &[
                "-qq",
                "-o",
                log.to_str().unwrap(),
                "-e",
                &format!("trace={syscall}"),
                "-e",
                &format!("inject={syscall}:signal=KILL:when={nth}"),
                LOCULE,
                "--root",
                run.to_str().unwrap(),
                "launch",
                "host",
                name,
                "--",
                "sleep",
                "1000",
            ],
        )
        .output()
        .unwrap();
    fs::read_to_string(&log).unwrap().contains("killed by SIGKILL") || !output.status.success()
}

#[test]
fn a_launch_that_is_killed_can_be_cleaned_up() {
    let lab = Lab::new();
    let name = lab.name("m");
    let mut moments = 0;
    for (syscall, steps) in
        [("mkdir", [1, 5, 9]), ("fsync", [1, 2, 4]), ("move_mount", [1, 2, 3]), ("rename", [1, 2, 3])]
    {
        for nth in steps {
            if !killed_at(&lab, &name, syscall, nth) {
                lab.ok(&["rm", "--force", &name]);
                continue;
            }
            moments += 1;
            match moments % 3 {
                // A second launch takes the name.
                0 => match lab.status(&name) {
                    None => drop(lab.ok(&["launch", "host", &name, "--", "sleep", "1000"])),
                    Some(_) => drop(lab.ok(&["start", &name])),
                },
                1 => drop(lab.ok(&["repair"])),
                _ => {}
            }
            if lab.data().join("machines").join(&name).exists() {
                lab.ok(&["rm", "--force", &name]);
            }
            lab.ok(&["repair"]);
            lab.assert_gone(&name);
        }
    }
    assert!(moments >= 6, "only {moments} moments were reached");
}

#[test]
fn a_machine_survives_its_keeper() {
    let lab = Lab::new();
    let name = lab.name("m");
    lab.ok(&["launch", "host", &name, "--", "sleep", "1000"]);
    let keeper = || {
        let text = fs::read(lab.run().join(".machines").join(&name).join("keeper.json")).ok()?;
        let keeper: serde_json::Value = serde_json::from_slice(&text).ok()?;
        keeper["keeper"]["pid"].as_i64().map(|pid| nix::unistd::Pid::from_raw(pid as i32))
    };
    let first = keeper().unwrap();
    nix::sys::signal::kill(first, nix::sys::signal::Signal::SIGKILL).unwrap();
    until("its end", || nix::sys::signal::kill(first, None).is_err().then_some(()));
    assert_eq!(lab.status(&name).as_deref(), Some("running"));
    assert!(lab.ok(&["repair"]).contains("keeper"));
    assert_ne!(keeper().unwrap(), first);
    assert_eq!(lab.ok(&["repair"]), "", "there was nothing left to do");
    lab.ok(&["stop", "--timeout", "200ms", &name]);
    // And one that has none is stopped and removed all the same.
    lab.ok(&["start", &name]);
    nix::sys::signal::kill(keeper().unwrap(), nix::sys::signal::Signal::SIGKILL).unwrap();
    lab.ok(&["stop", "--timeout", "200ms", &name]);
    assert!(lab.status(&name).is_some_and(|status| status != "running"));
    lab.ok(&["rm", &name]);
    lab.assert_gone(&name);
}

#[test]
fn claims_of_nobody_are_freed() {
    let lab = Lab::new();
    let name = lab.name("m");
    lab.ok(&["launch", "--no-start", "host", &name]);
    let claims = lab.data().join("claims/uid");
    fs::write(claims.join("1048576000"), "gone\n").unwrap();
    let half = lab.data().join("machines").join(lab.name("half"));
    fs::create_dir(&half).unwrap();
    let said = lab.ok(&["repair"]);
    assert!(said.contains("1048576000") && said.contains("half"), "{said}");
    assert!(!half.exists());
    assert_eq!(fs::read_dir(claims).unwrap().count(), 1);
}

#[test]
fn an_export_that_is_killed_leaves_no_snapshot_after_repair() {
    let lab = Lab::new();
    let name = lab.name("m");
    lab.ok(&["launch", "--network", "none", "host", &name, "--", "sleep", "1000"]);
    lab.sh(&name, "head -c 4000000 /dev/urandom >/root/noise");
    let snapshots = lab.data().join("machines").join(&name).join("snapshots");
    // Nobody reads what it writes, so it is in the midst of it when it is killed.
    let mut export =
        lab.call(&["export", "--no-image", &name, "-"]).stdout(std::process::Stdio::piped()).spawn().unwrap();
    until("the export's snapshot", || {
        let entries = fs::read_dir(&snapshots).ok()?;
        entries.flatten().find(|entry| entry.file_name().to_string_lossy().starts_with("export-"))
    });
    export.kill().unwrap();
    export.wait().unwrap();
    lab.ok(&["snapshot", "create", &name, "export-5-mine"]);
    fs::create_dir(snapshots.join(".half.part")).unwrap();
    let told = lab.ok(&["repair"]);
    assert!(told.contains("interrupted copy"), "{told}");
    let left =
        fs::read_dir(&snapshots).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert_eq!(left.collect::<Vec<_>>(), ["export-5-mine"], "the owner's own stays");
    assert_eq!(lab.status(&name).as_deref(), Some("running"));
    lab.ok(&["rm", "--force", &name]);
    lab.assert_gone(&name);
}

#[test]
fn who_gets_no_watch_is_told_which_limit_to_raise() {
    let lab = Lab::new();
    // The limit of a user namespace of its own stands for the host's.
    let line = format!(
        "echo 0 > /proc/sys/user/max_inotify_instances && exec {LOCULE} --root {} events",
        lab.run().display()
    );
    let output = lab.command("unshare", &["--user", "--map-root-user", "sh", "-c", &line]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("sysctl fs.inotify.max_user_instances="), "{said}");
}
