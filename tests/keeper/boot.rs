//! The order of machines that start with the host.

use crate::lab::Lab;

const WAITS: &str = "trap 'exit 0' TERM; while :; do sleep 0.1; done";

#[test]
fn machines_start_in_order_and_stop_in_reverse() {
    let lab = Lab::new();
    lab.make("web", WAITS, "[boot]\nstart = \"on\"\nrequires = [\"db\"]\n");
    lab.make("db", WAITS, "[boot]\nstart = \"on\"\nafter = [\"store\"]\n");
    lab.make("store", WAITS, "[boot]\nstart = \"on\"\n");
    lab.make("off", WAITS, "");
    let said = lab.good(&["boot"]);
    assert_eq!(said, "store ready\ndb ready\nweb ready\n");
    assert!(lab.keeper("off").is_none());
    assert_eq!(lab.good(&["boot"]).lines().count(), 3, "what runs is left alone");
    let said = lab.good(&["shutdown"]);
    assert_eq!(said, "web stopped\ndb stopped\nstore stopped\n");
}

#[test]
fn the_last_state_is_remembered() {
    let lab = Lab::new();
    for name in ["ran", "stopped"] {
        lab.launch(name, WAITS, "[boot]\nstart = \"last\"\n");
    }
    lab.good(&["stop", "stopped"]);
    lab.good(&["shutdown"]);
    assert_eq!(lab.good(&["boot"]), "ran ready\n");
    assert!(lab.keeper("stopped").is_none());
}

#[test]
fn what_requires_a_failed_one_is_told_and_left() {
    let lab = Lab::new();
    lab.make("db", "exit 1", "[boot]\nstart = \"on\"\nready = \"notify\"\n");
    lab.make("web", WAITS, "[boot]\nstart = \"on\"\nrequires = [\"db\"]\n");
    let done = lab.run(&["boot"]);
    assert!(!done.status.success());
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(said.contains("db") && said.contains("exit code 1"), "{said}");
    assert!(lab.keeper("web").is_none());
}

#[test]
fn the_generator_writes_units() {
    let lab = Lab::new();
    lab.make("web", WAITS, "[boot]\nstart = \"on\"\nrequires = [\"db\"]\n");
    let out = tempfile::tempdir().unwrap();
    lab.good(&["generator", out.path().to_str().unwrap(), "/ignored", "/ignored"]);
    assert!(out.path().join("locule.target.wants/locule@web.service").is_symlink());
    let order = std::fs::read_to_string(out.path().join("locule@web.service.d/50-locule.conf")).unwrap();
    assert!(order.contains("Requires=locule@db.service\n"), "{order}");
    assert!(lab.good(&["generator", "--dryrun"]).contains("locule@web.service"));
}
