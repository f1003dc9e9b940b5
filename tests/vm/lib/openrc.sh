#!/bin/sh
# A Debian whose init is sysvinit's and whose services are OpenRC's, set up as LXC's templates do: a power failure ends
# it, its terminal is the console, OpenRC is told that it is in a container. openrc.sh TARBALL MIRROR
set -eu
mmdebstrap --variant=minbase --quiet --include=sysvinit-core,openrc,cron,procps \
    --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
    --dpkgopt='path-exclude=/usr/share/locale/*' \
    --customize-hook='sed -i -e "s,^pf::.*,pf::powerwait:/sbin/init 0," -e "/getty/d" "$1/etc/inittab"' \
    --customize-hook='echo "1:2345:respawn:/sbin/getty --noclear --keep-baud console 115200 linux" >>"$1/etc/inittab"' \
    --customize-hook='echo "rc_sys=\"lxc\"" >>"$1/etc/rc.conf"' \
    trixie "$1" "$2"
