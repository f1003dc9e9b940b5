//! Network namespaces bound to files, through the library.

use std::fs::File;
use std::os::unix::fs::MetadataExt;

use locule_netns::namespace::Namespaces;
use locule_netns::{Attachment, Network, Networks, Owner};

use crate::lab::{Lab, Space, reaches};

fn inode(file: &File) -> u64 {
    file.metadata().unwrap().ino()
}

#[test]
fn made_used_and_removed() {
    let lab = Lab::new();
    let dir = lab.dir.join("namespaces");
    let (definitions, claims) = (lab.dir.join("networks"), lab.claims());
    let told = lab.host.run(move || {
        let home = inode(&File::open("/proc/thread-self/ns/net").unwrap());
        let namespaces = Namespaces::new(&dir);
        let made = namespaces.make("box").unwrap();
        assert_ne!(inode(&made), home);
        assert_eq!(inode(&File::open("/proc/thread-self/ns/net").unwrap()), home, "it did not come back");
        let told = namespaces.make("box").unwrap_err().to_string();
        assert!(told.contains("box exists"), "{told}");
        assert!(namespaces.make("../box").is_err());
        // What a killed call left is taken over.
        std::fs::write(dir.join("half"), "").unwrap();
        namespaces.make("half").unwrap();
        assert_eq!(namespaces.names().unwrap(), ["box", "half"]);
        assert!(namespaces.remove("half").unwrap() && !namespaces.remove("half").unwrap());
        drop(made);

        let networks = Networks::open(&definitions, &claims).unwrap();
        let web = Network::new("web", locule_netns::Kind::Bridge);
        networks.create(web, false).unwrap();
        let (owner, namespace) = Owner::pinned(&namespaces.path("box")).unwrap();
        let wanted = Attachment { network: "web".into(), ..Attachment::default() };
        let attached = networks.attach(&namespace, owner, "box", std::slice::from_ref(&wanted)).unwrap();
        let again = Owner::pinned(&namespaces.path("box")).unwrap().0;
        assert!(
            networks.attach(&namespace, again, "box", &[wanted]).unwrap_err().to_string().contains("already")
        );
        assert_eq!(networks.gc().unwrap(), locule_netns::Collected::default());
        (attached, namespace)
    });
    let (attached, namespace) = told;
    let container = Space::of(namespace);
    let address = attached.interfaces[0].addresses[0].address.to_string();
    reaches(&lab.host, &container, &[&address]);
    let dir = lab.dir.join("namespaces");
    lab.host.run(move || assert!(Namespaces::new(&dir).remove("box").unwrap()));
    drop(container);
    assert!(lab.network("gc").contains("container box"));
    lab.network("rm web");
    assert_eq!(lab.remains(), "");
}
