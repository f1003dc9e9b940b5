#!/bin/bash
# Podman's pods and networks: shared namespaces, kube play, a published port on the default network.
# takes: 100
. /locule/tests/vm/lib/common.sh
. /locule/tests/vm/lib/podman.sh

podman_image localhost/busybox >/dev/null
server='mkdir -p /www; echo served >/www/index.html; exec httpd -f -p 8000 -h /www'
answers() { [ "$(busybox wget -T 10 -qO- "http://127.0.0.1:$1/")" = served ]; }
namespace() { readlink "/proc/$(pod_state "$1" Pid)/ns/$2"; }

check "pod create with a published port" pod pod create --name pair --publish 127.0.0.1:8801:8000
check "a container in it" pod run --detach --pod pair --name one localhost/busybox sh -c "$server"
check "another" pod run --detach --pod pair --name two localhost/busybox sleep 1000
is "they share network and IPC" "$(namespace two net) $(namespace two ipc)" "$(namespace one net) $(namespace one ipc)"
check "not the processes" test "$(namespace one pid)" != "$(namespace two pid)"
is "localhost is the pod's" "$(pod exec two wget -qO- http://127.0.0.1:8000/)" served
check "the published port answers on the host" eventually answers 8801
check "pod stop" pod pod stop --time 0 pair
is "the pod ended" "$(pod pod inspect --format '{{.State}}' pair)" Exited
check "pod start" pod pod start pair
check "its port answers again" eventually answers 8801
check "pod rm" pod pod rm --force --time 0 pair

cat >"$WORK/web.yaml" <<YAML
apiVersion: v1
kind: Pod
metadata: {name: web}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: server
    image: localhost/busybox
    command: [sh, -c, "$server"]
    ports: [{containerPort: 8000, hostPort: 8802}]
    resources: {limits: {memory: 64Mi}}
  - name: beside
    image: localhost/busybox
    command: [sleep, "1000"]
    securityContext: {readOnlyRootFilesystem: true, runAsUser: 1000}
YAML
# A user's bridges are wired by pasta from Podman's own run directory, where AppArmor lets it write; here it is another.
is_root && network=() || network=(--network pasta)
check "kube play" pod kube play "${network[@]}" "$WORK/web.yaml"
check "its port answers" eventually answers 8802
is "its limits are there" "$(cat "$(podman_cgroup web-server)/memory.max")" 67108864
is "the second container is what its text says" \
    "$(pod exec web-beside sh -c 'id -u; grep " / " /proc/mounts | grep -c "[ ,]ro,"')" "1000"$'\n'1
check "kube down" pod kube down "$WORK/web.yaml"
is "nothing is left" "$(pod ps --all --quiet)" ""

done_testing
