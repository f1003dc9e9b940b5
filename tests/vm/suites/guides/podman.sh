#!/bin/bash
# docs/guides/podman.md, as a newcomer types it.
. /locule/tests/vm/lib/common.sh

CLEANUPS+=("rm -f /etc/containers/containers.conf.d/locule.conf" "podman rm --all --force --time 0")
guide podman
