#!/bin/bash
# Podman's terminals: a session at the keyboard, detach keys, attach, resize, a second session by exec.
. /locule/tests/vm/lib/common.sh
. /locule/tests/vm/lib/podman.sh

root=$(rootfs)
# at STEPS ARGUMENT...: podman with a keyboard
at() {
    local steps=$1
    shift
    timeout -k 5 180 python3 /locule/tests/vm/lib/terminal.py "$steps" podman "${podman_options[@]}" "$@"
}

# ^P ^Q are the default detach keys; $((6*7)) tells what a shell answered from what the terminal echoed.
gives "run -it, leave by the detach keys" 0 '^$' \
    at 'wait:# "type:echo it-is-$((6*7))\r" wait:it-is-42 "type:\x10\x11"' \
    run -it --name seat --network none --rootfs "$root" sh
is "the container lives on" "$(pod_state seat Status)" running
gives "a second session has its own terminal and size" 3 '^$' \
    at '"wait:# " size:33x101 "type:tty; stty size\r" wait:/dev/pts/1 "wait:33 101" "type:exit 3\r"' exec -it seat sh
gives "attach finds the first one, of its new size, and its shell's end is podman's" 5 '^$' \
    at 'size:40x120 "type:stty size\r" "wait:40 120" "type:sleep 1000\r" type:\x03 "type:exit 5\r"' attach seat
is "which is kept" "$(pod_state seat ExitCode)" 5
gives "other detach keys" 0 '^$' \
    at '"wait:# " type:\x04' run -it --rm --detach-keys ctrl-d --name keys --network none --rootfs "$root" sh

done_testing
