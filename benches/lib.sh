# For: what the scripts here and the conformance lane share: the cache, apt, the programs to compare with.
# Owns: the cache directory, ~/.cache/locule (LOCULE_CACHE moves it).
# Never: changes the machine's apt configuration; other suites are read through a private one.
# To be sourced, with the top of the tree in $top.

cache=${LOCULE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/locule}

fail() {
	echo "${0##*/}: $*" >&2
	exit 1
}

# need PROGRAM=PACKAGE...: installs what is missing, in one go.
need() {
	missing=
	for pair in "$@"; do
		command -v "${pair%%=*}" >/dev/null || missing="$missing ${pair#*=}"
	done
	[ -z "$missing" ] || install_packages $missing
}

install_packages() {
	[ "$(id -u)" = 0 ] || fail "installing $*: not root: run as root, or install them first"
	echo "installing $*" >&2
	apt-get update -qq >&2
	DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >&2
}

# The mirror that this machine uses for Debian itself.
mirror() {
	apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' |
		grep -v security | head -n 1 | grep . || fail "finding the machine's Debian mirror: no apt source of Debian"
}

# private_apt TYPE SUITE...: an apt of its own below the cache, for other suites and for sources. Sets apt_get and
# apt_cache. Suites whose Release file is past its date are taken all the same: their packages are still signed.
private_apt() {
	type=$1
	shift
	apt_dir=$cache/apt/$type
	mkdir -p "$apt_dir/lists/partial" "$apt_dir/cache/archives/partial"
	uri=$(mirror)
	for suite in "$@"; do
		echo "$type [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $uri $suite main"
	done >"$apt_dir/sources.list"
	apt_options="-qq -o Dir::Etc::sourcelist=$apt_dir/sources.list -o Dir::Etc::sourceparts=- \
		-o Dir::State::lists=$apt_dir/lists -o Dir::Cache=$apt_dir/cache -o Dir::State::status=/dev/null \
		-o Acquire::Check-Valid-Until=false -o APT::Sandbox::User=root"
	apt_get="apt-get $apt_options"
	apt_cache="apt-cache $apt_options"
	$apt_get update >&2
}
