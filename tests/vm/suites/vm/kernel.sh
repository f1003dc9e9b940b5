#!/bin/bash
# The kernel that `locule vm kernel build` made (tests/vm/kernel brings it) beside the distribution's: a machine starts with
# it, and has what a container needs and a socket to the host.
. /locule/tests/vm/lib/vm.sh
SMALL=$(ls /var/lib/locule/kernels/vmlinux-* 2>/dev/null | head -n 1)
[ -n "$SMALL" ] || skip_all "no kernel was built (make test-kernel does)"
CLEANUPS+=("$RUNTIME vm kernel use auto")
BOOT=${LOCULE_BOOT:-/usr/local/libexec/locule/boot}

like "it is listed with the others" "$("$RUNTIME" vm kernel ls)" "${SMALL##*/vmlinux-}"
version=${SMALL##*/vmlinux-}
check "vm kernel use" "$RUNTIME" vm kernel use "$SMALL"
like "it is the chosen one" "$("$RUNTIME" vm kernel ls | grep '^\*')" "$version"

make_bundle "$WORK/small" sh -c 'uname -r; echo word | socat -t 200 - VSOCK-CONNECT:2:52 2>/dev/null
    free -m | grep -c Mem; cat /sys/fs/cgroup/memory.max; touch /data/made && echo written; exit 7'
with_host_programs "$WORK/small"
mkdir -p "$WORK/data"
config "$WORK/small" '.annotations["org.locule.vm.vsock"] = "true" | .linux.resources.memory.limit = 67108864
    | .mounts += [{destination: "/data", source: $data, type: "bind", options: ["rbind", "rw"]}]' --arg data "$WORK/data"
echo small >>"$WORK/containers"
create_small() { rt create --isolation vm --bundle "$WORK/small" small </dev/null >"$WORK/output" 2>&1; }
check "create" create_small
socat "UNIX-LISTEN:$STATE/small/vsock/sock_52,fork" EXEC:cat </dev/null >/dev/null 2>&1 &
CLEANUPS+=("kill $!")
check "the host listens" eventually test -S "$STATE/small/vsock/sock_52"
check "start" rt start small
check "it ends" eventually has_status small stopped
is "all of it went as it should" "$(cat "$WORK/output")" "$version"$'\nword\n1\n67108864\nwritten'
check "the host sees the file" test -e "$WORK/data/made"
check "delete" rt delete small

# The monitor alone, with each kernel in turn. The small one knows no initramfs, so the root is by virtio-fs.
check "there is a driver" test -x "$BOOT"
mkdir -p "$WORK/root/bin" "$WORK/root/dev" "$WORK/root/proc"
cp /bin/busybox "$WORK/root/bin/"
printf '#!/bin/busybox sh\necho FIRST\n/bin/busybox poweroff -f\n' >"$WORK/root/init"
chmod +x "$WORK/root/init"
tree=()
for name in bin dev proc init; do tree+=(--tree "$name=$WORK/root/$name"); done
"$BOOT" extract "$(ls /boot/vmlinuz-* | head -1)" "$WORK/vmlinux"
# boot KERNEL: what it says, with the milliseconds until the first program did before that
boot() {
    local begun line
    begun=$(date +%s%3N)
    timeout -k 5 400 "$BOOT" --append quiet "${tree[@]}" "$1" 2>&1 | while read -r line; do
        [[ $line != *FIRST* ]] || line="FIRST after $(($(date +%s%3N) - begun)) ms"
        echo "$line"
    done
}
# Each driver that sets its device up costs some thirty exits; the small kernel has all of them built in.
for kernel in "$WORK/vmlinux" "$SMALL"; do
    said=$(boot "$kernel")
    like "${kernel##*/} reaches the first program" "$said" 'FIRST after [0-9]+ ms'
    exits=$(sed -n 's/^exits: \([0-9]*\).*/\1/p' <<<"$said")
    echo "# ${kernel##*/}: $(stat -c %s "$kernel") bytes, $(grep -o 'FIRST.*' <<<"$said"), $exits exits"
    above "and comes back to the monitor less than 320 times" 320 "${exits:-320}"
done
done_testing
