#!/bin/bash
# Images between locule and Podman: what either writes, the other reads, runs, and finds unchanged.
. /locule/tests/vm/lib/common.sh
is_locule || skip_all "images are locule's"
. /locule/tests/vm/lib/images.sh
. /locule/tests/vm/lib/podman.sh

made
id=$(id_of app:2) digest=$(manifest app:2)
for format in docker oci; do
    check "$format: written" img save --format "$format" --output "$WORK/ours.tar" app:2
    check "$format: podman load" pod load --quiet --input "$WORK/ours.tar"
    is "$format: id and digest stay" "$(pod image inspect --format 'sha256:{{.Id}} {{.Digest}}' docker.io/library/app:2)" \
        "$id $digest"
    [ $format = docker ] || break
    check "$format: removed again" pod rmi docker.io/library/app:2
    # As a reader that knows Docker's form alone.
    check "$format: podman pull docker-archive" pod pull --quiet "docker-archive:$WORK/ours.tar"
    is "$format: the id stays" "$(pod image inspect --format 'sha256:{{.Id}}' docker.io/library/app:2)" "$id"
    check "$format: removed again" pod rmi docker.io/library/app:2
done
facts "$(pod image mount docker.io/library/app:2)" >"$WORK/theirs"
is "what Podman unpacked is the tree" "$(diff "$WORK/wanted" "$WORK/theirs")" ""
check "unmounted" pod image unmount docker.io/library/app:2
is "a container of it" "$(pod run --rm --network none docker.io/library/app:2 sh -c "$LOOK" 2>&1)" "$SEEN"

for format in docker oci; do
    check "$format: podman save" pod save --quiet --format "$format-archive" --output "$WORK/theirs.tar" \
        docker.io/library/app:2
    is "$format: imported" "$(img import "$WORK/theirs.tar" "podman:$format")" "docker.io/library/podman:$format"
    is "$format: the id stays" "$(id_of "podman:$format")" "$id"
    rm "$WORK/theirs.tar"
done
same "the tree is the same" podman:oci
is "the store is whole" "$(img verify)" ""
done_testing
