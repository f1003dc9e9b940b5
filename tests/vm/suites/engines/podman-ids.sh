#!/bin/bash
# User namespaces that Podman asks for: --userns=auto, --uidmap, keep-id, volumes with mapped owners.
. /locule/tests/vm/lib/common.sh
. /locule/tests/vm/lib/podman.sh

podman_image localhost/busybox >/dev/null
mkdir -m 0777 "$WORK/volume"
run() { pod run --rm --network none "$@"; }
map() { tr -s ' ' <"${1:-/dev/stdin}" | sed 's/^ //'; }
owner() { stat -c %u:%g "$WORK/volume/$1"; }

if is_root; then
    for file in /etc/subuid /etc/subgid; do
        cp $file "$WORK/$(basename $file)"
        CLEANUPS=("cp '$WORK/$(basename $file)' $file" "${CLEANUPS[@]}")
        echo containers:2000000:1000000 >>$file
    done
    maps=(--uidmap 0:100000:65536 --gidmap 0:200000:65536)
    like "--userns=auto takes a range of its own" \
        "$(run --userns=auto:size=2000 localhost/busybox cat /proc/self/uid_map | map)" '^0 2[0-9]{6} 2000$'
else
    maps=(--uidmap 0:1:1000 --gidmap 0:2:1000)
    is "--userns=keep-id" "$(run --userns=keep-id localhost/busybox sh -c 'id -u; tail -n +2 /proc/self/uid_map' | map | head -n 2 | tr '\n' ';')" \
        "1000;1000 0 1;"
fi
output=$(run "${maps[@]}" -v "$WORK/volume:/volume" localhost/busybox sh -c 'cat /proc/self/uid_map; id -u; touch /volume/plain')
if is_root; then
    is "--uidmap" "$(echo "$output" | map)" "0 100000 65536"$'\n'0
    is "a file in a volume belongs to the mapped user" "$(owner plain)" 100000:200000
    run "${maps[@]}" -v "$WORK/volume:/volume:idmap" localhost/busybox touch /volume/mapped
    is "a volume with idmap keeps the owners" "$(owner mapped)" 0:0
    if lacks runc; then
        skip "a volume with maps of its own" "runc reads no maps behind idmap="
    else
        run "${maps[@]}" --user 5:6 -v "$WORK/volume:/volume:idmap=uids=@0-5-1;gids=@0-6-1" \
            localhost/busybox touch /volume/own
        is "a volume with maps of its own" "$(owner own)" 0:0
    fi
    touch "$WORK/volume/chown"
    run "${maps[@]}" --user 7:8 -v "$WORK/volume:/volume:U" localhost/busybox touch /volume/asked
    is "a volume that Podman gives away" "$(owner chown) $(owner asked)" "100007:200008 100007:200008"
else
    is "--uidmap" "$(echo "$output" | map)" "0 1 1000"$'\n'0
    is "a file in a volume belongs to the first subordinate user" "$(owner plain)" 100000:100001
fi

done_testing
