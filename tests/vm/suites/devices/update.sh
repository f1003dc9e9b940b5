#!/bin/bash
# devices: rules change under a running container (locule and crun; runc ignores them).
. /locule/tests/vm/lib/common.sh

! lacks runc || skip_all "device rules are fixed at create"
modprobe loop
truncate -s 1M "$WORK/disk"
loop=$(losetup --find --show "$WORK/disk")
CLEANUPS+=("losetup -d $loop")
minor=$((0x$(stat -c %T "$loop")))
make_bundle "$WORK/live"
config "$WORK/live" '.process.capabilities |= map_values(. + ["CAP_MKNOD"])
    | .mounts += [{destination: "/tmp", type: "tmpfs", source: "tmpfs", options: ["dev", "mode=1777"]}]
    | .linux.resources.devices = [{allow: false, access: "rwm"}]'
check "a container starts" start live "$WORK/live"

try() { rt exec live sh -c "[ -e /tmp/loop ] || mknod /tmp/loop b 7 $minor; dd if=/tmp/loop of=/dev/null count=1" 2>&1; }
rules() { rt update --resources - live <<<"{\"devices\": [{\"allow\": false, \"access\": \"rwm\"}$1]}"; }
rule="{\"allow\": true, \"type\": \"b\", \"major\": 7, \"minor\": $minor, \"access\": \"rm\"}"
like "denied at first" "$(try)" "not permitted"
check "update allows it" rules ", $rule"
like "allowed now" "$(try)" "1\+0 records in"
check "the default devices stay allowed" rt exec live sh -c "head -c 1 /dev/zero >/dev/null"
check "an update of something else" rt update --pids-limit 99 live
like "leaves the rules alone" "$(try)" "1\+0 records in"
check "update takes it away" rules ""
like "denied again" "$(try)" "not permitted"

done_testing
