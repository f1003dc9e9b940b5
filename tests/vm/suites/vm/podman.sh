#!/bin/bash
# Podman with `locule-vm` as its runtime: a network of its own with a published port, ids of its own, READY from the payload.
. /locule/tests/vm/lib/vm.sh
RUNTIME=/usr/local/bin/locule-vm
KIND=locule-vm
ln -sf locule $RUNTIME
. /locule/tests/vm/lib/podman.sh

podman_image localhost/busybox >/dev/null
for file in /etc/subuid /etc/subgid; do
    cp $file "$WORK/$(basename $file)"
    CLEANUPS=("cp '$WORK/$(basename $file)' $file" "${CLEANUPS[@]}")
    echo containers:2000000:1000000 >>$file
done

mkdir -m 0777 "$WORK/volume" "$WORK/www"
echo served >"$WORK/www/index.html"
service_manager "$WORK/manager" "$WORK/heard"
export NOTIFY_SOCKET=$WORK/manager
check "run --detach --userns=auto --publish" pod run --detach --name web --userns=auto:size=2000 --publish 127.0.0.1:8099:80 \
    --sdnotify=container --volume "$WORK/volume:/volume" --volume "$WORK/www:/www:ro" localhost/busybox \
    sh -c "$SAY"'httpd -p 80 -h /www; say "READY=1\nSTATUS=serving\nMAINPID=1"; exec sleep 10000'
unset NOTIFY_SOCKET
like "it runs in a machine" "$(pod exec web cat /proc/cmdline)" 'root=locule'
like "whose monitor has ids of its own" "$(tr -s ' ' <"/proc/$(pod_state web Pid)/uid_map")" '^ 0 [1-9][0-9]{5,} 2000$'
like "with the address that Podman gave" "$(pod exec web ip -o addr show eth0)" \
    "inet $(pod inspect --format '{{.NetworkSettings.IPAddress}}' web)/"
check "the published port reaches it" eventually sh -c 'busybox wget -q -O - http://127.0.0.1:8099/ | grep -qx served'
check "its word has reached the service manager" eventually grep -q 'READY=1' "$WORK/heard"
like "as it was said" "$(cat "$WORK/heard")" 'STATUS=serving'
is "but for what is not its to say" "$(grep -cx 'MAINPID=1' <(tr ' ' '\n' <"$WORK/heard"))" 0
check "a file in a volume" pod exec web touch /volume/made
like "belongs to the mapped user" "$(stat -c %u "$WORK/volume/made")" '^[1-9][0-9]{5,}$'
pod exec web sh -c 'exit 9'
is "exec: the exit code" $? 9
check "stop" pod stop --time 1 web
check "rm" pod rm web

done_testing
