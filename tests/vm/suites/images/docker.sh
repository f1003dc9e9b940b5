#!/bin/bash
# Images between locule and Docker: what either writes, the other reads, runs, and finds unchanged.
. /locule/tests/vm/lib/common.sh
is_locule || skip_all "images are locule's"
. /locule/tests/vm/lib/images.sh
. /locule/tests/vm/lib/docker.sh

docker_starts
made
id=$(id_of app:2)
check "written" img save --output "$WORK/ours.tar" app:2 app:1
like "docker load" "$(docker load --input "$WORK/ours.tar" 2>&1)" 'Loaded image: app:2'
is "the id stays" "$(docker image inspect --format '{{.Id}}' app:2)" "$id"
check "both are there" docker image inspect app:1
is "a container of it" "$(run --rm app:2 sh -c "$LOOK" 2>&1)" "$SEEN"
check "docker save" docker save --output "$WORK/theirs.tar" app:2
check "what was loaded is removed" img rm app:1 app:2
is "imported" "$(img import "$WORK/theirs.tar")" "docker.io/library/app:2"
is "the id stays" "$(id_of app:2)" "$id"
same "the tree is the same" app:2
is "from a pipe" "$(docker save app:2 | img import - piped:1)" "docker.io/library/piped:1"
is "the store is whole" "$(img verify)" ""
done_testing
