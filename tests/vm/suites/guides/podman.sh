#!/bin/bash
# docs/guides/podman.md, as a newcomer types it.
# takes: 160
. /locule/tests/vm/lib/common.sh

CLEANUPS+=("rm -f /etc/containers/containers.conf.d/locule.conf" "podman rm --all --force --time 0" 
    "runuser -u user -- env XDG_RUNTIME_DIR=/run/user/1000 systemctl --user reset-failed")
guide podman
