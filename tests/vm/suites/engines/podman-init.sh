#!/bin/bash
# systemd as the first process under Podman: it reaches its default target and halts when Podman stops it.
. /locule/tests/vm/lib/common.sh
. /locule/tests/vm/lib/podman.sh

# A machine with this one's programs, and no settings but these.
machine=$WORK/machine
mkdir -p "$machine"/{dev,etc/systemd/system,proc,root,run,sys,tmp,usr,var}
ln -s usr/bin usr/sbin usr/lib usr/lib64 "$machine"
# With an id it is no first boot, which would enable everything that the programs know.
echo 0123456789abcdef0123456789abcdef >"$machine/etc/machine-id"
echo ID=test >"$machine/etc/os-release"
grep -E '^(root|messagebus|systemd-network|nobody):' /etc/passwd >"$machine/etc/passwd"
getent group root messagebus systemd-journal utmp nogroup tty >"$machine/etc/group"
ln -s /usr/lib/systemd/system/multi-user.target "$machine/etc/systemd/system/default.target"
chmod 0755 "$WORK" "$machine"

check "run --systemd=always" pod run --detach --name machine --network none --systemd=always \
    --volume /usr:/usr:ro --rootfs "$machine" /usr/lib/systemd/systemd
# The call returns when everything is started; before systemd listens it fails.
running() { pod exec machine systemctl is-system-running --wait; }
check "it starts everything, and nothing fails" eventually running
is "its default target is reached" "$(pod exec machine systemctl is-active default.target)" active
like "it knows where it is" "$(pod exec machine systemd-detect-virt --container)" "podman"
check "it has a cgroup of its own to manage" pod exec machine systemd-run --quiet --wait --pipe -p MemoryMax=50M \
    sh -c 'grep -q 52428800 /sys/fs/cgroup$(cut -c 4- /proc/self/cgroup)/memory.max'
pid=$(pod_state machine Pid)
gives "stop is clean: systemd halts by itself" 0 '^$' pod stop --time 120 machine
is "its exit code" "$(pod_state machine ExitCode)" 0
check "and nothing of it lives" test ! -e "/proc/$pid"

done_testing
