#!/bin/bash
# update: each flag and the JSON form change a running container, what is not named stays.
. /locule/tests/vm/lib/common.sh

make_bundle "$WORK/up"
config "$WORK/up" '.linux.resources.memory = {limit: 67108864} | .linux.resources.pids = {limit: 50}'
check "a container starts" start up "$WORK/up"
is "with its limits" "$(in_cgroup up memory.max) $(in_cgroup up pids.max)" "67108864 50"

check "--memory" rt update --memory 50331648 up
is "--memory is written" "$(in_cgroup up memory.max)" 50331648
is "the rest stays" "$(in_cgroup up pids.max)" 50
check "--memory and --memory-swap" rt update --memory 50331648 --memory-swap 83886080 up
is "--memory-swap is written" "$(in_cgroup up memory.swap.max)" 33554432
check "--memory-reservation" rt update --memory-reservation 20971520 up
is "--memory-reservation is written" "$(in_cgroup up memory.low)" 20971520
check "--cpu-quota and --cpu-period" rt update --cpu-period 50000 --cpu-quota 20000 up
is "both are written" "$(in_cgroup up cpu.max)" "20000 50000"
check "--cpu-quota alone" rt update --cpu-quota 30000 up
if lacks crun; then
    skip "the period stays" "it writes the default one"
else
    is "the period stays" "$(in_cgroup up cpu.max)" "30000 50000"
fi
check "--cpu-share" rt update --cpu-share 262144 up
is "--cpu-share is written" "$(in_cgroup up cpu.weight)" 10000
check "--cpuset-cpus" rt update --cpuset-cpus 1 up
is "--cpuset-cpus is written" "$(in_cgroup up cpuset.cpus)" 1
check "--cpuset-mems" rt update --cpuset-mems 0 up
is "--cpuset-mems is written" "$(in_cgroup up cpuset.mems)" 0
check "--pids-limit" rt update --pids-limit 30 up
is "--pids-limit is written" "$(in_cgroup up pids.max)" 30
check "--pids-limit -1" rt update --pids-limit=-1 up
is "is no limit" "$(in_cgroup up pids.max)" max
check "--blkio-weight" rt update --blkio-weight 500 up
is "--blkio-weight is written" "$(in_cgroup up io.weight)" "default 4950"
if is_locule; then
    check "--cpu-burst" rt update --cpu-burst 10000 up
    is "--cpu-burst is written" "$(in_cgroup up cpu.max.burst)" 10000
    check "--cpu-idle" rt update --cpu-idle 1 up
    is "--cpu-idle is written" "$(in_cgroup up cpu.idle)" 1
else
    for what in "--cpu-burst" "--cpu-burst is written" "--cpu-idle" "--cpu-idle is written"; do
        skip "$what" "newer than these releases"
    done
fi

json='{"memory": {"limit": 41943040}, "pids": {"limit": 25}, "unified": {"memory.high": "31457280"}}'
from_stdin() { rt update --resources - up <<<"$json"; }
equals_form() { rt update --resources=- up <<<'{"pids": {"limit": 24}}'; }
check "--resources - (CRI-O)" from_stdin
is "memory and pids are written" "$(in_cgroup up memory.max) $(in_cgroup up pids.max)" "41943040 25"
is "unified is written" "$(in_cgroup up memory.high)" 31457280
check "--resources=- (containerd)" equals_form
is "and what it does not name stays" "$(in_cgroup up memory.max) $(in_cgroup up pids.max)" "41943040 24"
echo '{"pids": {"limit": 23}}' >"$WORK/file.json"
check "--resources FILE (podman)" rt update --resources "$WORK/file.json" up
is "is written" "$(in_cgroup up pids.max)" 23

refused "nonsense is refused" "" rt update --resources /nonexistent up
refused "no such container" "not exist|not found|no such" rt update --pids-limit 5 nobody

done_testing
