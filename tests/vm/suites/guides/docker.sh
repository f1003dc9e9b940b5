#!/bin/bash
# docs/guides/docker.md, as a newcomer follows it.
. /locule/tests/vm/lib/common.sh
. /locule/tests/vm/lib/docker.sh

CLEANUPS+=("docker_ends" "rm -rf /etc/systemd/system/docker.service.d" "systemctl daemon-reload")
guide docker
