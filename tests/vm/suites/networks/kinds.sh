#!/bin/bash
# Networks on Debian's kernel, whose parts are modules: ports of both families, limits, and the kinds that the host lane
# lacks: ipvlan, and hardware that is given away and comes back.
. /locule/tests/vm/lib/common.sh
. /locule/tests/vm/lib/networks.sh

outside
check "a network" locule network create --ipv6 --uplink up0 web
container "a container with a port of both protocols" web one -p 8080:80 -p 8080:80/udp --up 50mbit
one4=$IP4 one6=$IP6
container "a neighbour" web two
check "neighbours reach each other" reaches two one "$one4" 80
check "by IPv6 too" reaches two one "$one6" 80
check "the port from outside" reaches out one $HOST 8080
check "by IPv6" reaches out one $HOST6 8080
check "from the host itself" reaches host one 127.0.0.1 8080
check "from the neighbour" reaches two one $HOST 8080
check "from itself, by IPv6" reaches one one $HOST6 8080
check "the outside from a container" reaches two out $OUTSIDE 80
check "by IPv6" reaches two out $OUTSIDE6 80
like "under the host's address" "$(ask two tcp $OUTSIDE 80)" "out .*ffff:c000:0201"
check "a rate for all, live" locule network set --up 100mbit --down 100mbit web
check "a guarantee" locule network set --up-min 20mbit web one
pool=$(ip -o link | grep -o 'lcu-[0-9a-f]*' | head -n 1)
like "is a class" "$(tc class show dev "$pool")" "rate 20Mbit ceil 50Mbit"
check "through which its packets go" reaches one out $OUTSIDE 80
above "and are counted" "$(tc -j -s class show dev "$pool" | jq '[.[] | select(.rate == 2500000) | .stats.packets // .packets][0]')" 0
check "all that is there is whole" locule network check one
check "gc has nothing to do" test -z "$(locule network gc)"

check "ipvlan" locule network create --kind ipvlan --parent up0 --subnet 192.0.2.0/24 --gateway $OUTSIDE \
    --range 192.0.2.100-192.0.2.110 --subnet 2001:db8::/64 --range 2001:db8::100-2001:db8::1ff lan
container "a container on it" lan three
three4=$IP4 three6=$IP6
is "has an address of the range" "$three4 $three6" "192.0.2.100 2001:db8::100"
check "the outside reaches it" reaches out three "$three4" 80
check "by IPv6" reaches out three "$three6" 80
is "it has the host's hardware address" "$(in_ns three cat /sys/class/net/eth0/address)" "$(cat /sys/class/net/up0/address)"
container "a second one" lan four
check "reaches the first" reaches four three "$three4" 80
refused "a hardware address of its own" "hardware address" \
    locule network connect --namespace /run/netns/t-two --mac 02:00:00:00:00:01 lan two
check "it is taken off" locule network disconnect lan three
is "and is gone" "$(in_ns three ip -o link show eth0 2>/dev/null)" ""

# The machine's only card, which these words come through: no driver of a virtual link, so the kernel gives it back by
# itself. Whatever happens, it is eth0 with its address again in the end.
before=$(cat /sys/class/net/eth0/address)
card_back() {
    local name
    name=$(ip -o link | grep "$before" | sed 's/^[0-9]*: \([^:@]*\).*/\1/')
    [ "$name" = eth0 ] || { ip link set "$name" down; ip link set "$name" name eth0; }
    ip link set eth0 up
    ip address replace 10.0.2.15/24 dev eth0
    ip route replace default via 10.0.2.2
}
given_away() {
    locule network connect --namespace /run/netns/t-five --interface wan0 wire five >/dev/null || return
    in_ns five cat /sys/class/net/wan0/address
    ! ip link show eth0 >/dev/null 2>&1 && echo "the host has it no more"
    if [ "$1" = disconnect ]; then
        locule network disconnect wire five
    else
        # shellcheck disable=SC2046 # pids are words
        kill $(ip netns pids t-five)
        ip netns delete t-five
        locule network gc >/dev/null
    fi
    cat /sys/class/net/eth0/address || ip -o link
}
CLEANUPS+=("card_back")
check "hardware" locule network create --kind device --parent eth0 --subnet 10.99.0.0/24 wire
namespace five
got=$(given_away disconnect)
card_back
is "is moved into a container, and given back" "$got" "$before
the host has it no more
$before"
got=$(given_away die)
card_back
is "a container that dies does not take it along, and gc gives it its name again" "$got" "$before
the host has it no more
$before"
refused "not the container's" "does not exist" ip link show wan0

done_testing
