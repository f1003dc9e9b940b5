#!/bin/bash
# docs/guides/kubernetes.md: the node's part command by command, the cluster's documents parsed.
. /locule/tests/vm/lib/common.sh

CLEANUPS+=("mv /etc/containerd/config.toml.before-locule /etc/containerd/config.toml && systemctl restart containerd")
guide kubernetes
