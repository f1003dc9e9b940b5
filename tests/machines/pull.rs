//! Images that are not there: `launch` fetches them from Debian's docker-registry, on the loopback of the test's host.

use std::fs;
use std::process::{Child, Stdio};

use crate::lab::{Lab, until};

struct Ends(Child);

impl Drop for Ends {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A registry that has `127.0.0.1:5000/team/box:1`, which only the registry has.
fn registry(lab: &Lab) -> Ends {
    assert!(lab.command("ip", &["link", "set", "lo", "up"]).status().unwrap().success());
    let own = lab.own();
    let config = own.join("registry.yml");
    let storage = format!("storage: {{filesystem: {{rootdirectory: {}}}}}", own.join("registry").display());
    fs::write(
        &config,
        format!("version: 0.1\nlog: {{level: error}}\n{storage}\nhttp: {{addr: '127.0.0.1:5000'}}\n"),
    )
    .unwrap();
    let mut command = lab.command("docker-registry", &["serve", config.to_str().unwrap()]);
    let server = Ends(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    let tree = lab.tree();
    let store = own.join("other");
    let image = |words: &[&str]| {
        let all = [&["image"], words].concat();
        lab.call(&all).env("LOCULE_IMAGES", &store).output().unwrap()
    };
    assert!(image(&["import", tree.to_str().unwrap(), "box:1"]).status.success());
    until("the registry takes an image", || {
        image(&["push", "-q", "box:1", "127.0.0.1:5000/team/box:1"]).status.success().then_some(())
    });
    server
}

#[test]
fn launch_fetches_what_is_not_there() {
    let lab = Lab::new();
    let name = lab.name("m");
    let image = "127.0.0.1:5000/team/box:1";
    let server = registry(&lab);
    let told = lab.refused(&["launch", "--pull", "never", "--network", "none", image, &name]);
    assert!(told.contains(image), "{told}");
    // The entrypoint of an image that is not there yet is asked for as well.
    let answer = lab.ok(&["launch", "--rm", "--network", "none", image, &name, "--", "echo", "fetched"]);
    assert_eq!(answer, "fetched\n");
    lab.assert_gone(&name);
    assert_eq!(
        lab.ok(&["launch", "--network", "none", image, &name, "--", "sleep", "1000"]),
        format!("{name}\n")
    );
    assert_eq!(lab.status(&name).as_deref(), Some("running"));
    lab.ok(&["rm", "--force", &name]);
    drop(server);
    // What is there needs no registry; what is not is told of in one line, with the reason and a way out.
    lab.ok(&["launch", "--no-start", "--network", "none", image, &name]);
    let other = lab.name("other");
    for (wanted, words) in [("127.0.0.1:5000/team/none:1", &[][..]), (image, &["--pull", "always"])] {
        let told = lab.refused(&[&["launch"], words, &["--network", "none", wanted, &other]].concat());
        assert!(
            told.contains(&format!("fetching the image {wanted}")) && told.contains("127.0.0.1:5000"),
            "{told}"
        );
        assert!(told.contains("locule image ls"), "{told}");
        assert_eq!(told.lines().count(), 1, "{told}");
    }
    lab.assert_gone(&other);
}
