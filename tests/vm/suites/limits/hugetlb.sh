#!/bin/bash
# hugetlb: huge pages are limited, and reserving more fails at mmap, not with SIGBUS.
. /locule/tests/vm/lib/common.sh

sysctl -qw vm.nr_hugepages=4
CLEANUPS+=("sysctl -qw vm.nr_hugepages=0")
make_bundle "$WORK/huge"
with_host_programs "$WORK/huge"
config "$WORK/huge" '.linux.resources.hugepageLimits = [{pageSize: "2MB", limit: 4194304}]'
check "a limited container starts" start huge "$WORK/huge"
is "limit is hugetlb.2MB.max" "$(in_cgroup huge hugetlb.2MB.max)" 4194304
pages() {
    rt exec huge /usr/bin/python3 -c "
import mmap
m = mmap.mmap(-1, $1 << 21, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x40000)
m[0] = 1
m.close()
print('mapped')" 2>&1
}
is "two pages fit" "$(pages 2)" mapped
if lacks crun; then
    skip "reservations are limited too" "not written"
    skip "three pages are refused" "not written"
else
    is "reservations are limited too" "$(in_cgroup huge hugetlb.2MB.rsvd.max)" 4194304
    like "three pages are refused" "$(pages 3)" "Cannot allocate memory"
fi
make_bundle "$WORK/size"
config "$WORK/size" '.linux.resources.hugepageLimits = [{pageSize: "3MB", limit: 4194304}]'
refused "a page size that the machine has not is refused" "huge|3mb" start size "$WORK/size"

done_testing
