#!/bin/bash
# Images between locule and Podman: what either writes, the other reads, runs, and finds unchanged.
. /locule/tests/vm/lib/common.sh
is_locule || skip_all "images are locule's"
. /locule/tests/vm/lib/images.sh
. /locule/tests/vm/lib/podman.sh

made
id=$(id_of app:2) digest=$(manifest app:2)
check "an OCI archive is written" img save --format oci --output "$WORK/ours.tar" app:2
check "podman load" pod load --quiet --input "$WORK/ours.tar"
is "id and digest stay" "$(pod image inspect --format 'sha256:{{.Id}} {{.Digest}}' docker.io/library/app:2)" "$id $digest"
facts "$(pod image mount docker.io/library/app:2)" >"$WORK/theirs"
is "what Podman unpacked is the tree" "$(diff "$WORK/wanted" "$WORK/theirs")" ""
check "unmounted" pod image unmount docker.io/library/app:2
is "a container of it" "$(pod run --rm --network none docker.io/library/app:2 sh -c "$LOOK" 2>&1)" "$SEEN"

check "podman save, as an OCI archive" pod save --quiet --format oci-archive --output "$WORK/theirs.tar" \
    docker.io/library/app:2
is "imported" "$(img import "$WORK/theirs.tar" theirs:oci)" "docker.io/library/theirs:oci"
is "the id stays" "$(id_of theirs:oci)" "$id"
same "the tree is the same" theirs:oci

check "removed" pod rmi docker.io/library/app:2
check "a Docker archive is written" img save --output "$WORK/ours.tar" app:2
# As a reader that knows Docker's form alone.
got=$(pod pull --quiet "docker-archive:$WORK/ours.tar")
is "podman pull docker-archive: the id stays" "sha256:$got" "$id"
like "and the name" "$(pod image inspect --format '{{.RepoTags}}' "$got")" '/app:2\]'
is "podman save, from a pipe" "$(pod save --quiet "$got" | img import - theirs:docker)" docker.io/library/theirs:docker
is "the id stays" "$(id_of theirs:docker)" "$id"
is "the store is whole" "$(img verify)" ""
done_testing
