#!/bin/bash
# podman build with several RUN lines: the files of the image are those that runc makes (crun gives the places of
# mounts modes of its own).
. /locule/tests/vm/lib/common.sh
. /locule/tests/vm/lib/podman.sh

mkdir "$WORK/context"
cp /bin/busybox "$WORK/context/"
cat >"$WORK/context/Containerfile" <<'FILE'
FROM scratch
COPY busybox /bin/busybox
RUN ["/bin/busybox", "--install", "-s", "/bin"]
RUN mkdir -m 1777 /tmp && mkdir -m 0700 /root
ENV WORD=spoken
WORKDIR /srv
RUN echo "$WORD" >word && mkdir -p a/b && ln -s ../word a/link && chmod 4751 word
RUN --mount=type=tmpfs,target=/scratch touch /scratch/x && mkfifo a/fifo && ln word a/b/hard && umask >umask
RUN --network=none test "$(ls /sys/class/net)" = lo
USER 1000:1001
RUN (id -u; id -g; cat /proc/self/uid_map | wc -l; touch /root/x 2>&1) >/tmp/who || true
USER 0
RUN chown -R 5:6 a && rm word && ls /dev >/srv/devices && find /proc/1/fd /sys/fs -maxdepth 1 | wc -l >/dev/null
FILE

# tree NAME: every file of an image with type, mode, owners, links and content
tree() {
    local as=()
    is_root || as=(podman "${podman_options[@]}" unshare)
    "${as[@]}" sh -c 'cd "$(podman "$@")" && find . -printf "%P %y %m %U:%G %n %l\n" | sort &&
        find . -type f | sort | xargs sha256sum' sh "${podman_options[@]}" image mount "$1"
}
build() { pod --runtime "$1" build --quiet --no-cache --tag "$2" "$WORK/context"; }

check "build" build "$program" tested
check "the image runs" pod run --rm --network none tested true
check "build by runc" build runc peer
tree tested >"$WORK/tested" 2>&1
tree peer >"$WORK/peer" 2>&1
above "the image has files" "$(wc -l <"$WORK/tested")" 100
is "they are those of runc's image" "$(diff "$WORK/peer" "$WORK/tested")" ""
like "who RUN ran as" "$(pod run --rm --network none tested cat /tmp/who)" $'^1000\n1001\n'
printf 'FROM tested\nRUN exit 9\n' >"$WORK/context/Containerfile"
gives "a RUN that fails" 9 "exit status 9|exit code 9|status 9" build "$program" failed
printf 'FROM tested\nRUN ["/nothing"]\n' >"$WORK/context/Containerfile"
# The code is buildah's: create failed.
gives "a RUN of nothing" 1 "no such file or directory" build "$program" failed

done_testing
