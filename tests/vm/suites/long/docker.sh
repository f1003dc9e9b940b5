#!/bin/bash
# Docker in a machine that boots systemd, with what nesting grants: its daemon as the package starts it, an image, containers
# with networks, names, published ports and limits of their own.
. /locule/tests/vm/lib/common.sh

is_locule || skip_all "machines are locule's"
PATIENCE=300
rt() { timeout -k 5 300 locule "$@"; }
CLEANUPS+=("rt rm --force dock1")
mkdir -p "$WORK/shared"
python3 /locule/tests/vm/lib/image.py "$WORK/shared/tested.tar" docker.io/library/tested:latest

inside() { rt exec dock1 -- sh -ec "$1"; }
booted() { inside 'systemctl is-system-running || true' | grep -qE '^(running|degraded)$'; }
answers() { busybox wget -q -T 30 -O - "http://127.0.0.1:8094/" | grep -q served; }
# Layers cannot be stacked on the machine's own, which are stacked already.
check "a machine with nesting" rt launch --nesting --memory 900M --tmpfs /var/lib/docker --tmpfs /var/lib/containerd \
    -p 8094:8080 -v "$WORK/shared:/srv:ro" host dock1
check "it boots" eventually booted
check "Docker's daemon starts" inside 'systemctl start docker || { journalctl --no-pager -n 15 -u docker -u containerd; exit 1; }'
is "with layers of the kernel's" "$(inside 'docker info --format "{{.Driver}}"')" overlay2
check "an image is loaded" inside 'docker load --quiet --input /srv/tested.tar'
like "a container runs, with a network of its own" "$(inside 'docker run --rm tested ip -4 addr show eth0 2>&1')" 'inet 172\.'

check "a service, limited" inside "docker network create lan && docker run --detach --name web --network lan --publish 8080:80 \
    --memory 64m --cpus 0.5 --pids-limit 20 tested sh -c 'mkdir /w; echo served >/w/index.html; exec httpd -f -p 80 -h /w'"
is "its limits hold in its control group" \
    "$(inside 'docker exec web sh -c "cd /sys/fs/cgroup && cat memory.max cpu.max pids.max" | xargs')" "67108864 50000 100000 20"
above "below the machine's own" "$(find "/sys/fs/cgroup$(sed -n 's/^0:://p' "/proc/$(rt state dock1 | jq .pid)/cgroup" | sed 's,/init.scope$,,')" \
    -name 'docker-*' | wc -l)" 0
is "another container finds it by name" "$(inside 'docker run --rm --network lan tested wget -q -O - http://web/ 2>&1')" served
check "its port, published by the machine as well, answers on the host" eventually answers
check "the service is removed" inside 'docker rm --force web && docker network rm lan'
check "the machine stops" rt stop dock1
check "it is removed" rt rm dock1
done_testing
