#!/bin/bash
# containerd's `ctr` with `locule-vm` as its program: a task's life in a machine of its own.
. /locule/tests/vm/lib/vm.sh
. /locule/tests/vm/lib/ctr.sh

ln -sf locule /usr/local/bin/locule-vm
program=/usr/local/bin/locule-vm
image docker.io/library/busybox:latest

check "run --detach" run --detach --memory-limit 67108864 docker.io/library/busybox:latest test-vm \
    sh -c 'trap "exit 5" TERM; while :; do sleep 1; done'
check "it runs" eventually task_is test-vm RUNNING
like "in a machine" "$(in_task test-vm cat /proc/cmdline)" 'root=locule'
in_task test-vm sh -c 'exit 4'
is "exec: the exit code" $? 4
is "exec: standard input" "$(echo through | in_task test-vm cat)" through
refused "exec of nothing" "executable file not found|no such file" in_task test-vm nothing
check "pause" ctr tasks pause test-vm
is "it is paused" "$(task_status test-vm)" PAUSED
check "resume" ctr tasks resume test-vm
like "metrics are the machine's whole cost" "$(ctr tasks metrics test-vm)" 'memory.usage +[0-9]{7}'
check "kill" ctr tasks kill -s SIGTERM test-vm
check "it stops" eventually task_is test-vm STOPPED
like "delete tells the exit code" "$(ctr tasks delete test-vm 2>&1)" "exit code 5"
check "the container is deleted" ctr containers delete test-vm
is "it left nothing" "$(left test-vm)" ""

# A terminal, in the foreground, with the exit code.
said=$(script -qec "ctr run --tty --runc-binary $program --env PATH=/bin --rm docker.io/library/busybox:latest test-tty \
    sh -c 'tty; exit 3'" /dev/null </dev/null)
is "run --tty gives its exit code" $? 3
like "and a terminal" "$said" '/dev/(pts/|console)'
is "and leaves nothing" "$(ctr containers list -q | grep -x test-tty)$(left test-tty)" ""

done_testing
