#!/bin/bash
# The same bundle in both isolations, with the same results: exit codes, streams, signals, exec, terminals, limits,
# pause, the end. Emulated in an emulation, a boot takes half a minute and more: few machines, many checks in each.
# takes: 160
. /locule/tests/vm/lib/vm.sh

# run_in ISOLATION ID BUNDLE: to its end
run_in() {
    echo "$2" >>"$WORK/containers"
    rt run --isolation "$1" --bundle "$3" "$2"
}

check "check says that virtual machines would work" sh -c \
    "$RUNTIME check | grep -c '^ok .*virtual machines' | grep -qx 3"
like "the kernel is an installed one" "$("$RUNTIME" vm kernel ls | grep '^\*')" '/boot/vmlinuz-.* yes'

# --- one run: output, both streams, standard input, the exit code ---
make_bundle "$WORK/once" sh -c 'read line; echo "out $line"; echo err >&2; id -u; hostname
    dd if=/dev/zero of=/dev/null bs=100M count=1 2>/dev/null; echo "eater $?"; exit 7'
config "$WORK/once" '.hostname = "inner" | .linux.resources.memory.limit = 67108864'
for isolation in namespaces vm; do
    echo hello | run_in $isolation once-$isolation "$WORK/once" >"$WORK/out-$isolation" 2>"$WORK/err-$isolation"
    is "$isolation: the exit code" $? 7
    is "$isolation: standard output" "$(cat "$WORK/out-$isolation")" $'out hello\n0\ninner\neater 137'
    is "$isolation: standard error" "$(cat "$WORK/err-$isolation")" err
    check "$isolation: nothing is left" gone once-$isolation
done

# --- what a start says of a program that is not there ---
make_bundle "$WORK/missing" /no/such/program
for isolation in namespaces vm; do
    run_in $isolation missing-$isolation "$WORK/missing" </dev/null >"$WORK/said-$isolation" 2>&1
    is "$isolation: a program that is not there is 127" $? 127
done
like "vm: and told by its name" "$(cat "$WORK/said-vm")" '/no/such/program'

# --- a kernel that panics, by the leave of its container's document, without a word of KVM and with all its stages told ---
make_bundle "$WORK/panic" sh -c 'echo "flags $(grep -cw hypervisor /proc/cpuinfo)"; echo c >/proc/sysrq-trigger; sleep 1000'
config "$WORK/panic" 'del(.linux.readonlyPaths, .linux.maskedPaths)'
echo panic >>"$WORK/containers"
rt run --isolation vm --vm-identity none --trace-startup --bundle "$WORK/panic" panic </dev/null >"$WORK/said-panic" 2>&1
is "a kernel that panics is 255" $? 255
like "and its reason is told" "$(cat "$WORK/said-panic")" 'its kernel panicked, saying "sysrq triggered crash"'
is "--vm-identity none: the processor knows of no hypervisor" "$(grep flags "$WORK/said-panic")" "flags 0"
above "--trace-startup: stages are told with their times" "$(grep -cE '^locule-vmm: +[0-9]+' "$WORK/said-panic")" 2
refused "both are for a machine" "give --isolation vm" rt run --isolation namespaces --trace-startup --bundle "$WORK/panic" panic

# --- a long one ---
service_manager "$WORK/manager" "$WORK/heard"
make_bundle "$WORK/long" sh -c "$SAY"'trap "echo got; exit 5" TERM; echo up
    say "READY=1\nMAINPID=1\nSTATUS=long"; while :; do sleep 1; done'
config "$WORK/long" '.linux.resources.memory.limit = 67108864 | .linux.resources.pids.limit = 50 | .mounts += [
    {destination: "/data", source: $data, type: "bind", options: ["rbind", "rw"]},
    {destination: "/fixed", source: $data, type: "bind", options: ["rbind", "ro"]},
    {destination: "/tmp", source: "tmpfs", type: "tmpfs", options: ["size=250m"]},
    {destination: "/note", source: ($data + "/note"), type: "bind", options: ["bind", "ro"]}]' --arg data "$WORK/data"
