#!/bin/bash
# --systemd-cgroup: device rules survive a reload of systemd.
. /locule/tests/vm/lib/common.sh

MANAGER=(--systemd-cgroup)
modprobe loop
truncate -s 1M "$WORK/disk"
loop=$(losetup --find --show "$WORK/disk")
CLEANUPS+=("losetup -d $loop")
minor=$((0x$(stat -c %T "$loop")))
make_bundle "$WORK/dev"
config "$WORK/dev" '.linux.cgroupsPath = "test.slice:pre:dev"
    | .process.capabilities |= map_values(. + ["CAP_MKNOD"])
    | .mounts += [{destination: "/tmp", type: "tmpfs", source: "tmpfs", options: ["dev", "mode=1777"]}]
    | .linux.resources.devices = [{allow: false, access: "rwm"},
        {allow: true, type: "b", major: 7, minor: $minor, access: "rm"}]' --argjson minor "$minor"
try() {
    rt exec dev sh -c "[ -e /tmp/loop ] || mknod /tmp/loop b 7 $minor
        dd if=/tmp/loop of=/dev/null count=1; [ -e /tmp/next ] || mknod /tmp/next b 7 $((minor + 1)); cat /tmp/next" 2>&1
}
check "a container starts" start dev "$WORK/dev"
before=$(try)
like "its device can be read" "$before" "1\+0 records in"
like "another cannot" "$before" "next.*not permitted"
systemctl daemon-reload
after=$(try)
like "after a reload its device can be read" "$after" "1\+0 records in"
like "and another cannot" "$after" "next.*not permitted"

done_testing
