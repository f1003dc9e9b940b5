# What every test file of the VM lane sources: checks that print TAP, bundles,
# containers, and an end that leaves nothing behind. Runs inside the VM only.
#
# RUNTIME names the program under test (locule, runc, crun): suites are proven
# right with the established ones.

set -u
: "${RUNTIME:=locule}"
# A file that rebooted the machine goes on counting.
CHECKS=${CHECKS:-0}
WORK=$(mktemp -d /var/tmp/test-XXXXXX)
STATE=$WORK/state
MANAGER=()
KIND=$(basename "$RUNTIME")
FINISHED=

# --- checks ---

ok() {
    CHECKS=$((CHECKS + 1))
    echo "ok $CHECKS - $1"
}

# not_ok NAME [DETAIL]
not_ok() {
    CHECKS=$((CHECKS + 1))
    echo "not ok $CHECKS - $1"
    [ -z "${2-}" ] || head -n 20 <<<"$2" | sed 's/^/# /'
}

# check NAME COMMAND...: the command succeeds
check() {
    local name=$1 output
    shift
    if output=$("$@" 2>&1); then ok "$name"; else not_ok "$name" "$* (exit $?): $output"; fi
}

# refused NAME REGEX COMMAND...: the command fails and says something that matches
refused() {
    local name=$1 pattern=$2 output
    shift 2
    if output=$("$@" 2>&1); then
        not_ok "$name" "$* succeeded: $output"
    elif [[ ${output,,} =~ $pattern ]]; then
        ok "$name"
    else
        not_ok "$name" "$* said: $output (wanted: $pattern)"
    fi
}

# is NAME GOT WANTED
is() {
    if [ "$2" = "$3" ]; then ok "$1"; else not_ok "$1" "got '$2', wanted '$3'"; fi
}

# like NAME GOT REGEX
like() {
    if [[ $2 =~ $3 ]]; then ok "$1"; else not_ok "$1" "got '$2', wanted /$3/"; fi
}

# above NAME GOT LEAST: a number larger than LEAST
above() {
    if [ "${2:-0}" -gt "$3" ] 2>/dev/null; then ok "$1"; else not_ok "$1" "got '$2', wanted more than $3"; fi
}

skip() {
    CHECKS=$((CHECKS + 1))
    echo "ok $CHECKS - $1 # SKIP $2"
}

# reboot: ends this run of the file; the machine reboots, and the file runs again with BOOTS one higher. What
# CLEANUPS would undo is left as it is.
reboot() {
    FINISHED=yes
    CLEANUPS=()
    exit 194
}

# skip_all REASON: this file has nothing to check here
skip_all() {
    FINISHED=yes
    echo "1..0 # SKIP $1"
    exit 0
}

# A file ends with this; without it the runner counts a failure.
done_testing() {
    FINISHED=yes
    echo "1..$CHECKS"
}

# eventually COMMAND...: true as soon as the command is, false after three minutes, which is long on a busy machine, or
# $PATIENCE seconds
eventually() {
    local until=$((SECONDS + ${PATIENCE:-180}))
    until "$@" >/dev/null 2>&1; do
        [ $SECONDS -lt $until ] || return 1
        sleep 0.2
    done
}

# --- the program under test ---

# rt ARGUMENTS...: the runtime with this file's own state directory, for at most $LIMIT seconds
rt() {
    timeout -k 5 "${LIMIT:-120}" "$RUNTIME" --root "$STATE" "${MANAGER[@]}" "$@"
}

# The others are where a suite is proven; what they lack is skipped there, never for locule.
is_locule() { [ "$KIND" != runc ] && [ "$KIND" != crun ]; }
# lacks NAME...: true if the runtime under test is one of these
lacks() { [[ " $* " == *" $KIND "* ]]; }

# --- bundles ---

# One root file system serves all bundles of a file: specs have it read-only.
rootfs() {
    local dir=$WORK/rootfs
    if [ ! -d "$dir" ]; then
        mkdir -p "$dir"/{bin,dev,etc,proc,root,sys,tmp,usr,lib,lib64}
        cp /bin/busybox "$dir/bin/"
        # busybox links to itself as /bin/busybox only from inside; the user namespace is for rootless suites.
        unshare --map-root-user chroot "$dir" /bin/busybox --install -s /bin
        echo 'root:x:0:0:root:/root:/bin/sh' >"$dir/etc/passwd"
        chmod 0755 "$WORK"
    fi
    echo "$dir"
}

