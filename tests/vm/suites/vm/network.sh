#!/bin/bash
# The interface that somebody put into the network namespace is the machine's, with its addresses and routes; also one
# that came after `create`.
. /locule/tests/vm/lib/vm.sh

CLEANUPS+=("ip netns del vmnet" "ip link del vmnet0")
ip netns add vmnet
make_bundle "$WORK/net" sh -c 'ip -o addr show eth0; cat /sys/class/net/eth0/address; ip route; ping -c 1 -W 20 10.9.8.1'
config "$WORK/net" '.process.capabilities |= with_entries(.value += ["CAP_NET_RAW"])
    | .linux.namespaces |= map(if .type == "network" then .path = "/run/netns/vmnet" else . end)'
echo net >>"$WORK/containers"
create_net() { rt create --isolation vm --bundle "$WORK/net" net </dev/null >"$WORK/output" 2>&1; }
check "create, without an interface" create_net
ip link add vmnet0 type veth peer name eth0 netns vmnet
ip addr add 10.9.8.1/24 dev vmnet0
ip link set vmnet0 up
ip -n vmnet addr add 10.9.8.2/24 dev eth0
ip -n vmnet link set eth0 mtu 1400 up
ip -n vmnet route add default via 10.9.8.1
mac=$(ip netns exec vmnet cat /sys/class/net/eth0/address)
check "start" rt start net
check "the workload ends" eventually has_status net stopped
like "it has the address" "$(cat "$WORK/output")" '10\.9\.8\.2/24'
check "the hardware address" grep -qx "$mac" "$WORK/output"
check "the route" grep -q 'default via 10.9.8.1' "$WORK/output"
check "and reaches the host" grep -q '1 packets received' "$WORK/output"
check "delete" rt delete net
check "the taps are gone with the machine" eventually sh -c '! ip -n vmnet link | grep -q lcvm'

done_testing
