#!/bin/bash
# The machine itself: what every other suite takes for granted.
. /locule/tests/vm/lib/common.sh

is "systemd has booted without a failed unit" "$(systemctl list-units --failed --no-legend)" ""
is "cgroup v2 alone" "$(stat -f -c %T /sys/fs/cgroup)" cgroup2fs
is "with every controller" "$(cat /sys/fs/cgroup/cgroup.controllers)" "cpuset cpu io memory hugetlb pids rdma misc"
is "AppArmor" "$(cat /sys/module/apparmor/parameters/enabled)" Y
for program in containerd dockerd podman crun runc criu conmon newuidmap jq strace; do
    check "$program" command -v $program
done
check "the user's systemd runs" runuser -u user -- env XDG_RUNTIME_DIR=/run/user/1000 systemctl --user is-system-running
refused "no network outside" "" timeout 5 bash -c 'echo >/dev/tcp/10.0.2.2/9'
check "criu check" criu check

done_testing