mkdir -p "$WORK/data"
echo noted >"$WORK/data/note"
echo long >>"$WORK/containers"
# What the workload inherits must not be what `check` waits for.
create_long() {
    NOTIFY_SOCKET=$WORK/manager rt create --isolation vm --bundle "$WORK/long" long </dev/null >"$WORK/long/output" 2>&1
}
check "create" create_long
is "it is created" "$(status_of long)" created
is "state tells the isolation" "$(rt state long | jq -r .isolation)" vm
check "start waits for its word" env NOTIFY_SOCKET="$WORK/manager" timeout -k 5 400 "$RUNTIME" --root "$STATE" start long
is "it runs" "$(status_of long)" running
is "the service manager was told by then, and which process to watch" "$(head -n 1 "$WORK/heard")" \
    "READY=1 STATUS=long MAINPID=$(pid_of long)"
# Name, filter, no_new_privs of every thread of the monitor.
threads() { awk '$1 == "Name:" { name = $2 } $1 == "NoNewPrivs:" { no = $2 } $1 == "Seccomp:" { print name, $2, no }' \
    "/proc/$(pid_of long)"/task/*/status; }
is "every thread of the monitor filters its system calls" "$(threads | grep -v ' 2 1$')" ""
is "the processors', the devices' and the file server's too" \
    "$(threads | grep -oE '^(vcpu0|devices|fs|fs0|fs1) ' | sort | xargs)" "devices fs fs0 fs1 vcpu0"
# Name and permitted capabilities of every thread that has some.
able() { awk '$1 == "Name:" { name = $2 } $1 == "CapPrm:" && $2 !~ /^0*$/ { print name }' \
    "/proc/$(pid_of long)"/task/*/status | sort -u | xargs; }
is "none but the file server's threads have capabilities" "$(able)" "fs fs0 fs1"
check "its output comes" eventually grep -q up "$WORK/long/output"
is "exec" "$(rt exec long echo inside)" inside
rt exec long sh -c 'exit 9'
is "exec: the exit code" $? 9
is "exec: standard input" "$(echo through | rt exec long cat)" through
is "exec: user, environment and directory" \
    "$(rt exec --user 12:34 --env A=b --cwd /bin long sh -c 'echo $(id -u):$(id -g) $A $PWD')" "12:34 b /bin"
jq '.process | .args = ["echo", "free"] | .apparmorProfile = "no-such-profile"' "$WORK/long/config.json" >"$WORK/process"
is "exec: a profile of the host's is none inside" "$(rt exec --process "$WORK/process" long)" free
refused "exec: a program that is not there" "no/such" rt exec long /no/such
is "random bytes come from the host" "$(rt exec long cat /sys/class/misc/hw_random/rng_current)" virtio_rng.0
like "the kernel inside is its own" "$(rt exec long cat /proc/cmdline)" 'root=locule'
is "a bind mount is the host's" "$(rt exec long cat /data/note)" noted
check "and can be written" rt exec long sh -c 'echo back >/data/new'
is "so that the host sees it" "$(cat "$WORK/data/new")" back
refused "a read-only one cannot" "read-only" rt exec long touch /fixed/x
is "a file can be bound" "$(rt exec long cat /note)" noted
is "the limit inside is the document's" "$(rt exec long cat /sys/fs/cgroup/memory.max)" 67108864
above "the host's has room for the machine" "$(in_cgroup long memory.max)" 67108864
like "ps shows what is inside" "$(rt ps long)" 'sleep 1'
is "stats of the host and of inside" \
    "$(rt events --stats long | jq '(.data.memory.usage.usage > 1000000) and (.inside.memory.usage.usage > 0)')" true
rt exec --detach --pid-file "$WORK/pid" long sleep 1000 >/dev/null 2>&1
check "a detached exec has a process on the host" kill -0 "$(cat "$WORK/pid")"
check "which stands in the container's cgroup" grep -q long "/proc/$(cat "$WORK/pid")/cgroup"
kill "$(cat "$WORK/pid")"
check "and passes its end on" eventually sh -c "! $RUNTIME --root $STATE ps long | grep -q 'sleep 1000'"
# What is told from now on is news: its statistics come when it listens.
listen() {
    "$RUNTIME" --root "$STATE" events --interval 1s long >"$WORK/events" 2>&1 &
    events=$!
    eventually grep -q '"stats"' "$WORK/events"
}
CLEANUPS+=('kill "$events"')
listen
rt exec long dd if=/dev/zero of=/dev/null bs=100M count=1 >/dev/null 2>&1
is "a process over the limit inside is killed" $? 137
check "events tells it" eventually grep -qx '{"type":"oom","id":"long"}' "$WORK/events"
is "once" "$(grep -c '"oom"' "$WORK/events")" 1
kill "$events"
is "the host's kernel has killed nothing" "$(in_cgroup long memory.events | field oom_kill)" 0
is "statistics count it inside" \
    "$(rt events --stats long | jq -c '[.data.memory.oomKills, .inside.memory.oomKills]')" '[null,1]'
