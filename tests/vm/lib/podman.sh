# What Podman's tests share: a storage of their own, the runtime under test, checks of a container's life.
# Sourced after common.sh. A file NAME-user.sh is a link to NAME.sh: the same checks, as the ordinary user.

case $0 in *-user.sh) as_user_file ;; esac
program=$(command -v "$RUNTIME")
driver=systemd
# What the guide has users write; Podman knows crun's and runc's abilities by itself.
export CONTAINERS_CONF_OVERRIDE=$WORK/containers.conf
cat >"$CONTAINERS_CONF_OVERRIDE" <<CONF
[engine]
runtime_supports_json = ["crun", "runc", "$KIND"]
runtime_supports_nocgroup = ["crun", "$KIND"]
CONF

# The first options of every call: nothing of one file is seen by the next.
podman_options=(--root "$WORK/storage" --runroot "$WORK/runroot" --runtime "$program")
pod() { timeout -k 5 180 podman "${podman_options[@]}" --cgroup-manager "$driver" "$@" </dev/null; }
pod_state() { pod inspect --format "{{.State.$2}}" "$1"; }
pod_is() { [ "$(pod_state "$1" Status)" = "$2" ]; }
CLEANUPS+=("pod pod rm --all --force --time 0" "pod rm --all --force --time 0" "pod volume rm --all --force"
    "pod unshare rm -rf '$WORK/storage' '$WORK/runroot'" "rm -rf '$WORK/storage' '$WORK/runroot'")

is_root() { [ "$(id -u)" = 0 ]; }

# podman_cgroup NAME: the folder that limits a running container
podman_cgroup() {
    local path
    path=$(sed -n 's/^0:://p' "/proc/$(pod_state "$1" Pid)/cgroup")
    # crun puts the process one level below a systemd scope.
    echo "/sys/fs/cgroup${path%/container}"
}

# podman_image NAME: loads busybox under that name, without a tag
podman_image() {
    python3 /locule/tests/vm/lib/image.py "$WORK/image.tar" "$1:latest" && pod load --quiet --input "$WORK/image.tar"
    rm -f "$WORK/image.tar"
}

# gives NAME CODE REGEX COMMAND...: the command ends with CODE, and what it says on standard error matches
gives() {
    local name=$1 wanted=$2 pattern=$3 code
    shift 3
    "$@" >/dev/null 2>"$WORK/err"
    code=$?
    if [ $code != "$wanted" ]; then
        not_ok "$name" "exit $code, wanted $wanted: $(cat "$WORK/err")"
    else
        like "$name: $wanted" "$(cat "$WORK/err")" "$pattern"
    fi
}
# What only locule is held to: the others have words of their own.
says() { if is_locule; then echo "$1"; else echo .; fi; }