# make_bundle DIR [ARGUMENT...]: the runtime's own `spec` on busybox, running ARGUMENTs
make_bundle() {
    local dir=$1 mode=
    shift
    mkdir -p "$dir"
    [ "$(id -u)" = 0 ] || mode=--rootless
    rm -f "$dir/config.json"
    # shellcheck disable=SC2086 # no option is no word
    (cd "$dir" && "$RUNTIME" spec $mode) || return
    [ $# -gt 0 ] || set -- sleep 1000
    config "$dir" '.process.terminal = false | .root.path = $rootfs | .process.args = $ARGS.positional' \
        --arg rootfs "$(rootfs)" --args -- "$@"
    [ -n "$mode" ] || config "$dir" '.linux.cgroupsPath = "/test/" + $name' --arg name "$(basename "$dir")"
}

# config DIR FILTER [JQ ARGUMENT...]: edits config.json
config() {
    local dir=$1
    shift
    jq "$@" <"$dir/config.json" >"$dir/config.json.new" && mv "$dir/config.json.new" "$dir/config.json"
}

# with_host_programs DIR: the VM's own /usr inside, read-only, for tests that need python3
with_host_programs() {
    config "$1" '.mounts += [("/usr", "/lib", "/lib64") as $d
        | {destination: $d, source: $d, type: "bind", options: ["rbind", "ro"]}]'
}

# --- sd_notify(3) ---

# For the beginning of a script inside: `say WORDS` by what busybox has. Its logger speaks to any such socket, and what it
# puts before the first line is no word of anybody's.
# shellcheck disable=SC2034 # for those who source this
SAY='ln -s $NOTIFY_SOCKET /dev/log; say() { logger "$(printf "x\n$1")"; }; '

# service_manager SOCKET FILE: one that listens, and writes what it hears into FILE, a message a line; not for `check`,
# which waits for what is started in it
service_manager() {
    python3 - "$1" >"$2" <<'END' &
import socket, sys
manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
manager.bind(sys.argv[1])
while True:
    # A descriptor that comes along is closed by this.
    print(manager.recv(8192).decode().strip().replace("\n", " "), flush=True)
END
    CLEANUPS+=("kill $!")
    eventually test -S "$1"
}

# --- containers ---

# start ID BUNDLE: in the background; its output goes to BUNDLE/output, and is printed if it fails
start() {
    local code
    echo "$1" >>"$WORK/containers"
    rt run --detach --bundle "$2" "$1" </dev/null >"$2/output" 2>&1 && return
    code=$?
    cat "$2/output"
    return $code
}

# foreground ID BUNDLE: to its end; prints its output, keeps its exit code
foreground() {
    echo "$1" >>"$WORK/containers"
    rt run --bundle "$2" "$1" </dev/null 2>&1
}

pid_of() { rt state "$1" | jq -r .pid; }
status_of() { rt state "$1" 2>/dev/null | jq -r .status; }
has_status() { [ "$(status_of "$1")" = "$2" ]; }

# cgroup_of ID: the folder that limits the container
cgroup_of() {
    local path
    path=$(sed -n 's/^0:://p' "/proc/$(pid_of "$1")/cgroup")
    # crun puts the process one level below a systemd scope.
    [[ $path != */container ]] || path=${path%/container}
    echo "/sys/fs/cgroup$path"
}

# in_cgroup ID FILE: what one file of the container's cgroup says
in_cgroup() { cat "$(cgroup_of "$1")/$2"; }

# field KEY: the value of one line of a flat keyed file on standard input
field() { awk -v key="$1" '$1 == key { print $2 }'; }

gone() { ! rt state "$1" >/dev/null 2>&1; }

delete() { rt delete --force "$1" >/dev/null 2>&1; }

# --- as the user ---

# as_user_file: runs this whole file again in a service of the user's own systemd
as_user_file() {
    [ "$(id -u)" = 0 ] || return 0
    FINISHED=yes
    trap - EXIT
    rm -rf "$WORK"
    exec systemd-run --quiet --machine=user@.host --user --pipe --wait --collect -p Delegate=yes \
        -E RUNTIME="$RUNTIME" -E SUITE="${SUITE-}" -E TEST="${TEST-}" -- "$(readlink -f "$0")"
}

# guide NAME: runs docs/guides/NAME.md; the whole of a file of the suite `guides`
guide() {
    is_locule || skip_all "the guide names locule"
    python3 /locule/tests/vm/lib/guide.py "/locule/docs/guides/$1.md" && FINISHED=yes
}

finish() {
    local id
    # A file, because `check NAME start ...` starts it in a subshell.
    for id in $(sort -u "$WORK/containers" 2>/dev/null); do delete "$id"; done
    for id in "${CLEANUPS[@]}"; do eval "$id" >/dev/null 2>&1; done
    rm -rf "$WORK"
    [ -n "$FINISHED" ] || echo "# ended early"
}
CLEANUPS=()
trap finish EXIT
