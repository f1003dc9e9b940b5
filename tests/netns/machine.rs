//! What a manager of long-lived containers does with the library, over starts, changes, a crash and a reboot.

use std::fs;
use std::path::PathBuf;

use locule_netns::namespace::Namespaces;
use locule_netns::{Attached, Attachment, Networks, Owner};

use crate::lab::Lab;

/// Gives a new namespace bound to a file to `container`, as a start does; returns what it has got.
fn start(
    networks: &Networks,
    spaces: &Namespaces,
    container: &str,
    wanted: &Attachment,
) -> locule_netns::Result<Attached> {
    let namespace = spaces.make(container)?;
    let (owner, _) = Owner::pinned(&spaces.path(container))?;
    networks.attach(&namespace, owner, container, std::slice::from_ref(wanted))
}

#[test]
fn a_machine_keeps_its_address_over_everything() {
    let lab = Lab::new();
    let (definitions, claims) = (lab.dir.join("networks"), lab.claims());
    let dir = lab.dir.join("namespaces");
    lab.host.run(move || {
        let spaces = Namespaces::new(&dir);
        let networks = Networks::open(&definitions, &claims).unwrap();
        let network = networks.ensure_default().unwrap();
        assert_eq!(networks.ensure_default().unwrap(), network);
        let mut wanted = Attachment { network: network.name.clone(), ..Attachment::default() };
        wanted.ports = vec!["8080:80".parse().unwrap()];

        // The files are there before it is created, are not collected meanwhile, and are the ones it has later.
        let files = networks.prepare("one", std::slice::from_ref(&wanted)).unwrap();
        let [hosts, resolv] =
            [files.hosts.clone().unwrap(), files.resolv.clone()].map(|path| fs::File::open(path).unwrap());
        assert!(networks.gc().unwrap().containers.is_empty());
        let attached = start(&networks, &spaces, "one", &wanted).unwrap();
        assert_eq!((attached.hosts, attached.resolv), (files.hosts, files.resolv));
        let (address, mac) =
            (attached.interfaces[0].addresses[0].address, attached.interfaces[0].mac.unwrap());
        let text = std::io::read_to_string(hosts).unwrap();
        assert!(text.contains(&format!("{address} one")), "{text}");
        drop(resolv);
        networks.reserve("default", "one", &[address]).unwrap();
        wanted.addresses = vec![address];
        wanted.mac = Some(mac);

        // Changed while it runs, with the network's rate.
        networks
            .limit(
                "default",
                locule_netns::rate::Total { up: "50mbit".parse().unwrap(), ..Default::default() },
            )
            .unwrap();
        wanted.rates.up_min = "5mbit".parse().unwrap();
        let wired = networks.change("one", "default", Some(wanted.rates), None).unwrap();
        assert_eq!(wired.rates, wanted.rates);
        assert!(networks.traffic().unwrap().iter().any(|traffic| traffic.host == wired.host));

        // It crashes: nobody detaches, the name is free for the next start.
        spaces.remove("one").unwrap();
        let attached = start(&networks, &spaces, "one", &wanted).unwrap();
        assert_eq!(attached.interfaces[0].mac, Some(mac));
        // It is stopped, and while it is, nobody gets its address, asked for or not.
        assert!(networks.detach("one", None).unwrap() && !networks.detach("one", None).unwrap());
        spaces.remove("one").unwrap();
        let told = start(&networks, &spaces, "two", &wanted).unwrap_err().to_string();
        assert!(told.contains(&address.to_string()) && told.contains("\"one\""), "{told}");
        spaces.remove("two").unwrap();
        let told = networks.reserve("default", "two", &[address]).unwrap_err().to_string();
        assert!(told.contains("\"one\""), "{told}");

        // The host reboots: nothing is left but definitions.
        fs::remove_dir_all(&claims).unwrap();
        assert!(
            std::process::Command::new("ip").args(["link", "del", "lb-default"]).status().unwrap().success()
        );
        let attached = start(&networks, &spaces, "one", &wanted).unwrap();
        assert_eq!(attached.interfaces[0].addresses[0].address, address);
        networks.check("one").unwrap();

        // It is removed for good: the address is anybody's.
        networks.detach("one", None).unwrap();
        spaces.remove("one").unwrap();
        networks.unreserve("one").unwrap();
        wanted.rates = Default::default();
        start(&networks, &spaces, "two", &wanted).unwrap();
        networks.detach("two", None).unwrap();
        spaces.remove("two").unwrap();
    });
    lab.network("rm default");
    assert_eq!(lab.remains(), "");
}

#[test]
fn a_full_pool_leaves_out_what_is_kept() {
    let lab = Lab::new();
    lab.network("create --subnet 10.9.0.0/29 tiny");
    let (definitions, claims) = (lab.dir.join("networks"), lab.claims());
    let dir: PathBuf = lab.dir.join("namespaces");
    lab.host.run(move || {
        let spaces = Namespaces::new(&dir);
        let networks = Networks::open(&definitions, &claims).unwrap();
        networks.reserve("tiny", "kept", &["10.9.0.3".parse().unwrap()]).unwrap();
        assert!(networks.reserve("tiny", "kept", &["10.8.0.3".parse().unwrap()]).is_err());
        assert!(networks.reserve("tiny", "kept", &["10.9.0.1".parse().unwrap()]).is_err());
        let wanted = Attachment { network: "tiny".into(), ..Attachment::default() };
        let mut got: Vec<_> = (0..4)
            .map(|number| {
                start(&networks, &spaces, &format!("c{number}"), &wanted).unwrap().interfaces[0].addresses[0]
                    .to_string()
            })
            .collect();
        got.sort();
        assert_eq!(got, ["10.9.0.2/29", "10.9.0.4/29", "10.9.0.5/29", "10.9.0.6/29"]);
        assert!(start(&networks, &spaces, "c4", &wanted).unwrap_err().to_string().contains("every address"));
        let own = Attachment { addresses: vec!["10.9.0.3".parse().unwrap()], ..wanted };
        start(&networks, &spaces, "kept", &own).unwrap();
        for name in spaces.names().unwrap() {
            networks.detach(&name, None).unwrap();
            spaces.remove(&name).unwrap();
        }
    });
    lab.network("rm tiny");
    assert_eq!(lab.remains(), "");
}
