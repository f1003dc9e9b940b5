#!/bin/bash
# What a user of `ctr` reads when the request is wrong: the runtime's sentence, through shim and daemon, and a failure.
. /locule/tests/vm/lib/common.sh
. /locule/tests/vm/lib/ctr.sh

root=$(rootfs)
# tells NAME REGEX OPTION... -- COMMAND...: the run fails, says so in one line, and leaves nothing
tells() {
    local name=$1 pattern=$2 options=() output code
    shift 2
    while [ "$1" != -- ]; do
        options+=("$1")
        shift
    done
    shift
    output=$(run --rm "${options[@]}" --rootfs "$root" test-wrong "$@" 2>&1)
    code=$?
    echo "# $output"
    like "$name: $code" "$code $output" "^1 .*$pattern"
    is "$name: nothing is left" "$(left test-wrong)" ""
    remove_all
}
printf '#!/bin/sh\n' >"$root/bin/plain"
tells "a program that is not there" 'nothing.*executable file not found in \$PATH' -- nothing
tells "a path that is not there" '/bin/nothing.*no such file or directory' -- /bin/nothing
tells "a file that is none" '/bin/plain.*permission denied' -- /bin/plain
tells "a directory" '/etc.*(permission denied|is a directory)' -- /etc
tells "a mount whose source is not there" '/nonexistent.*no such file or directory' \
    --mount type=bind,src=/nonexistent,dst=/mnt,options=rbind:ro -- true
tells "memory for nothing" 'memory|limit' --memory-limit 4096 -- true

# As runc: images and pods name working directories that nobody made.
is "a working directory that is not there is made" "$(run --rm --cwd /no/where --rootfs "$root" test-wrong pwd)" /no/where
tells "but not in /proc" '/proc/nowhere.*no such file or directory' --cwd /proc/nowhere -- true

run --rm --rootfs "$root" test-wrong sh -c 'mknod /tmp/kmsg c 1 11 && : </tmp/kmsg' >"$WORK/err" 2>&1
is "a device that is not allowed" $? 1
like "is not permitted" "$(cat "$WORK/err")" "not permitted"

run --detach --rootfs "$root" test-live sleep 1000
refused "exec: a program that is not there" 'nothing.*executable file not found in \$path' in_task test-live nothing
refused "exec: a file that is none" '/bin/plain.*permission denied' in_task test-live /bin/plain
refused "exec: a working directory that is not there" '/nowhere.*no such file or directory' ctr tasks exec --exec-id cwd --cwd /nowhere test-live true

done_testing
