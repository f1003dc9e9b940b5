#!/bin/bash
# --systemd-cgroup: a transient scope with the container's limits, gone when the container is.
. /locule/tests/vm/lib/common.sh

MANAGER=(--systemd-cgroup)
property() { systemctl show --value -p "$2" "$1"; }
unit_gone() { [ "$(property "$1" LoadState)" = not-found ]; }

make_bundle "$WORK/scope"
config "$WORK/scope" '.linux.cgroupsPath = "test-a.slice:pre:scope"
    | .linux.resources.memory = {limit: 67108864, reservation: 33554432}
    | .linux.resources.cpu = {quota: 20000, period: 100000, shares: 262144, cpus: "0"}
    | .linux.resources.pids = {limit: 40}
    | .annotations = {"org.systemd.property.TimeoutStopUSec": "uint64 17000000",
        "org.systemd.property.CollectMode": "\u0027inactive-or-failed\u0027"}'
unit=pre-scope.scope
check "a container starts" start scope "$WORK/scope"
is "its scope is active" "$(property $unit ActiveState)" active
is "in its slice" "$(property $unit Slice)" test-a.slice
is "in the nested slice's cgroup" "$(cgroup_of scope)" "/sys/fs/cgroup/test.slice/test-a.slice/$unit"
is "MemoryMax" "$(property $unit MemoryMax)" 67108864
is "MemoryLow" "$(property $unit MemoryLow)" 33554432
is "CPUQuotaPerSecUSec" "$(property $unit CPUQuotaPerSecUSec)" 200ms
is "CPUWeight" "$(property $unit CPUWeight)" 10000
is "AllowedCPUs" "$(property $unit AllowedCPUs)" 0
is "TasksMax" "$(property $unit TasksMax)" 40
is "Delegate" "$(property $unit Delegate)" yes
like "and controllers that systemd does not know" "$(in_cgroup scope cgroup.controllers)" "hugetlb.*pids.*misc"
is "org.systemd.property.TimeoutStopUSec" "$(property $unit TimeoutStopUSec)" 17s
is "org.systemd.property.CollectMode" "$(property $unit CollectMode)" inactive-or-failed
is "the kernel has the limits too" \
    "$(in_cgroup scope memory.max) $(in_cgroup scope cpu.max) $(in_cgroup scope pids.max)" "67108864 20000 100000 40"
check "exec works" rt exec scope true
above "exec runs in the scope's cgroup" "$(rt exec scope cat /proc/self/cgroup | grep -c '^0::/')" 0

check "update" rt update --memory 50331648 --pids-limit 30 scope
is "systemd knows the new limits" "$(property $unit MemoryMax) $(property $unit TasksMax)" "50331648 30"
is "the kernel too" "$(in_cgroup scope memory.max) $(in_cgroup scope pids.max)" "50331648 30"
systemctl daemon-reload
is "a reload of systemd loses nothing" "$(in_cgroup scope memory.max) $(in_cgroup scope pids.max)" "50331648 30"
check "pause" rt pause scope
is "state is paused" "$(status_of scope)" paused
check "resume" rt resume scope
check "delete --force" rt delete --force scope
check "the scope is gone" eventually unit_gone $unit
is "and its cgroup" "$(ls -d /sys/fs/cgroup/test.slice/test-a.slice/$unit 2>/dev/null)" ""

make_bundle "$WORK/ended" true
config "$WORK/ended" '.linux.cgroupsPath = "test-a.slice:pre:ended"'
check "a container that ends by itself" start ended "$WORK/ended"
check "is stopped" eventually has_status ended stopped
check "delete" rt delete ended
check "its scope is gone" eventually unit_gone pre-ended.scope

make_bundle "$WORK/default"
config "$WORK/default" 'del(.linux.cgroupsPath)'
check "without a cgroupsPath" start default "$WORK/default"
like "it is a scope in system.slice" "$(cgroup_of default)" "^/sys/fs/cgroup/system.slice/[a-z]+-default.scope$"
unit=$(basename "$(cgroup_of default)")
delete default
check "that is gone, too" eventually unit_gone "$unit"

make_bundle "$WORK/bad" /nonexistent
config "$WORK/bad" '.linux.cgroupsPath = "test-a.slice:pre:bad"'
refused "a program that is not there is refused" "no such file|not found" start bad "$WORK/bad"
check "and leaves no scope" eventually unit_gone pre-bad.scope
config "$WORK/bad" '.process.args = ["true"] | .annotations = {"org.systemd.property.TimeoutStopUSec": "nonsense"}'
refused "a property that does not parse is refused" "timeoutstopusec|nonsense|property|parse" start bad "$WORK/bad"
config "$WORK/bad" '.annotations = {} | .linux.cgroupsPath = "/not/a/scope"'
if is_locule || lacks runc; then
    refused "a path is no scope" "cgroupspath|slice|expected|invalid" start bad "$WORK/bad"
else
    skip "a path is no scope" "not checked"
fi

done_testing
