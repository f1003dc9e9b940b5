#!/bin/bash
# What Podman's user reads when something cannot be: the runtime's sentence, and the right exit code.
. /locule/tests/vm/lib/common.sh
. /locule/tests/vm/lib/podman.sh

root=$(rootfs)
run() { pod run --rm --network none "$@"; }
gives "a command that is not there" 127 "$(says 'locule: exec: "nothing": executable file not found in \$PATH')" \
    run --rootfs "$root" nothing
gives "a command that may not be executed" 126 "$(says 'locule: exec: "/etc/passwd": permission denied')" run --rootfs "$root" /etc/passwd
# Both come to light at start, where Podman looks at no words; crun says them in the container's output.
if is_locule; then
    printf '#!/bin/nothing\n' >"$WORK/script"
    printf 'text' >"$WORK/text"
    chmod 0755 "$WORK/script" "$WORK/text"
    gives "a script without its interpreter" 126 "$(says 'exec /script: .*(interpreter|#!)')" \
        run -v "$WORK/script:/script" --rootfs "$root" /script
    gives "a file that is no program" 126 "$(says 'exec /text: .*ENOEXEC')" run -v "$WORK/text:/text" --rootfs "$root" /text
fi
gives "a working directory that is not there" 126 'workdir "/none" does not exist' \
    run --workdir /none --rootfs "$root" true
gives "a mount source that is not there" 125 "/nonesuch: no such file" run -v /nonesuch:/mnt --rootfs "$root" true
# Podman looks first; what goes away after that meets the runtime.
mkdir "$WORK/source"
pod create --name gone --network none -v "$WORK/source:/mnt" --rootfs "$root" true >/dev/null
rmdir "$WORK/source"
gives "one that went away" 125 "$(says "locule: creating [0-9a-f]{64}: mounting $WORK/source on /mnt: .*ENOENT")" pod start gone
gives "a limit above the kernel's" 126 "$(says 'locule: creating .*: setting RLIMIT_NOFILE to .*EPERM.*: the hard limit')" \
    run --ulimit nofile=9999999:9999999999 --rootfs "$root" true
gives "a sysctl that does not exist" 127 "$(says 'locule: creating .*: setting sysctl net/nosuch .*this kernel has no such sysctl')" \
    run --sysctl net.nosuch=1 --rootfs "$root" true
gives "a device without permission" 1 "Operation not permitted" \
    run --cap-add mknod --tmpfs /new:dev --rootfs "$root" sh -c 'mknod /new/loop b 7 0 && head -c 1 /new/loop'
if lacks runc; then
    skip "memory that is too little" "runc says something about BPF"
else
    gives "memory that is too little" 126 "$(says 'killed(, most likely)? for lack of memory: raise linux.resources.memory.limit')" \
        run --memory 1k --rootfs "$root" true
fi
if is_locule; then
    pod run --detach --name still --network none --rootfs "$root" sleep 1000 >/dev/null
    gives "a checkpoint" 125 "checkpoint" pod container checkpoint still
    is "leaves it running" "$(pod_state still Status)" running
fi

done_testing
