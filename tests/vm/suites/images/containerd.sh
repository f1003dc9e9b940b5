#!/bin/bash
# Images between locule and containerd (`ctr`): what either writes, the other reads, runs, and finds unchanged.
. /locule/tests/vm/lib/common.sh
is_locule || skip_all "images are locule's"
. /locule/tests/vm/lib/images.sh
. /locule/tests/vm/lib/ctr.sh

made
name=docker.io/library/app:2
id=$(id_of app:2) digest=$(manifest app:2)
CLEANUPS+=("ctr images remove $name docker.io/library/app:1")
for format in docker oci; do
    check "$format: written" img save --format "$format" --output "$WORK/ours.tar" app:2 app:1
    check "$format: ctr images import" ctr images import "$WORK/ours.tar"
    is "$format: the digest stays" "$(ctr images list "name==$name" | awk 'NR == 2 { print $3 }')" "$digest"
    [ $format = oci ] || check "$format: removed again" ctr images remove --sync "$name"
done
mkdir "$WORK/theirs"
check "mounted" ctr images mount "$name" "$WORK/theirs"
facts "$WORK/theirs" >"$WORK/got"
check "unmounted" ctr images unmount --rm "$WORK/theirs"
is "what containerd unpacked is the tree" "$(diff "$WORK/wanted" "$WORK/got")" ""
is "a container of it" "$(run --rm "$name" test-images sh -c "$LOOK" 2>&1)" "$SEEN"

check "ctr images export" ctr images export "$WORK/theirs.tar" "$name"
check "what was exported is removed" img rm app:1 app:2
is "imported" "$(img import "$WORK/theirs.tar")" "$name"
is "digest and id stay" "$(manifest app:2) $(id_of app:2)" "$digest $id"
same "the tree is the same" app:2
is "the store is whole" "$(img verify)" ""
done_testing
