# What tests of containerd's `ctr` share: how a task runs under the runtime under test, what is known about it, what is
# left of it. Sourced after common.sh; every container of these tests is called test-SOMETHING.

program=$(command -v "$RUNTIME")
driver=()
systemctl start containerd
CLEANUPS+=("remove_all")
remove_all() {
    local id
    for id in $(ctr tasks list -q | grep ^test-); do ctr tasks delete --force "$id"; done
    for id in $(ctr containers list -q | grep ^test-); do ctr containers delete "$id"; done
    # What `--uidmap` made of an image stays behind, and is in the way of the next.
    for id in $(ctr snapshots list | awk '/-remap/ { print $1 }'); do ctr snapshots remove "$id"; done
}

# run OPTION... ID COMMAND...: with the driver's options
run() { timeout -k 5 300 ctr run --runc-binary "$program" --env PATH=/bin "${driver[@]}" "$@"; }
in_task() {
    local id=$1
    shift
    timeout -k 5 300 ctr tasks exec --exec-id "e$BASHPID-$RANDOM" "$id" "$@"
}
task_status() { ctr tasks list | awk -v id="$1" '$1 == id { print $3 }'; }
task_is() { [ "$(task_status "$1")" = "$2" ]; }
task_pid() { ctr tasks list | awk -v id="$1" '$1 == id { print $2 }'; }
task_cgroup() { sed -n 's/^0:://p' "/proc/$(task_pid "$1")/cgroup" | sed 's|^|/sys/fs/cgroup|'; }
shim_pid() { pgrep -f -- "containerd-shim-runc-v2 .*-id $1 "; }

# left ID: what there still is of a container that is deleted: nothing
left() {
    (
        cd /run/containerd && ls -d runc/default/"$1" io.containerd.runtime.v2.task/default/"$1"
        grep -F "/$1/" /proc/self/mountinfo
        find /sys/fs/cgroup -type d -name "*$1*"
        shim_pid "$1"
    ) 2>/dev/null
}
clean() { [ -z "$(left "$1")" ]; }

# image NAME: loads busybox under that name, once for each boot
image() {
    ctr images list -q | grep -qxF "$1" && return
    python3 /locule/tests/vm/lib/image.py "$WORK/image.tar" "$1" && ctr images import "$WORK/image.tar" >/dev/null
    rm -f "$WORK/image.tar"
}

# listen: begins to write containerd's events to $WORK/events
listen() {
    ctr events >"$WORK/events" 2>&1 &
    listener=$!
    CLEANUPS+=("kill $listener")
    # Nothing tells that it listens: it does as soon as it has seen something.
    eventually heard
}
heard() {
    ctr namespaces label default seen=$RANDOM
    sleep 0.2
    [ -s "$WORK/events" ]
}
# event TOPIC ID: how often containerd told of it
event() { grep -F " /tasks/$1 " "$WORK/events" | grep -cF "\"$2\""; }
told() { [ "$(event "$1" "$2")" -gt 0 ]; }
