#!/bin/bash
# AppArmor: a loaded profile binds init and exec, one that is not loaded fails clearly.
. /locule/tests/vm/lib/common.sh

profile() {
    apparmor_parser --replace --skip-cache <<P
profile $1 flags=(attach_disconnected, mediate_deleted) {
    file, capability, mount, umount, signal, unix, ptrace,
    deny /tmp/$2 wl,
}
P
}
[ "$(cat /sys/module/apparmor/parameters/enabled)" = Y ] || skip_all "no AppArmor in this kernel"
profile locule-test-one one || skip_all "the profile does not load"
profile locule-test-two two
CLEANUPS+=("echo -n locule-test-one >/sys/kernel/security/apparmor/.remove")
CLEANUPS+=("echo -n locule-test-two >/sys/kernel/security/apparmor/.remove")
of() { tr -d '\0' <"/proc/$(pid_of "$1")/attr/current"; }

make_bundle "$WORK/armor"
config "$WORK/armor" '.process.apparmorProfile = "locule-test-one"
    | .mounts += [{destination: "/tmp", type: "tmpfs", source: "tmpfs", options: ["mode=1777"]}]'
check "a container with a loaded profile starts" start armor "$WORK/armor"
# Debian attaches a profile of its own to crun, and the two stack.
like "its init has it" "$(of armor)" "^(crun//&)?locule-test-one \((enforce|mixed)\)$"
is "exec has it" "$(rt exec armor cat /proc/self/attr/current)" "locule-test-one (enforce)"
like "what it denies fails" "$(rt exec armor touch /tmp/one 2>&1)" "Permission denied"
check "what it does not deny works" rt exec armor touch /tmp/two
is "exec --apparmor takes another" "$(rt exec --apparmor locule-test-two armor cat /proc/self/attr/current)" \
    "locule-test-two (enforce)"
like "which binds" "$(rt exec --apparmor locule-test-two armor sh -c "echo >/tmp/two" 2>&1)" "Permission denied"

make_bundle "$WORK/none"
config "$WORK/none" '.process.apparmorProfile = "locule-test-nonesuch"'
refused "a profile that is not loaded is refused" "apparmor|attr/" start none "$WORK/none"
if is_locule; then
    like "by name" "$(cat "$WORK/none/output")" "locule-test-nonesuch"
else
    skip "by name" "these releases do not say"
fi
check "and leaves no container" gone none
config "$WORK/none" 'del(.process.apparmorProfile)'
start plain "$WORK/none"
like "without a profile there is none" "$(of plain)" "unconfined"

done_testing
