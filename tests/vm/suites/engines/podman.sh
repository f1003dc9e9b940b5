#!/bin/bash
# Podman as root: exit codes, exec, pause, stop, with both cgroup managers.
. /locule/tests/vm/lib/common.sh
. /locule/tests/vm/lib/podman.sh

root=$(rootfs)
for manager in systemd cgroupfs; do
    podman_life "$manager" "$root"
done

done_testing
