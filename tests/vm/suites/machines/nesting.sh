#!/bin/bash
# Containers in a machine: locule's own, and Podman's, with what nesting grants and no more.
. /locule/tests/vm/lib/common.sh

is_locule || skip_all "machines are locule's"
# Where machines are by default: one set of directories has the networks of a host.
LOCULE_DATA=/var/lib/locule
rt() { timeout -k 5 120 locule "$@"; }
CLEANUPS+=("rt rm --force nest1" "rt rm --force plain1")
mkdir -p "$WORK/shared"
cp /bin/busybox "$WORK/shared/"
python3 /locule/tests/vm/lib/image.py "$WORK/shared/tested.tar" docker.io/library/tested:latest

check "a machine with nesting" rt launch --nesting --memory 512M --tmpfs /var/lib/containers -v "$WORK/shared:/srv:ro" host nest1 -- sleep 10000
inside() { rt exec nest1 -- sh -ec "$1"; }

check "a bundle is made inside" inside 'mkdir -p /root/box/rootfs/bin && cp /srv/busybox /root/box/rootfs/bin/sh && cd /root/box &&
    locule spec && sed -i "s/\"terminal\": true/\"terminal\": false/; s/\"sh\"$/\"sh\", \"-c\", \"echo nested as \$((40 + 2))\"/" config.json'
# The first process is no system and stays in the machine's own cgroup, so that none with limits can be made below it.
is "nested locule runs it" "$(inside 'locule --cgroup-manager disabled run --bundle /root/box box 2>&1')" "nested as 42"
# What the host keeps in /etc/containers is not the machine's.
inside 'mkdir -p /etc/containers; echo "{\"default\":[{\"type\":\"insecureAcceptAnything\"}]}" > /etc/containers/policy.json'
check "Podman loads an image inside" inside 'podman load --quiet --input /srv/tested.tar'
is "and runs it" "$(inside 'podman run --rm --network none docker.io/library/tested:latest echo from podman 2>&1 | tail -1')" "from podman"
like "with a network of its own" "$(inside 'podman run --rm docker.io/library/tested:latest ip -4 addr show eth0 2>&1')" "inet 10\."

check "a machine without" rt launch host plain1 -- sleep 10000
refused "makes no containers" "not permitted|permission denied" rt exec plain1 -- unshare --user --map-root-user true
done_testing
