#!/bin/bash
# docker build: the old builder through containerd's shim, and BuildKit, which calls the runtime by itself.
# takes: 90
. /locule/tests/vm/lib/common.sh
. /locule/tests/vm/lib/docker.sh

# The daemon's own BuildKit runs `runc` of PATH unless this names another; the script keeps its calls.
cat >"$WORK/runtime" <<SH
#!/bin/sh
echo "\$*" >>$WORK/calls
exec $(command -v "$RUNTIME") "\$@"
SH
chmod +x "$WORK/runtime"
mkdir -p /run/systemd/system/docker.service.d
printf '[Service]\nEnvironment=DOCKER_BUILDKIT_RUNC_COMMAND=%s\n' "$WORK/runtime" \
    >/run/systemd/system/docker.service.d/test.conf
CLEANUPS=("rm -r /run/systemd/system/docker.service.d" "systemctl daemon-reload")
systemctl daemon-reload
docker_starts
mkdir "$WORK/project"
cat >"$WORK/project/Dockerfile" <<'DOCKER'
FROM tested
ENV GREETING=hello
WORKDIR /made
RUN echo "$GREETING" >file && id -u >owner
USER 1000
RUN id -u >/tmp/user
CMD ["sh", "-c", "cat /made/file /made/owner /tmp/user"]
DOCKER
printf 'FROM tested\nRUN echo broken; exit 3\n' >"$WORK/project/broken"
build() { docker build --network none --file "$WORK/project/$1" --tag "$2" "$WORK/project"; }

export DOCKER_BUILDKIT=0
check "the old builder" build Dockerfile old
is "what it built" "$(run --rm old | xargs)" "hello 0 1000"
refused "a failing step is named, with its code" 'exit 3.* returned a non-zero code: 3' build broken never

export DOCKER_BUILDKIT=1
check "BuildKit" build Dockerfile new
is "what it built" "$(run --rm new | xargs)" "hello 0 1000"
like "by the runtime's run --keep" "$(cat "$WORK/calls")" "run --bundle [^ ]+ --keep [a-z0-9]+"
refused "a failing step is named, with its code" 'exit code: 3' build broken never
check "nothing is left of the containers" nothing_left
bundles() { find "$WORK/docker/buildkit/executor" -name config.json; }
is "nor of BuildKit's" "$(bundles)$("$RUNTIME" list --quiet 2>/dev/null)" ""

done_testing
