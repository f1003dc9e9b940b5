#!/bin/bash
# cpu: quota throttles, shares become a weight, a cpuset binds.
. /locule/tests/vm/lib/common.sh

make_bundle "$WORK/cpu" sh -c 'while :; do :; done'
config "$WORK/cpu" '.linux.resources.cpu = {quota: 10000, period: 50000, shares: 1024, cpus: "0", mems: "0"}'
check "a limited container starts" start cpu "$WORK/cpu"
is "quota and period are cpu.max" "$(in_cgroup cpu cpu.max)" "10000 50000"
throttled() { [ "$(in_cgroup cpu cpu.stat | field nr_throttled)" -gt 3 ]; }
check "a busy loop is throttled" eventually throttled
is "cpuset.cpus is set" "$(in_cgroup cpu cpuset.cpus)" 0
is "cpuset.mems is set" "$(in_cgroup cpu cpuset.mems)" 0
is "the container sees its one CPU" "$(rt exec cpu nproc)" 1

# The quadratic conversion keeps 1024 shares at the kernel's default weight; older releases were linear.
if is_locule; then wanted=100; else wanted=39; fi
is "1024 shares" "$(in_cgroup cpu cpu.weight)" $wanted
delete cpu
for pair in 2:1 262144:10000; do
    config "$WORK/cpu" ".process.args = [\"sleep\", \"1000\"] | .linux.resources.cpu = {shares: ${pair%:*}}"
    start "w${pair%:*}" "$WORK/cpu"
    is "${pair%:*} shares" "$(in_cgroup "w${pair%:*}" cpu.weight)" "${pair#*:}"
    delete "w${pair%:*}"
done

config "$WORK/cpu" '.linux.resources.cpu = {quota: -1}'
start free "$WORK/cpu"
is "quota -1 is no limit" "$(in_cgroup free cpu.max)" "max 100000"
delete free

if lacks runc; then
    skip "burst" "newer than this release"
    skip "idle" "newer than this release"
else
    config "$WORK/cpu" '.linux.resources.cpu = {quota: 20000, period: 100000, burst: 10000}'
    start burst "$WORK/cpu"
    is "burst" "$(in_cgroup burst cpu.max.burst)" 10000
    delete burst
    config "$WORK/cpu" '.linux.resources.cpu = {idle: 1}'
    start idle "$WORK/cpu"
    is "idle" "$(in_cgroup idle cpu.idle)" 1
    delete idle
fi

config "$WORK/cpu" '.linux.resources.cpu = {cpus: "4095"}'
refused "a CPU that is not there is refused" "cpuset|4095|no space|invalid|range" start none "$WORK/cpu"
check "and leaves no container" gone none

done_testing
