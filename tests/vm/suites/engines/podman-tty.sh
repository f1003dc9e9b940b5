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

# Does what it reads; no line editor draws between the words. $((6*7)) tells an answer from the terminal's echo.
shell='trap "echo interrupted" INT; echo ready; while read -r line; do eval "$line"; done'
# ^P ^Q are the default detach keys.
gives "run -it, leave by the detach keys" 0 '^$' \
    at 'wait:ready "type:echo it-is-$((6*7))\r" wait:it-is-42 "type:\x10\x11"' \
    run -it --name seat --network none --rootfs "$root" sh -c "$shell"
is "the container lives on" "$(pod_state seat Status)" running
gives "a second session has a terminal of its own" 3 '^$' \
    at 'wait:ready "type:tty\r" wait:/dev/pts/1 "type:exit 3\r"' exec -it seat sh -c "$shell"
gives "attach finds the first: resize, interrupt, end" 0 '^$' \
    at '"type:echo again-$((6*7))\r" wait:again-42 size:40x120 "type:until test \"$(stty size)\" = \"40 120\"; do sleep 1; done; echo resized-$((6*7))\r"
        wait:resized-42 "type:echo sleep-$((6*7)); sleep 1000\r" wait:sleep-42 "type:\x03" wait:interrupted "type:exit 5\r"' attach seat
is "whose exit code is kept" "$(pod_state seat ExitCode)" 5
gives "other detach keys" 0 '^$' \
    at 'wait:ready "type:\x04"' run -it --rm --detach-keys ctrl-d --name keys --network none --rootfs "$root" sh -c "$shell"

done_testing
