#!/bin/bash
# docs/guides/vm.md, as a newcomer types it.
. /locule/tests/vm/lib/common.sh
CLEANUPS+=("locule delete --force own" "locule delete --force shared" "rm -rf /var/tmp/vm-guide")
guide vm
