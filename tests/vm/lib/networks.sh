# What suites of networks share: an outside, containers that are namespaces, and who reaches whom.
# Sourced after common.sh. Owns the namespaces called t-NAME and the interface up0 while a file runs.

# A network namespace has one set of tables, and so the claims of its default place, which machines of other files have used.
locule network gc >/dev/null 2>&1
OUTSIDE=192.0.2.2 HOST=192.0.2.1 OUTSIDE6=2001:db8::2 HOST6=2001:db8::1

# in_ns NAME COMMAND...
in_ns() { ip netns exec "t-$1" "${@:2}"; }

# namespace NAME: a new one that answers `NAME FROM` on port 80, TCP and UDP, of both families
namespace() {
    ip netns add "t-$1" && in_ns "$1" ip link set lo up || return
    local reply="echo $1 \"\$SOCAT_PEERADDR\""
    in_ns "$1" socat TCP6-LISTEN:80,ipv6only=0,reuseaddr,fork "SYSTEM:$reply" >/dev/null 2>&1 &
    in_ns "$1" socat UDP6-RECVFROM:80,ipv6only=0,reuseaddr,fork "SYSTEM:$reply" >/dev/null 2>&1 &
    eventually listens "$1"
}
listens() { [ "$(in_ns "$1" ss -Hltun 'sport = 80' | wc -l)" -ge 2 ]; }

# ask FROM PROTOCOL ADDRESS PORT: the answer; FROM is a namespace or `host`
ask() {
    local first=()
    [ "$1" = host ] || first=(ip netns exec "t-$1")
    "${first[@]}" python3 /locule/tests/vm/lib/ask.py "$2" "$3" "$4" 2>/dev/null
}

# reaches FROM TO ADDRESS PORT: TO is who must answer, by both protocols
reaches() {
    local protocol answer
    for protocol in tcp udp; do
        answer=$(ask "$1" $protocol "$3" "$4")
        [[ $answer == "$2 "* ]] || { echo "$protocol from $1 to $3 port $4: '$answer'"; return 1; }
    done
}

# cannot_reach FROM ADDRESS PORT
cannot_reach() {
    local to=$2
    [[ $to != *:* ]] || to="[$to]"
    local answer
    answer=$(timeout 5 ip netns exec "t-$1" socat -t 2 - "TCP:$to:$3,connect-timeout=2" </dev/null 2>/dev/null)
    [ -z "$answer" ] || { echo "$answer"; return 1; }
}

# outside: a namespace that the host reaches by up0
outside() {
    namespace out
    ip link add up0 type veth peer name down0 netns t-out
    ip address add "$HOST/24" dev up0
    ip address add "$HOST6/64" dev up0 nodad
    ip link set up0 up
    in_ns out ip address add "$OUTSIDE/24" dev down0
    in_ns out ip address add "$OUTSIDE6/64" dev down0 nodad
    in_ns out ip link set down0 up
    CLEANUPS+=("networks_end")
}

# container WHAT NETWORK NAME [OPTION...]: a check that it is connected; sets IP4 and IP6
container() {
    local what=$1 got
    shift
    [ -e "/run/netns/t-$2" ] || namespace "$2"
    IP4='' IP6=''
    if ! got=$(locule network connect --format json --namespace "/run/netns/t-$2" "${@:3}" "$1" "$2" 2>&1); then
        not_ok "$what" "$got"
        return 1
    fi
    ok "$what"
    IP4=$(jq -r '[.interfaces[0].addresses[] | select(contains(":") | not)][0] // "" | split("/")[0]' <<<"$got")
    IP6=$(jq -r '[.interfaces[0].addresses[] | select(contains(":"))][0] // "" | split("/")[0]' <<<"$got")
}

networks_end() {
    local name
    for name in $(ip netns list | grep -o '^t-[^ ]*'); do
        # shellcheck disable=SC2046 # pids are words
        kill $(ip netns pids "$name") 2>/dev/null
        ip netns delete "$name"
    done
    locule network gc
    # shellcheck disable=SC2046 # names are words
    locule network rm $(locule network ls --quiet)
    ip link delete up0
    nft delete table inet locule
    nft delete table bridge locule
}
