#!/bin/bash
# The monitor boots this machine's own kernel: consoles, ends told apart, the guest's own words for what it runs on,
# and how often a quiet boot comes back to the monitor.
# takes: 90
. /locule/tests/vm/lib/vm.sh

BOOT=${LOCULE_BOOT:-/usr/local/libexec/locule/boot}
check "there is a driver (make test-vm builds it)" test -x "$BOOT"
[ -x "$BOOT" ] || exit 1

# A quiet boot with console, balloon and random bytes: about 110, half of them what a driver asks of its console.
MOST_EXITS=150

# few_exits WHAT SAID: a boot had few exits
few_exits() {
    local exits
    exits=$(sed -n 's/^exits: \([0-9]*\).*/\1/p' <<<"$2")
    above "$1: exits are counted" "${exits:-0}" 1
    above "$1: less than $MOST_EXITS exits, here ${exits:-none}" "$MOST_EXITS" "${exits:-9999}"
}

mkdir -p "$WORK"/root/{bin,dev,proc,sys,modules}
cp /bin/busybox "$WORK/root/bin/"
# The kernel has the network's driver and what that needs as modules, in this order.
for module in failover net_failover virtio_net; do
    find "/lib/modules/$(uname -r)" -name "$module.ko*" -exec busybox xzcat {} \; >"$WORK/root/modules/$module.ko"
done
cat >"$WORK/root/init" <<'INIT'
#!/bin/busybox sh
b=/bin/busybox
$b mount -t proc proc /proc; $b mount -t sysfs sys /sys; $b mount -t devtmpfs dev /dev
echo "WORD cpus=$($b nproc) clock=$($b cat /sys/devices/system/clocksource/clocksource0/current_clocksource)"
echo "YEAR $($b date +%Y)"
$b dmesg | $b grep -E 'kvm-clock|kvm-guest|Hypervisor detected|Hyper-V|IPI hypercalls|remote TLB|enlightened|stealtime'
case "$($b cat /proc/cmdline)" in
*test=channel*)
    exec 3<>/dev/vport0p1; echo hello >&3; read -r said <&3; echo "CHANNEL $said"
    for module in failover net_failover virtio_net; do $b insmod /modules/$module.ko; done
    $b ifconfig eth0 10.9.7.2 up
    $b ping -c 1 -W 60 10.9.7.1 ;;
*test=reset*) $b reboot -f ;;
*test=panic*) echo c >/proc/sysrq-trigger ;;
esac
$b poweroff -f
INIT
chmod +x "$WORK/root/init"
(cd "$WORK/root" && find . | cpio -o -H newc 2>/dev/null) >"$WORK/initramfs"
KERNEL=$WORK/vmlinux
check "the machine's kernel is unpacked" "$BOOT" extract "$(ls /boot/vmlinuz-* | head -1)" "$KERNEL"

# boot WORDS [OPTION VALUE...]: the guest's console, then the end and the exits; in a network namespace with a tap device
boot() {
    local words=$1
    shift
    ip netns exec vmboot timeout -k 5 400 "$BOOT" "$@" --append "quiet $words" --initramfs "$WORK/initramfs" "$KERNEL" 2>&1
}

CLEANUPS+=("ip netns del vmboot")
ip netns add vmboot
ip -n vmboot tuntap add tap0 mode tap
ip -n vmboot addr add 10.9.7.1/24 dev tap0
ip -n vmboot link set tap0 up

said=$(boot "" --vcpus 1)
like "one processor reaches its first program" "$said" 'WORD cpus=1 clock=kvm-clock'
like "power-off is told" "$said" 'ending: PowerOff'
few_exits "a quiet boot" "$said"

# The memory that it could be given is one device more, without a driver before that.
said=$(boot "" --growth 1024)
like "memory that can grow: it boots" "$said" 'WORD cpus=1'
few_exits "memory that can grow" "$said"

# The kernel tells of steal time to those alone who ask for its messages of that kind.
said=$(boot 'test=channel dyndbg="file arch/x86/kernel/kvm.c +p"' --vcpus 2 --channel echo --tap tap0)
like "two processors" "$said" 'WORD cpus=2 clock=kvm-clock'
like "the channel answers" "$said" 'CHANNEL hello'
like "a tap device that is there from the start carries packets both ways" "$said" '1 packets received'
for words in 'eoi\(\) replaced with kvm_guest_apic_eoi_write' 'setup PV IPIs' 'setup pv remote TLB flush' \
    'setup PV sched yield' 'PV spinlocks enabled' 'stealtime: cpu 1' 'Hypervisor detected: KVM'; do
    like "the guest says: $words" "$said" "$words"
done

said=$(boot test=reset --identity hyperv --vcpus 2)
like "Hyper-V: the guest believes it" "$said" 'Hypervisor detected: Microsoft Hyper-V'
like "Hyper-V: its clock" "$said" 'clock=hyperv_clocksource_tsc_page'
like "Hyper-V: no word of KVM" "$(grep -c kvm-guest <<<"$said")" '^0$'
like "a reset is told" "$said" 'ending: Reset'
few_exits "Hyper-V" "$said"
like "Hyper-V: the guest knows the time" "$said" "YEAR $(date +%Y)"

# The compressed image.
KERNEL=$(ls /boot/vmlinuz-* | head -1)
said=$(boot test=panic --identity none)
like "no identity: it boots" "$said" 'WORD cpus=1'
like "no identity: no word of a hypervisor" "$(grep -cE 'Hypervisor|kvm-' <<<"$said")" '^0$'
like "a panic is told" "$said" 'ending: Panic'
few_exits "no identity" "$said"
like "no identity: the guest knows the time" "$said" "YEAR $(date +%Y)"

# Guests of a few instructions. The hostile one moves devices about, writes garbage into every register and queue, and
# powers off; with every device there is, and the filters on.
"$BOOT" fault "$WORK/fault"
like "a triple fault is told" "$(timeout -k 5 100 "$BOOT" --memory 32 "$WORK/fault" 2>&1)" 'ending: TripleFault'
truncate -s 64K "$WORK/disk"
mkdir "$WORK/share" "$WORK/sockets"
"$BOOT" hostile 1 "$WORK/hostile"
said=$(timeout -k 5 400 "$BOOT" --memory 32 --channel echo --tree "share=$WORK/share" --disk "$WORK/disk" \
    --vsock "$WORK/sockets" --serial /dev/null --filter yes "$WORK/hostile" 2>&1 | tr -d '\0' | tail -n 5)
like "a hostile guest ends as it wants to, and no other way" "$said" 'ending: PowerOff'
like "it did what it could" "$said" 'exits: [0-9]{4,}'
refused "too little memory is refused" 'more memory' "$BOOT" --memory 32 "$WORK/vmlinux"
refused "what is no kernel is refused" 'neither an elf file nor a bzimage' "$BOOT" "$WORK/initramfs"
done_testing
