//! `--isolation vm` where no machine can be, or none of that kind: one sentence, nothing made, no lesser isolation.
//!
//! Machines that run are in the virtual machine's lane (`tests/vm/suites/vm`).

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use serde_json::json;

use crate::lane::{Bundle, complete};

const VM: &[&str] = &["--isolation", "vm"];

#[test]
fn what_is_the_hosts_is_refused_whatever_the_host_has() {
    for kind in ["pid", "ipc", "uts", "mount"] {
        let mut bundle = Bundle::new();
        bundle.without_namespace(kind);
        if kind == "uts" {
            bundle.set("hostname", json!(null));
        }
        bundle
            .run_with(VM)
            .refused_with(&["virtual machine cannot share", &format!("the host's {kind} namespace")]);
        bundle.assert_gone();
    }
    let mut bundle = Bundle::new();
    bundle.without_namespace("network").run_with(VM).refused_with(&["cannot share the host's network"]);
    let disk = json!({"type": "b", "path": "/dev/sda", "major": 8, "minor": 0});
    Bundle::new().push("linux.devices", disk).run_with(VM).refused_with(&["/dev/sda", "virtual machine"]);
}

#[test]
fn the_annotation_and_the_name_ask_for_it_as_the_option_does() {
    let mut bundle = Bundle::new();
    bundle.without_namespace("pid");
    let refusal = ["virtual machine cannot share the host's pid namespace"];
    bundle.set("annotations", json!({"org.locule.isolation": "vm"})).run().refused_with(&refusal);
    bundle.run_with(&["--isolation", "namespaces"]).ok();
    bundle.set("annotations", json!({"org.locule.isolation": "hypervisor"}));
    bundle.run().refused_with(&["annotations.org.locule.isolation", "\"hypervisor\""]);
    bundle.set("annotations", json!({}));
    let called = bundle.command(&["run", "--bundle"]);
    let mut command = Command::new(called.get_program());
    command.arg0("/usr/bin/locule-vm").args(called.get_args()).arg(bundle.path("")).arg(bundle.id());
    complete(&mut command).refused_with(&refusal);
}

#[test]
fn no_machine_runs_on_a_software_kvm() {
    if !Path::new("/sys/module/kvm_pvm").exists() || !Path::new("/dev/kvm").exists() {
        return;
    }
    let bundle = Bundle::new();
    bundle.run_with(VM).refused_with(&["isolation vm", "kvm-pvm", "use isolation namespaces"]);
    bundle.assert_gone();
}
