# What suites that drive Docker share: a daemon with the runtime as its default, and a busybox image.
# Sourced after common.sh; owns /etc/docker/daemon.json while the suite runs.

# docker_starts [JSON PAIR...]: the daemon as its package starts it, with more settings if given
docker_starts() {
    local path
    path=$(command -v "$RUNTIME")
    mkdir -p /etc/docker
    # A default called runc is the daemon's own name, with the runc of PATH.
    jq -n --arg path "$path" --arg data "$WORK/docker" '$ARGS.named | {"data-root": .data,
        "runtimes": {"tested": {"path": .path}}, "default-runtime": "tested"} + '"${1:-{\}}" \
        >/etc/docker/daemon.json
    DOCKER_SINCE=$(date '+%F %T')
    CLEANUPS+=("docker_ends")
    check "dockerd starts with the runtime as its default" systemctl start docker
    python3 /locule/tests/vm/lib/image.py "$WORK/tested.tar" docker.io/library/tested:latest
    check "an image is loaded" docker load --quiet --input "$WORK/tested.tar"
    rm "$WORK/tested.tar"
}

docker_ends() {
    # shellcheck disable=SC2046 # ids are words
    docker rm --force --volumes $(docker ps --all --quiet)
    docker network prune --force
    systemctl stop docker.service docker.socket containerd.service
    rm -f /etc/docker/daemon.json
    # The daemon leaves its rules behind, and the policy to forward nothing else: other engines' bridges need that.
    iptables --policy FORWARD ACCEPT
    nft flush ruleset
    ip link delete docker0
}

# run ARGUMENT...: a container to its end, without a network
run() { timeout -k 5 180 docker run --network none "$@"; }

# state NAME FIELD
state() { docker inspect --format "{{.State.$2}}" "$1"; }
state_is() { [ "$(state "$1" "$2")" = "$3" ]; }

# No entry of a container is left below the state root that all runtimes of the daemon share.
nothing_left() { [ -z "$(ls /run/docker/runtime-runc/moby)" ]; }

# What the daemon complained of since it was started.
complaints() {
    journalctl --unit docker --since "$DOCKER_SINCE" --output cat --grep 'level=(warning|error)' --no-pager |
        grep level=
}
