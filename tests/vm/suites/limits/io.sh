#!/bin/bash
# io: rates on a device and weights, with and without the scheduler that has its own.
. /locule/tests/vm/lib/common.sh

truncate -s 8M "$WORK/disk"
loop=$(losetup --find --show "$WORK/disk")
CLEANUPS+=("losetup -d $loop")
major=$((0x$(stat -c %t "$loop"))) minor=$((0x$(stat -c %T "$loop")))
make_bundle "$WORK/io"
config "$WORK/io" '.linux.resources.blockIO = {
    throttleReadBpsDevice: [{major: $major, minor: $minor, rate: 1048576}],
    throttleWriteBpsDevice: [{major: $major, minor: $minor, rate: 2097152}],
    throttleReadIOPSDevice: [{major: $major, minor: $minor, rate: 30}],
    throttleWriteIOPSDevice: [{major: $major, minor: $minor, rate: 40}]}' \
    --argjson major $major --argjson minor $minor
check "a limited container starts" start io "$WORK/io"
is "four rates are io.max" "$(in_cgroup io io.max)" "$major:$minor rbps=1048576 wbps=2097152 riops=30 wiops=40"
delete io

config "$WORK/io" '.linux.resources.blockIO = {weight: 500}'
if [ ! -e /sys/module/bfq ]; then
    start weight "$WORK/io"
    is "a weight is spread over io.weight's range" "$(in_cgroup weight io.weight)" "default 4950"
    delete weight
    modprobe bfq
fi
start bfq "$WORK/io"
like "with BFQ it is io.bfq.weight" "$(in_cgroup bfq io.bfq.weight)" "^(default )?500$"
delete bfq
rmmod bfq

done_testing
