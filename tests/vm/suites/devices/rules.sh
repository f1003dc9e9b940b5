#!/bin/bash
# devices: what the rules say can be made, read and written, by init and by exec, and no more.
. /locule/tests/vm/lib/common.sh

modprobe loop
truncate -s 1M "$WORK/disk"
loop=$(losetup --find --show "$WORK/disk")
CLEANUPS+=("losetup -d $loop")
minor=$((0x$(stat -c %T "$loop")))

# with_rules DIR RULES: MKNOD allowed and a tmpfs to make nodes in; RULES after "deny all"
with_rules() {
    config "$1" '.process.capabilities |= map_values(. + ["CAP_MKNOD"])
        | .mounts += [{destination: "/tmp", type: "tmpfs", source: "tmpfs", options: ["dev", "mode=1777"]}]
        | .linux.resources.devices = [{allow: false, access: "rwm"}] + $rules' --argjson rules "$2"
}
inside() { rt exec "$1" sh -c "$2" 2>&1; }
read_it="dd if=/tmp/loop of=/dev/null bs=512 count=1"
write_it="dd if=/dev/zero of=/tmp/loop bs=512 count=1 conv=notrunc"
make_it="mknod /tmp/loop b 7 $minor"

make_bundle "$WORK/deny"
with_rules "$WORK/deny" '[]'
check "a container starts" start deny "$WORK/deny"
# Every runtime lets nodes be made (packages unpack some): opening is what counts.
check "any node may be made" rt exec deny sh -c "$make_it"
like "what no rule allows cannot be read" "$(inside deny "$read_it")" "not permitted"
like "nor written" "$(inside deny "$write_it")" "not permitted"
for node in null zero full random urandom tty; do
    check "/dev/$node is there and may be opened" \
        rt exec deny sh -c "[ -c /dev/$node ] && { [ $node = tty ] || head -c 1 </dev/$node; } >/dev/null"
done
delete deny

make_bundle "$WORK/make"
with_rules "$WORK/make" "[{\"allow\": true, \"type\": \"b\", \"major\": 7, \"minor\": $minor, \"access\": \"m\"}]"
start make "$WORK/make"
check "m allows to make it" rt exec make sh -c "$make_it"
like "and not to read it" "$(inside make "$read_it")" "not permitted"
delete make

make_bundle "$WORK/read"
with_rules "$WORK/read" "[{\"allow\": true, \"type\": \"b\", \"major\": 7, \"minor\": $minor, \"access\": \"rm\"}]"
start read "$WORK/read"
check "rm allows to make and read it" rt exec read sh -c "$make_it && $read_it"
like "and not to write it" "$(inside read "$write_it")" "not permitted"
like "nor read its neighbour" "$(inside read "mknod /tmp/next b 7 $((minor + 1)); cat /tmp/next")" "not permitted"
like "nor a character device of that number" "$(inside read "mknod /tmp/char c 7 $minor; cat /tmp/char")" "not permitted"
delete read

make_bundle "$WORK/wild"
with_rules "$WORK/wild" '[{"allow": true, "type": "b", "major": 7, "access": "rwm"}]'
start wild "$WORK/wild"
check "no minor number means all" rt exec wild sh -c "$make_it && $read_it && $write_it && mknod /tmp/other b 7 99"
delete wild

make_bundle "$WORK/order"
with_rules "$WORK/order" \
    "[{\"allow\": true, \"access\": \"rwm\"}, {\"allow\": false, \"type\": \"b\", \"major\": 7, \"minor\": $minor, \"access\": \"w\"}]"
start order "$WORK/order"
check "a later rule takes away from an earlier one" rt exec order sh -c "$make_it && $read_it"
like "only what it names" "$(inside order "$write_it")" "not permitted"
delete order

make_bundle "$WORK/node" sh -c "stat -c '%F %t %T %a %u %g' /dev/mine; $read_it 2>/dev/null; dd if=/dev/mine of=/dev/null count=1 2>&1"
with_rules "$WORK/node" "[{\"allow\": true, \"type\": \"b\", \"major\": 7, \"minor\": $minor, \"access\": \"rwm\"}]"
config "$WORK/node" '.linux.devices = [{path: "/dev/mine", type: "b", major: 7, minor: $minor, fileMode: 432, uid: 5, gid: 6}]
    | .process.capabilities |= map_values(. + ["CAP_DAC_OVERRIDE"])' --argjson minor "$minor"
output=$(foreground node "$WORK/node")
like "linux.devices makes the node" "$output" "^block special file 7 [0-9a-f]+ 660 5 6"
like "and init may use it" "$output" "1\+0 records in"

done_testing
