# The two commands of the README, and what they stand on. `make help` lists the targets.

CARGO   ?= cargo
PREFIX  ?= /usr/local
DESTDIR ?=
# The commit that --version names; a checkout without history has none.
export LOCULE_COMMIT ?= $(shell git describe --always --dirty --abbrev=12 2>/dev/null)

# Asked when they are used: need-build may have installed Rust only then.
target   = $(shell rustc -vV 2>/dev/null | sed -n 's/^host: //p')
binary   = target/$(target)/release/locule

.PHONY: help run test test-host test-build test-fs test-conformance test-bats test-vm bench check miri docs install man deb uninstall need-build need-test release
.PHONY: fuzz fuzz-long need-fuzz soak faults test-vm-long test-kernel

help: ## List the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 14

run: release ## Build locule and run a real container made of this host's own user land
	tools/demo $(binary)

# `--workspace` also where one target is wanted: for a package alone, Cargo asks for fewer features of what all share, and
# compiles nearly all of it again.
#
# The lanes: without privileges and in private namespaces (host), the specification's own validation
# programs (conformance), runc's tests (bats), and a virtual machine with systemd and every controller (vm).
test: test-host test-build test-conformance test-bats test-vm fuzz ## Run all test lanes

test-host: need-test ## Unit tests and the host lane: needs root, touches nothing outside its namespaces
	@echo '== host lane'
	$(CARGO) test --workspace --no-run
	tests/lane tests/again $(CARGO) test --workspace --no-fail-fast --offline

test-fs: need-test ## Exercisers of file systems (pjdfstest, fsx) on the file server of VM containers
	@echo '== file server'
	tests/fs-exercise

# The only tests that need a network: a distribution's packages, from where apt has them.
test-build: need-test ## Build an image from Debian's packages, and run it
	@echo '== images from packages'
	$(CARGO) test --workspace --test images --no-run
	unshare --mount --propagation private $(CARGO) test --workspace --offline --test images -- --ignored build::

test-conformance: release need-test ## OCI runtime-tools' validation, built from Debian's source package
	@echo '== conformance'
	tests/conformance/run $(binary)

# In the virtual machine (`tests/bats/run vm`, `run systemd`) they take an hour: their lists are kept, `test-vm-long` runs them.
test-bats: release need-test ## runc's own integration tests, natively
	@echo "== runc's own tests"
	tests/bats/run native

