#!/bin/bash
# locule's networks beside others' rules: Docker's with its policy to forward nothing, a firewall that rejects what it does
# not know. What docs/guides/networks.md says about them is done here to the letter.
. /locule/tests/vm/lib/common.sh
. /locule/tests/vm/lib/docker.sh
. /locule/tests/vm/lib/networks.sh

guide=/locule/docs/guides/networks.md
# said REGEX: the guide's line with these words, to be run
said() { grep -E "^    $1" $guide; }

outside
# Docker forwards nothing else only where it was the one who switched forwarding on: another suite's networks may have.
sysctl -qw net.ipv4.ip_forward=0 net.ipv6.conf.all.forwarding=0
docker_starts
check "Docker publishes a port of its own" docker run --detach --name web --publish 8081:80 tested \
    sh -c 'while :; do echo docker | nc -l -p 80; done'
like "it forwards nothing that it does not know" "$(iptables -S FORWARD)" "-P FORWARD DROP"
docker_answers() { [ "$(ask out tcp $HOST 8081)" = docker ]; }
check "its port is reached from outside" eventually docker_answers

check "a network beside it" locule network create --ipv6 --uplink up0 web
container "a container with a port" web one -p 8080:80 -p 8080:80/udp
one4=$IP4
container "a neighbour" web two
check "the host reaches the port" reaches host one 127.0.0.1 8080
check "the outside does not, as the guide says" cannot_reach out $HOST 8080
check "nor does the neighbour reach its neighbour" cannot_reach two "$one4" 80
commands=$(said 'iptables -I DOCKER-USER')
check "what the guide says is done" bash -ec "$commands"
check "the outside reaches the port" reaches out one $HOST 8080
check "by IPv6" reaches out one $HOST6 8080
check "the neighbour reaches its neighbour" reaches two one "$one4" 80
check "and the port" reaches two one $HOST 8080
check "a container reaches the outside" reaches two out $OUTSIDE 80
in_ns out ip route add "$one4/32" via $HOST
check "nobody outside reaches a container unasked" cannot_reach out "$one4" 80
check "Docker's port is reached as before" eventually docker_answers
others=$(iptables -S | sort; iptables -t nat -S | sort)
check "gc" locule network gc
container "a container comes" web three -p 8082:80
check "and goes" locule network disconnect web three
is "Docker's rules are what they were" "$(iptables -S | sort; iptables -t nat -S | sort)" "$others"
check "Docker starts again" systemctl restart docker
check "and our port is where it was" reaches out one $HOST 8080
docker rm --force web >/dev/null 2>&1
docker_ends 2>/dev/null
locule network gc >/dev/null

# As firewalld has it: an admin's table that rejects what is in none of its zones.
nft -f - <<'NFT'
table inet admin {
    set trusted { type ifname; }
    chain forward {
        type filter hook forward priority filter + 10; policy accept;
        ct state established,related accept
        iifname @trusted accept
        oifname @trusted accept
        reject
    }
}
NFT
CLEANUPS+=("nft delete table inet admin")
check "a firewall that does not know the bridge keeps the outside out" cannot_reach out $HOST 8080
check "once it does" nft add element inet admin trusted '{ lb-web }'
check "the port is reached" reaches out one $HOST 8080
check "by IPv6" reaches out one $HOST6 8080

done_testing
