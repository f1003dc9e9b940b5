#!/bin/bash
# docs/guides/containerd.md, command by command.
. /locule/tests/vm/lib/common.sh

CLEANUPS+=(
    'for id in $(ctr tasks list -q); do ctr tasks delete --force $id; done'
    'for id in $(ctr containers list -q); do ctr containers delete $id; done'
    'for id in $(ctr snapshots list | grep -oE "^[^ ]+-remap"); do ctr snapshots remove $id; done'
)
guide containerd
