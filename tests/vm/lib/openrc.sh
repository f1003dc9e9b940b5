#!/bin/sh
# A Debian whose init is sysvinit's and whose services are OpenRC's: openrc.sh TARBALL MIRROR
set -eu
mmdebstrap --variant=minbase --quiet --include=sysvinit-core,openrc,initscripts,cron,procps,iproute2,netbase \
    --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
    --customize-hook='printf "auto lo\niface lo inet loopback\n" >"$1/etc/network/interfaces" 2>/dev/null || true' \
    trixie "$1" "$2"
