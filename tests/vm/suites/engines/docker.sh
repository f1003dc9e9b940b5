#!/bin/bash
# Docker with the runtime as its default: what a user runs, sees, limits and ends, and what is said when it cannot be.
# takes: 100
. /locule/tests/vm/lib/common.sh
. /locule/tests/vm/lib/docker.sh

mkdir -p /etc/cdi
cat >/etc/cdi/test.json <<'JSON'
{"cdiVersion": "0.5.0", "kind": "example.org/clock", "devices": [{"name": "one", "containerEdits":
    {"env": ["CLOCK=one"], "deviceNodes": [{"path": "/dev/clock", "hostPath": "/dev/zero"}]}}]}
JSON
CLEANUPS+=("rm -r /etc/cdi")
docker_starts '{"features": {"cdi": true}}'
info=$(docker info --format json)
is "docker info lists the runtime" "$(jq -r .Runtimes.tested.path <<<"$info")" "$(command -v "$RUNTIME")"
like "with its features" "$(jq -r '.Runtimes.tested.status[]' <<<"$info" | jq -r '.mountOptions[]' | xargs)" " rro "
is "it is the default" "$(jq -r .DefaultRuntime <<<"$info")" tested
is "docker info warns of nothing" "$(jq -c .Warnings <<<"$info")" null
is "nor does the daemon's log" "$(complaints)" ""
version=$(docker version --format '{{range .Server.Components}}{{if eq .Name "tested"}}{{.Version}} {{index .Details "GitCommit"}}{{end}}{{end}}')
is "docker version shows version and commit" "$version" \
    "$("$RUNTIME" --version | sed -n '1s/.*version //p;s/^commit: //p' | xargs -d '\n' printf '%s %s')"

