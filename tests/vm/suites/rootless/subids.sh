#!/bin/bash
# rootless: a whole range of ids from /etc/subuid, by newuidmap.
. /locule/tests/vm/lib/common.sh

as_user_file
first=$(awk -F: '$1 == "user" {print $2}' /etc/subuid)
make_bundle "$WORK/ids"
config "$WORK/ids" '.linux.uidMappings = [{containerID: 0, hostID: 1000, size: 1}, {containerID: 1, hostID: $first, size: 65535}]
    | .linux.gidMappings = .linux.uidMappings
    | .process.user = {uid: 33, gid: 34, additionalGids: [35]}' --argjson first "$first"
groups="34 35"
if lacks runc; then
    # This release refuses them although newgidmap allows setgroups, and keeps root's group instead.
    config "$WORK/ids" 'del(.process.user.additionalGids)'
    groups="34 0"
fi
check "a container starts" start ids "$WORK/ids"
is "two ranges are mapped" "$(rt exec ids cat /proc/self/uid_map | awk '{print $1, $2, $3}' | paste -sd,)" \
    "0 1000 1,1 $first 65535"
is "it runs as another user" "$(rt exec ids sh -c 'id -u; id -g; id -G' | paste -sd' ')" "33 34 $groups"
is "which is a subordinate one outside" "$(stat -c %u "/proc/$(pid_of ids)")" $((first + 32))
is "exec as root inside" "$(rt exec --user 0:0 ids id -u)" 0
mkdir "$WORK/stolen"
cp "$WORK/ids/config.json" "$WORK/stolen"
config "$WORK/stolen" '.linux.uidMappings[1].hostID = 4000000'
refused "a range that is not the user's is refused" "uidmap|mapping|range|not permitted" start stolen "$WORK/stolen"
check "and leaves nothing" gone stolen

done_testing