# How many machines the files are spread over.
VM_JOBS ?= 2
vm-long := engines-user long
vm-suites := $(filter-out $(vm-long),$(notdir $(wildcard tests/vm/suites/*)))

test-vm: release need-test ## Suites in a Debian machine under QEMU, with KVM where it works
	@echo '== virtual machine'
	$(CARGO) build --workspace --example boot
	install -D target/$(target)/debug/examples/boot $(dir $(binary))examples/boot
	LOCULE_BIN=$(binary) tests/vm/vm run --end --jobs $(VM_JOBS) $(vm-suites)

test-vm-long: release need-test ## The suites that test-vm leaves out for their time: users under engines, podman build, a hundred containers, more of VM containers
	LOCULE_BIN=$(binary) tests/vm/vm run --end $(vm-long)
	LOCULE_BIN=$(binary) tests/bats/run systemd; status=$$?; tests/vm/vm stop; exit $$status

# Nothing of that kernel is signed: its build needs no libssl-dev. make and libc6-dev are need-build's.
test-kernel: release need-test ## Build the small kernel of VM containers from Debian's source, and boot it in the machine
	@tools/need linux-source-6.12 gcc flex bison bc libelf-dev xz-utils
	$(CARGO) build --workspace --example boot
	install -D target/$(target)/debug/examples/boot $(dir $(binary))examples/boot
	tests/vm/kernel $(binary)

fuzz: need-fuzz ## Run the fuzz targets for FUZZ_SECONDS (10); fuzz/README.md lists them
	@echo '== fuzz targets'
	fuzz/run

fuzz-long: need-fuzz ## Run every fuzz target for an hour, two at a time
	FUZZ_SECONDS=$(or $(FUZZ_SECONDS),3600) fuzz/run

faults: need-test ## Kill and fail the calls at every one of their system calls; the host lane takes a sample
	$(CARGO) test --workspace --test lifecycle --no-run
	LOCULE_MOMENTS=all tests/lane $(CARGO) test --workspace --offline --test lifecycle -- crash:: faults:: scarce::

soak: need-test ## A hundred callers for ten minutes (SOAK_SECONDS); the host lane has twenty seconds of it
	$(CARGO) test --workspace --test soak --no-run
	SOAK_SECONDS=$(or $(SOAK_SECONDS),600) tests/lane $(CARGO) test --workspace --offline --test soak -- --nocapture

bench: release ## Measure against other runtimes
	benches/run

check: need-build ## Format, lints, documentation, unsafe code counted, licences and advisories
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc --workspace --no-deps
	tools/unsafe-count --check
	@tools/deny

miri: ## Run the parsing and planning tests in Miri, which needs a nightly toolchain
	@tools/miri

docs: need-build ## Write man/ and completions/ anew from the declarations
	LOCULE_WRITE_DOCS=1 $(CARGO) test --bin locule docs

man: ## Read the manual
	man -l man/locule.1

install: release ## Install the binaries, systemd units, the manual and completions below PREFIX
	install -D -m 755 $(binary) $(DESTDIR)$(PREFIX)/bin/locule
	ln -sf locule $(DESTDIR)$(PREFIX)/bin/locule-vm
	install -D -m 755 $(dir $(binary))locule-guest $(DESTDIR)$(PREFIX)/libexec/locule/locule-guest
	install -d $(DESTDIR)$(PREFIX)/share/man/man1
	install -m 644 man/*.1 $(DESTDIR)$(PREFIX)/share/man/man1/
	install -D -m 644 man/locule-machine.toml.5 $(DESTDIR)$(PREFIX)/share/man/man5/locule-machine.toml.5
	install -d $(DESTDIR)$(PREFIX)/share/locule/profiles
	install -m 644 machines/profiles/*.toml $(DESTDIR)$(PREFIX)/share/locule/profiles/
	install -D -m 644 completions/locule.bash $(DESTDIR)$(PREFIX)/share/bash-completion/completions/locule
	install -D -m 644 completions/_locule $(DESTDIR)$(PREFIX)/share/zsh/vendor-completions/_locule
	install -D -m 644 completions/locule.fish $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/locule.fish
	tools/units $(PREFIX) $(DESTDIR)

deb: release ## Build a Debian package: program, units, manual, completions, profiles
	tools/deb $(binary)

uninstall: ## Remove what install installed
	rm -rf $(DESTDIR)$(PREFIX)/share/locule/profiles
	rm -rf $(DESTDIR)$(PREFIX)/libexec/locule
	tools/units --remove $(PREFIX) $(DESTDIR)
	rm -f $(DESTDIR)$(PREFIX)/bin/locule $(DESTDIR)$(PREFIX)/bin/locule-vm $(DESTDIR)$(PREFIX)/share/man/man1/locule.1 \
	    $(DESTDIR)$(PREFIX)/share/man/man5/locule-machine.toml.5 \
	    $(DESTDIR)$(PREFIX)/share/man/man1/locule-*.1 \
	    $(DESTDIR)$(PREFIX)/share/bash-completion/completions/locule \
	    $(DESTDIR)$(PREFIX)/share/zsh/vendor-completions/_locule \
	    $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/locule.fish

# The machine's process 1 is read through a file system that it is the first to use: two mebibytes at most.
release: need-build
	$(CARGO) build --release -p locule
	$(CARGO) build --profile guest -p locule-guest
	install -m 755 target/$(target)/guest/locule-guest $(dir $(binary))locule-guest
	@test "$$(stat -c %s $(dir $(binary))locule-guest)" -lt 2097152 || { echo 'locule-guest is larger than 2 MiB' >&2; exit 1; }

# A compiler driver and libc's static half; Rust itself must be at least as new as Cargo.toml says.
need-build:
	@tools/need gcc libc6-dev make git
	@tools/need-rust

# libFuzzer is C++.
need-fuzz: need-build
	@tools/need g++

need-test: need-build
	@tools/need skopeo umoci docker-registry zstd mmdebstrap openssl libcap2-bin
	@tools/need procps util-linux busybox-static man-db strace iproute2 nftables containernetworking-plugins uidmap dbus-daemon e2fsprogs xfsprogs btrfs-progs python3
