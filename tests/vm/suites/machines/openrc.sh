#!/bin/bash
# A machine whose first process is OpenRC's own init, which the image does not name as its /sbin/init.
# needs: debian-13-inits
. /locule/tests/vm/lib/common.sh
. /locule/tests/vm/lib/inits.sh

boots openrc-init 'openrc-shutdown -r now' 'openrc-shutdown -p now' /sbin/openrc-init
done_testing
