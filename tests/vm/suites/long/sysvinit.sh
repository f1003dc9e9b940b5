#!/bin/bash
# A machine whose first process is sysvinit, which is asked to end by its pipe.
# needs: debian-13-inits
. /locule/tests/vm/lib/common.sh
. /locule/tests/vm/lib/inits.sh

boots init reboot poweroff /sbin/init
done_testing
