#!/bin/bash
# Podman as a user, with the user's own systemd.
. /locule/tests/vm/lib/common.sh
as_user_file
. /locule/tests/vm/lib/podman.sh

is "this runs as the user" "$(id -un)" user
podman_life systemd "$(rootfs)"
podman_life cgroupfs "$(rootfs)"

done_testing
