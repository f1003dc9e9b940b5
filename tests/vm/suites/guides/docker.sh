#!/bin/bash
# docs/guides/docker.md, as a newcomer follows it.
# takes: 160
. /locule/tests/vm/lib/common.sh
. /locule/tests/vm/lib/docker.sh

# No reader restarts the daemon four times in the minute that systemd counts its starts in.
mkdir -p /run/systemd/system/docker.service.d
printf '[Unit]\nStartLimitIntervalSec=0\n' >/run/systemd/system/docker.service.d/starts.conf
systemctl daemon-reload
CLEANUPS+=("docker_ends" "rm -rf /etc/systemd/system/docker.service.d /run/systemd/system/docker.service.d"
    "systemctl daemon-reload")
guide docker
