#!/bin/bash
# Several containers in one machine: what joins namespaces of a container with a machine lives in that. First plain bundles,
# then a pod of Podman's.
# takes: 125
. /locule/tests/vm/lib/vm.sh
ln -sf locule /usr/local/bin/locule-vm

# create_in ID BUNDLE: what the workload inherits must not be what `check` waits for
create_in() { rt create --isolation vm --bundle "$2" "$1" </dev/null >"$WORK/$1.out" 2>&1; }
# begin ID BUNDLE: created and started
begin() {
    echo "$1" >>"$WORK/containers"
    create_in "$1" "$2" && rt start "$1"
}
# in_container ID COMMAND...
in_container() { rt exec "$@" </dev/null; }
boot_id() { in_container "$1" cat /proc/sys/kernel/random/boot_id; }
# joined WORD...: a filter for `config`: the namespaces of a bundle, after those named were joined to the first container's
joined() {
    local pid word filter='.'
    pid=$(pid_of first)
    for word in "$@"; do
        filter+=" | (.linux.namespaces[] | select(.type == \"$word\")).path = \"/proc/$pid/ns/${word/network/net}\""
    done
    echo "$filter"
}

mkdir -p "$WORK/volume" "$WORK/www"
echo served >"$WORK/www/index.html"
make_bundle "$WORK/first" sh -c 'trap "exit 4" TERM; while :; do sleep 1; done'
config "$WORK/first" '.hostname = "together" | .linux.resources.memory.limit = 268435456 | .mounts += [
    {destination: "/volume", source: $volume, type: "bind", options: ["rbind", "rw"]}]' --arg volume "$WORK/volume"
check "the first container starts" begin first "$WORK/first"

# --- a second one beside it ---
make_bundle "$WORK/web" sh -c 'trap "echo got; exit 5" TERM; echo out; echo err >&2
    httpd -p 127.0.0.1:80 -h /www; socat UNIX-LISTEN:/volume/sock,fork EXEC:cat & while :; do sleep 1; done'
with_host_programs "$WORK/web"
config "$WORK/web" "$(joined network ipc uts)"' | del(.hostname) | .linux.resources.memory.limit = 67108864
    | .linux.resources.pids.limit = 40 | .mounts += [
    {destination: "/volume", source: $volume, type: "bind", options: ["rbind", "rw"]},
    {destination: "/www", source: $www, type: "bind", options: ["rbind", "ro"]}]' \
    --arg volume "$WORK/volume" --arg www "$WORK/www"
check "another one that joins its namespaces starts" begin web "$WORK/web"
is "it runs" "$(status_of web)" running
like "state says its isolation" "$(rt state web)" '"isolation": *"vm"'
is "its process on the host has no rights" \
    "$(awk '/^(CapPrm|CapEff|NoNewPrivs):/ { printf "%s ", $2 }' "/proc/$(pid_of web)/status")" \
    "0000000000000000 0000000000000000 1 "
is "in the machine of the first" "$(boot_id web)" "$(boot_id first)"
is "with its own mounts" "$(in_container web grep -c ' /www ' /proc/mounts) $(in_container first grep -c ' /www ' /proc/mounts)" "1 0"
is "with the first one's host name" "$(in_container web hostname)" together
is "with its own limits" "$(in_container web cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/pids.max)" $'67108864\n40'
is "and its own processes" "$(in_container first ps -o args | grep -c httpd)" 0
like "ps lists them" "$(rt ps web)" httpd
is "for it alone" "$(rt ps first | grep -c httpd)" 0
is "both are on one network" "$(in_container first wget -q -O - http://127.0.0.1/)" served
is "what may only be read is so" "$(in_container web sh -c 'touch /www/new 2>/dev/null; echo $?')" 1
check "a volume of both is one" in_container web touch /volume/made
is "for the first at once" "$(in_container first ls /volume/made)" /volume/made
check "and on the host" test -e "$WORK/volume/made"
make_bundle "$WORK/client" sh -c 'echo through | socat -t 60 - UNIX-CONNECT:/volume/sock; exit 3'
with_host_programs "$WORK/client"
config "$WORK/client" "$(joined network ipc uts)"' | del(.hostname) | .mounts += [
    {destination: "/volume", source: $volume, type: "bind", options: ["rbind", "rw"]}]' --arg volume "$WORK/volume"
said=$(rt run --isolation vm --bundle "$WORK/client" client </dev/null)
is "a run in the machine ends with its code" $? 3
is "and has reached a socket of another's in the volume" "$said" through
check "nothing of it is left" gone client
is "its output is its own" "$(sort "$WORK/web.out")" $'err\nout'