output=$(run --rm tested sh -c 'echo out; exit 7' 2>"$WORK/err")
is "run gives its exit code" $? 7
is "its output" "$output" out
check "nothing is left of it" nothing_left
mkdir -p "$WORK/shared/sub"
mount -t tmpfs tmpfs "$WORK/shared/sub"
CLEANUPS=("umount $WORK/shared/sub" "${CLEANUPS[@]}")
output=$(run --rm --tty --init --read-only --tmpfs /scratch --device example.org/clock=one -v "$WORK/shared:/shared:ro" tested sh -c '
    test -t 0 && echo terminal
    echo first: $(cat /proc/1/comm)
    touch /x 2>/dev/null || echo root is read-only
    touch /scratch/x && echo scratch is not
    touch /shared/x 2>/dev/null || echo volume is read-only
    touch /shared/sub/x 2>/dev/null || echo as is the mount in it
    test "$(head -c 4 /dev/clock | od -A n -t x1 | xargs)" = "00 00 00 00" && echo "device $CLOCK"' | tr -d '\r')
is "--tty --init --read-only --tmpfs, -v :ro with a mount in it, a CDI device" "$output" "terminal
first: docker-init
root is read-only
scratch is not
volume is read-only
as is the mount in it
device one"

# says NAME CODE REGEX COMMAND...: Docker's exit code and the runtime's words; a failed exec has them on standard output
says() {
    local name=$1 code=$2 words=$3 told
    shift 3
    told=$("$@" 2>&1)
    is "$name: exit code" $? "$code"
    like "$name: told" "$told" "$words"
}
says "a program that is not there" 127 'exec: "nothing": executable file not found in \$PATH' run --rm tested nothing
says "a file that is no program" 126 'exec: "/etc/passwd": .*permission denied' run --rm tested /etc/passwd
says "a directory" 126 'exec: "/etc": .*(permission denied|is a directory)' run --rm tested /etc
says "an option that docker does not know" 125 'unknown flag' run --rm --nothing tested true
says "a runtime that docker does not know" 125 'unknown or invalid runtime name' run --rm --runtime nothing tested true
says "the source of a mount that is not there" 125 'bind source path does not exist' \
    run --rm --mount "type=bind,source=$WORK/nowhere,target=/x" tested true
says "a file on a directory" 125 'not a directory.*: Are you trying to mount a directory onto a file' \
    run --name place --volume /etc/passwd:/tmp tested true
is "and Docker's own code for it" "$(state place ExitCode)" 127
docker rm place >/dev/null
says "memory below what docker allows" 125 'Minimum memory limit allowed is 6MB' run --rm --memory 1m tested true
# As little as Docker allows is enough; the program that guards devices refuses what nobody allowed.
says "a device that is not allowed" 1 "can't open '/dev/k': Operation not permitted" \
    run --rm --memory 6m tested sh -c 'mknod /dev/k c 1 11 && cat /dev/k'
check "nothing is left of all these" nothing_left

check "run --detach" run --detach --name life --memory 64m --pids-limit 50 tested \
    sh -c 'trap "exit 5" TERM; while :; do sleep 1; done'
pid=$(state life Pid)
cgroup=/sys/fs/cgroup$(sed -n 's/^0:://p' "/proc/$pid/cgroup")
cgroup=${cgroup%/container}
like "in a scope of systemd" "$cgroup" "/system.slice/docker-[0-9a-f]+.scope$"
is "with its limits" "$(cat "$cgroup/memory.max") $(cat "$cgroup/pids.max")" "67108864 50"
is "exec" "$(docker exec life echo inside)" inside
docker exec life sh -c 'exit 9'
is "exec's exit code" $? 9
# Docker 26 has 126 for every exec that cannot be.
says "exec of a program that is not there" 126 'executable file not found in \$PATH' docker exec life nothing
says "exec of a file that is no program" 126 'permission denied' docker exec life /etc/passwd
says "exec in a directory that is not there" 126 '/nowhere.*no such file or directory' docker exec -w /nowhere life true
check "update of memory and CPU" docker update --memory 96m --memory-swap -1 --cpus 0.5 life
is "reaches the cgroup" "$(cat "$cgroup/memory.max" "$cgroup/cpu.max" | xargs)" "100663296 50000 100000"
docker exec --detach life sh -c 'while :; do :; done'
throttled() { [ "$(field nr_throttled <"$cgroup/cpu.stat")" -gt 0 ]; }
check "and throttles" eventually throttled
like "top has the host's pids" "$(docker top life -o pid,args | xargs)" " $pid .*while"
stats=$(docker stats --no-stream --format '{{.MemUsage}} {{.PIDs}} {{.CPUPerc}}' life)
like "stats: use, limit, processes, CPU time" "$stats" '^[0-9.]+[KM]iB / 96MiB [2-9] [0-9.]+%$'
check "pause" docker pause life
is "it is paused" "$(state life Status)" paused
before=$(field usage_usec <"$cgroup/cpu.stat")
sleep 1
is "its CPU time stands still" "$(field usage_usec <"$cgroup/cpu.stat")" "$before"
check "unpause" docker unpause life
check "stop" docker stop --time 60 life
is "its exit code is kept" "$(state life ExitCode)" 5
is "no cgroup is left" "$(ls -d "$cgroup" 2>/dev/null)" ""
check "start again" docker start life
docker kill life >/dev/null
check "kill ends it" eventually state_is life Status exited
is "with 137" "$(state life ExitCode)" 137
check "rm" docker rm life

# Docker loses the event if the container's end comes right behind it, with every runtime, so init lives on here.
check "a container with little memory" \
    run --detach --name hog --memory 32m tested sh -c 'dd if=/dev/zero of=/dev/null bs=64M count=1; sleep 1000'
check "a process over it is reported to docker" eventually state_is hog OOMKilled true
docker rm --force hog >/dev/null
run --name hog --memory 32m tested dd if=/dev/zero of=/dev/null bs=64M count=1 >/dev/null 2>&1
is "a container over its memory ends with 137" $? 137

# The daemon logs each failure of a start as its own error; a panic or a time-out would be news.
is "the daemon's log has no other errors" \
    "$(complaints | grep -Ev 'OCI runtime|closed fifo|failed to create task|Handler for|failed to start' | head)" ""

done_testing