is "and so does stats" "$(rt stats --no-stream --format json long | jq '.[0].memory.oom_kills')" 1
like "a terminal" "$(script -qec "$RUNTIME --root $STATE exec --tty long sh -c 'tty; stty size'" /dev/null </dev/null)" '/dev/(pts/|console)'
check "pause" rt pause long
is "it is paused" "$(status_of long)" paused
refused "exec into a paused one is refused" paused rt exec long true
check "resume" rt resume long
is "and exec works again" "$(rt exec long echo again)" again
check "update" rt update --memory 60m long
is "reaches the guest" "$(rt exec long cat /sys/fs/cgroup/memory.max)" 62914560
total() { rt exec long sh -c "free -m | awk '\$1 == \"Mem:\" { print \$2 }'"; }
before=$(total)
check "update gives it more memory than it was started with" rt update --memory 512m long
more() { [ "$(total)" -gt $((before + 300)) ]; }
check "free inside shows it" eventually more
is "and the limit inside" "$(rt exec long cat /sys/fs/cgroup/memory.max)" 536870912
above "the host's has room for it" "$(in_cgroup long memory.max)" 536870912
# Anonymous memory beyond what it was started with: a tmpfs takes it from the machine's own.
check "it can be used" rt exec long sh -c 'head -c 209715200 /dev/zero >/tmp/much'
full=$(in_cgroup long memory.current)
above "which costs the host as much" "$full" 209715200
check "what is freed inside" rt exec long rm /tmp/much
freed() { [ "$(in_cgroup long memory.current)" -lt $((full - 104857600)) ]; }
check "is reported, and the host's again" eventually freed
check "update takes it back" rt update --memory 60m long
less() { [ "$(total)" -lt $((before + 100)) ]; }
check "free inside shows that" eventually less
above "and so does what the host counts" 314572800 "$(in_cgroup long memory.current)"
listen
check "a signal" rt kill long TERM
check "ends it" eventually has_status long stopped
check "after its own word" grep -q got "$WORK/long/output"
wait "$events"
is "and events with it" $? 0
check "delete" rt delete long

# --- a service of Type=notify; the end of the monitor is the end of all ---
sleep 10000 &
STRANGER=$!
CLEANUPS+=("kill $STRANGER" "systemctl stop locule-vm-killed")
make_bundle "$WORK/killed" sh -c "$SAY"'say STATUS=waiting; until [ -e /data/go ]; do sleep 1; done
    say "MAINPID='$STRANGER'\nNOTIFYACCESS=none\nFDSTORE=1"
    say "READY=1\nMAINPID='$STRANGER'\nSTATUS=serving"; exec sleep 10000'
config "$WORK/killed" '.mounts += [{destination: "/data", source: $data, type: "bind", options: ["rbind", "ro"]}]' \
    --arg data "$WORK/killed"
echo killed >>"$WORK/containers"
unit() { systemctl show --value --property "$1" locule-vm-killed; }
unit_is() { [ "$(unit "$1")" = "$2" ]; }
check "a service" systemd-run --quiet --no-block --collect --unit locule-vm-killed --property Type=notify \
    --property NotifyAccess=all --property TimeoutStartSec=infinity -- \
    "$(command -v "$RUNTIME")" --root "$STATE" run --keep --isolation vm --bundle "$WORK/killed" killed
check "what the container says of itself is the service's status" eventually unit_is StatusText waiting
is "which is not active before it says so" "$(unit ActiveState)" activating
main=$(unit MainPID)
touch "$WORK/killed/go"
check "and then it is" eventually unit_is ActiveState active
is "with its own words" "$(unit StatusText)" serving
is "and no others" "$(unit MainPID) $(unit NotifyAccess)" "$main all"
group=$(cgroup_of killed)
kill -KILL "$(pid_of killed)"
check "a killed monitor has stopped" eventually has_status killed stopped
check "delete of it" rt delete killed
is "leaves no cgroup" "$(ls -d "$group" 2>/dev/null)" ""

# --- what cannot be, is refused before anything is made ---
make_bundle "$WORK/refused" true
config "$WORK/refused" '.linux.namespaces |= map(select(.type != "pid"))'
refused "the host's pid namespace" "cannot share the host's pid namespace" \
    rt run --isolation vm --bundle "$WORK/refused" refused
check "leaves nothing" gone refused

done_testing
