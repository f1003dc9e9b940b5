# What the files about virtual machines source, after which containers can be them: checks and containers of lib/common.sh
# with the patience that boots take.
. /locule/tests/vm/lib/common.sh
is_locule || skip_all "virtual machines are locule's"
[ -e /dev/kvm ] || modprobe kvm_amd 2>/dev/null || modprobe kvm_intel 2>/dev/null
[ -e /dev/kvm ] || skip_all "no KVM"

# Emulated in an emulation, a boot takes half a minute and more.
PATIENCE=300
LIMIT=400