# --- processes of one another ---
make_bundle "$WORK/debug" sh -c 'ps -o args | grep -c "[t]rap \"exit 4\""; ls /proc/1/root >/dev/null && echo root'
config "$WORK/debug" "$(joined network ipc uts pid)"' | del(.hostname)'
is "one that joins the first one's processes sees them" \
    "$(rt run --isolation vm --bundle "$WORK/debug" debug </dev/null 2>&1)" $'1\nroot'

# --- an end by lack of memory is its own ---
make_bundle "$WORK/eater" dd if=/dev/zero of=/dev/null bs=200M count=1
config "$WORK/eater" "$(joined network ipc uts)"' | del(.hostname) | .linux.resources.memory.limit = 33554432'
rt run --isolation vm --bundle "$WORK/eater" eater </dev/null >/dev/null 2>&1
is "what is over its limit is killed" $? 137
is "the others run" "$(status_of first) $(status_of web)" "running running"

# --- limits, signals, the end ---
check "update" rt update --memory 100663296 web
is "reaches it inside" "$(in_container web cat /sys/fs/cgroup/memory.max)" 100663296
is "and nobody else" "$(in_container first cat /sys/fs/cgroup/memory.max)" 268435456
refused "pause of one alone is refused" "lives in the virtual machine of .first" rt pause web
check "pause of the machine" rt pause first
refused "exec in another one is refused then" "paused" rt exec web true
check "resume" rt resume first
check "kill" rt kill web TERM
check "it ends" eventually has_status web stopped
like "as it wanted" "$(cat "$WORK/web.out")" got
check "delete" rt delete web
is "nothing of it is left" "$(ls "$STATE")" first
# A name is free again at once.
check "created again" create_in web "$WORK/web"
is "it waits" "$(status_of web)" created
check "delete of one that waits" rt delete web
echo stay >>"$WORK/containers"
check "another" begin stay "$WORK/client"
check "killed on the host" rt kill stay KILL
check "ends" eventually has_status stay stopped
check "and is deleted" rt delete --force stay

# --- what is refused ---
config "$WORK/client" '(.linux.namespaces[] | select(.type == "network")) |= del(.path)'
refused "with a network of its own" "has its network: join its network namespace" \
    rt create --isolation vm --bundle "$WORK/client" client
config "$WORK/client" "$(joined network)"' | (.linux.namespaces[] | select(.type == "ipc")).path = "/proc/1/ns/ipc"'
refused "with the host's ipc namespace" "is not the ipc namespace of one in the virtual machine" \
    rt create --isolation vm --bundle "$WORK/client" client
config "$WORK/client" "$(joined network ipc mount)"
refused "with the first one's mounts" "mount namespace of one in the virtual machine" \
    rt create --isolation vm --bundle "$WORK/client" client
is "nothing of them is left" "$(ls "$STATE")" first

# --- the end of the machine is that of all in it ---
config "$WORK/web" "$(joined network ipc uts)"
check "another" begin web "$WORK/web"
check "the first one is killed" rt kill first KILL
check "so all are" eventually has_status web stopped
check "delete of one in a machine that is gone" rt delete web
check "delete" rt delete first

# --- Podman's ---
RUNTIME=/usr/local/bin/locule-vm
KIND=locule-vm
. /locule/tests/vm/lib/podman.sh
podman_image localhost/busybox >/dev/null
check "pod create" pod pod create --name both --infra-image localhost/busybox --infra-command "sleep 1000000" \
    --publish 127.0.0.1:8098:80
check "a container in it" pod run --detach --pod both --name served --volume "$WORK/www:/www:ro" localhost/busybox \
    httpd -f -p 80 -h /www
check "another" pod run --detach --pod both --name other localhost/busybox sh -c 'trap "exit 6" TERM; while :; do sleep 1; done'
is "both are in one machine" "$(pod exec other cat /proc/sys/kernel/random/boot_id)" \
    "$(pod exec served cat /proc/sys/kernel/random/boot_id)"
is "on one network" "$(pod exec other wget -q -O - http://127.0.0.1/)" served
check "the published port reaches it" eventually sh -c 'busybox wget -q -O - http://127.0.0.1:8098/ | grep -qx served'
check "one is stopped" pod stop --time 20 other
is "with its exit code" "$(pod_state other ExitCode)" 6
check "and started again" pod start other
is "in the same machine" "$(pod exec other wget -q -O - http://127.0.0.1/)" served
check "pod stop" pod pod stop --time 1 both
check "pod rm" pod pod rm both
done_testing
