#!/bin/bash
# Docker with the runtime in daemon.json: its life with images, exit codes, exec, pause, stop.
. /locule/tests/vm/lib/common.sh

mkdir -p /etc/docker
cat >/etc/docker/daemon.json <<JSON
{"bridge": "none", "iptables": false, "ip6tables": false, "data-root": "$WORK/docker",
 "runtimes": {"tested": {"path": "$(command -v "$RUNTIME")"}}}
JSON
CLEANUPS+=("docker rm --force life" "systemctl stop docker.service docker.socket" "rm /etc/docker/daemon.json")
check "dockerd starts with the runtime" systemctl start docker
check "and lists it" docker info --format '{{json .Runtimes.tested}}'
tar -C "$(rootfs)" -c . | docker import - tested >/dev/null
run() { timeout -k 5 180 docker run --runtime tested --network none "$@"; }
state() { docker inspect --format "{{.State.$1}}" life; }
state_is() { [ "$(state Status)" = "$1" ]; }

output=$(run --rm tested sh -c 'echo out; exit 7' 2>"$WORK/err")
is "run gives its exit code" $? 7
is "its output" "$output" out
run --rm tested nothing >/dev/null 2>"$WORK/err"
is "127 for a program that is not there" $? 127
like "which is named" "$(cat "$WORK/err")" "nothing"
run --rm tested /etc/passwd >/dev/null 2>"$WORK/err"
is "126 for one that is none" $? 126
is "a terminal" "$(run --rm --tty tested sh -c 'test -t 0 && echo yes' | tr -d '\r')" yes
is "--init --read-only" "$(run --rm --init --read-only tested sh -c 'touch /x 2>/dev/null || echo refused')" refused

check "run --detach" run --detach --name life --memory 64m --pids-limit 50 tested \
    sh -c 'trap "exit 5" TERM; while :; do sleep 1; done'
pid=$(state Pid)
cgroup=/sys/fs/cgroup$(sed -n 's/^0:://p' "/proc/$pid/cgroup")
cgroup=${cgroup%/container}
like "in a scope of systemd" "$cgroup" "/system.slice/docker-[0-9a-f]+.scope$"
is "with its limits" "$(cat "$cgroup/memory.max") $(cat "$cgroup/pids.max")" "67108864 50"
is "exec" "$(docker exec life echo inside)" inside
docker exec life sh -c 'exit 9'
is "exec's exit code" $? 9
check "update" docker update --memory 96m --memory-swap -1 life
is "reaches the cgroup" "$(cat "$cgroup/memory.max")" 100663296
check "pause" docker pause life
is "it is paused" "$(state Status)" paused
check "unpause" docker unpause life
like "top" "$(docker top life)" "sleep 1|trap"
check "stats" docker stats --no-stream life
check "stop" docker stop --time 60 life
is "its exit code is kept" "$(state ExitCode)" 5
check "start again" docker start life
docker kill life >/dev/null
check "kill ends it" eventually state_is exited
is "with 137" "$(state ExitCode)" 137
check "rm" docker rm life
is "no cgroup is left" "$(ls -d "$cgroup" 2>/dev/null)" ""
run --rm --memory 32m tested dd if=/dev/zero of=/dev/null bs=64M count=1 >/dev/null 2>&1
is "a container over its memory ends with 137" $? 137
# Docker loses the event if the container's end comes right behind it, so init lives on.
run --detach --name life --memory 32m tested sh -c 'dd if=/dev/zero of=/dev/null bs=64M count=1; sleep 1000' >/dev/null
oom_known() { [ "$(state OOMKilled)" = true ]; }
check "a process over it is reported to docker" eventually oom_known

done_testing
