//! A kernel's folder of modules, as both sides read it: which files a module takes, and in which order.
//!
//! Pure: texts in, names out.

/// Whether the path of a module's file is that of `name`, in which `-` and `_` are the same.
pub fn names(file: &str, name: &str) -> bool {
    let base = file.rsplit('/').next().unwrap_or(file);
    let base = base.split_once(".ko").map_or(base, |(base, _)| base);
    base.len() == name.len()
        && base.bytes().zip(name.bytes()).all(|(a, b)| a == b || (b"-_".contains(&a) && b"-_".contains(&b)))
}

/// Files to insert for `name`, in order, of a `modules.dep` (modules.dep(5)): the deepest one stands last there.
pub fn order<'a>(table: &'a str, name: &str) -> Option<Vec<&'a str>> {
    table.lines().find_map(|line| {
        let (file, needs) = line.split_once(':')?;
        names(file, name).then(|| needs.split_ascii_whitespace().rev().chain([file]).collect())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "kernel/drivers/net/net_failover.ko.xz: kernel/net/core/failover.ko.xz\n\
kernel/drivers/net/virtio_net.ko.xz: kernel/drivers/net/net_failover.ko.xz kernel/net/core/failover.ko.xz\n\
kernel/drivers/char/hw_random/virtio-rng.ko.xz:\nkernel/fs/overlayfs/overlay.ko:\n";

    #[test]
    fn what_a_module_needs_comes_before_it() {
        assert_eq!(
            order(TABLE, "virtio_net").unwrap(),
            [
                "kernel/net/core/failover.ko.xz",
                "kernel/drivers/net/net_failover.ko.xz",
                "kernel/drivers/net/virtio_net.ko.xz"
            ]
        );
        assert_eq!(order(TABLE, "virtio_rng").unwrap(), ["kernel/drivers/char/hw_random/virtio-rng.ko.xz"]);
        assert_eq!(order(TABLE, "overlay").unwrap(), ["kernel/fs/overlayfs/overlay.ko"]);
        assert_eq!(order(TABLE, "virtio"), None);
    }
}
