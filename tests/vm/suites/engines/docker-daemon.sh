#!/bin/bash
# Docker's own network, health checks, restart policy and live-restore: what a container goes through while it runs.
# takes: 100
. /locule/tests/vm/lib/common.sh
. /locule/tests/vm/lib/docker.sh

docker_starts '{"live-restore": true}'
check "a network of its own" docker network create lan
check "a service" docker run --detach --name web --network lan --publish 8080:80 --restart always \
    --health-interval 1s --health-retries 1 --health-timeout 60s --health-cmd 'echo >>/checks; test ! -e /sick' \
    tested sh -c 'mkdir /w; echo $((RANDOM)) >/w/id; (while :; do date; sleep 1; done) & exec httpd -f -p 80 -h /w'
pid=$(state web Pid)
shim=$(ps -o ppid= "$pid" | xargs)
id=$(docker exec web cat /w/id)
answers() { [ "$(busybox wget -q -O - http://127.0.0.1:8080/id)" = "$id" ]; }
check "its published port answers" eventually answers
is "so does its name from another container" "$(docker run --rm --network lan tested wget -q -O - http://web/id)" "$id"

# Health checks are execs: ten of them leave nothing behind.
health() { docker inspect --format '{{.State.Health.Status}}' web; }
health_is() { [ "$(health)" = "$1" ]; }
checked() { [ "$(wc -l <"/proc/$pid/root/checks")" -ge "$1" ]; }
check "healthy" eventually health_is healthy
descriptors() { ls "/proc/$shim/fd" | wc -l; }
few=$(descriptors)
check "ten checks" eventually checked 10
no_more_descriptors() { [ "$(descriptors)" -le "$few" ]; }
check "the shim holds no more descriptors" eventually no_more_descriptors
no_zombies() { ! ps -e -o stat=,ppid= | awk -v shim="$shim" -v init="$pid" '/^Z/ && ($2 == shim || $2 == init)' | grep -q .; }
check "there is no zombie" eventually no_zombies
docker exec web touch /sick
check "unhealthy" eventually health_is unhealthy
docker exec web rm /sick
check "and healthy again" eventually health_is healthy

# The daemon goes and comes; the container does not notice.
check "the daemon restarts" systemctl restart docker
is "the container is alive, in the same process" "$(state web Status) $(state web Pid)" "running $pid"
is "exec" "$(docker exec web cat /w/id)" "$id"
seen=$(docker logs web 2>&1 | wc -l)
logs_go_on() { [ "$(docker logs web 2>&1 | wc -l)" -gt "$seen" ]; }
check "its log goes on" eventually logs_go_on
check "its port answers" eventually answers

kill -KILL "$pid"
restarted() { [ "$(docker inspect --format '{{.RestartCount}} {{.State.Status}}' web)" = "1 running" ]; }
check "SIGKILL of init: restarted, once" eventually restarted
[ "$(state web Pid)" != "$pid" ]
is "as a new process" $? 0
check "docker stop is no reason to restart" docker stop --time 1 web
is "it is exited" "$(state web Status)" exited
check "rm" docker rm web

# compose: a network, a volume, a service that is scaled.
mkdir "$WORK/project"
cat >"$WORK/project/compose.yaml" <<'YAML'
services:
  web:
    image: tested
    runtime: tested
    command: [sh, -c, 'hostname >>/data/names; exec httpd -f -p 80 -h /data']
    volumes: ["data:/data"]
    networks: [inner]
    stop_signal: SIGKILL
volumes: {data: {}}
networks: {inner: {}}
YAML
compose() { docker compose --project-directory "$WORK/project" --progress quiet "$@"; }
check "compose up" compose up --detach
check "scale" compose up --detach --scale web=2 --no-recreate
is "two containers" "$(compose ps --quiet | wc -l)" 2
wrote() { [ "$(compose exec -T web cat /data/names | sort -u | wc -l)" = 2 ]; }
check "share the volume" eventually wrote
is "and the network" "$(compose exec -T --index 2 web wget -q -O - http://project-web-1/names | wc -l)" 2
check "down" compose down --volumes
is "nothing is left of the project" "$(docker ps --all --quiet; docker volume ls --quiet; docker network ls --quiet --filter name=inner)" ""
check "nothing is left of any container" nothing_left

done_testing
