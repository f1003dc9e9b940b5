# For: the two root file systems that runc's tests ask for, as tar files made from Debian's packages.
# Owns: nothing but the files it is told to write.
# Never: fetches an image from a registry.
# To be sourced after benches/lib.sh, with the scratch directory in $work.

# busybox_image FILE: laid out as the image of the same name at the registries is.
busybox_image() {
	root=$work/busybox
	mkdir -p "$root/bin" "$root/dev" "$root/etc" "$root/home" "$root/root" "$root/tmp" "$root/usr/sbin" \
		"$root/var/spool/mail" "$root/var/www"
	cp "$(readlink -f "$(command -v busybox)")" "$root/bin/busybox"
	for applet in $(busybox --list); do
		[ "$applet" = busybox ] || ln "$root/bin/busybox" "$root/bin/$applet"
	done
	chmod 1777 "$root/tmp"
	chmod 0700 "$root/root"
	cat >"$root/etc/passwd" <<-'END'
		root:x:0:0:root:/root:/bin/sh
		daemon:x:1:1:daemon:/usr/sbin:/bin/false
		bin:x:2:2:bin:/bin:/bin/false
		sys:x:3:3:sys:/dev:/bin/false
		sync:x:4:100:sync:/bin:/bin/sync
		mail:x:8:8:mail:/var/spool/mail:/bin/false
		www-data:x:33:33:www-data:/var/www:/bin/false
		operator:x:37:37:Operator:/var:/bin/false
		nobody:x:65534:65534:nobody:/home:/bin/false
	END
	cat >"$root/etc/group" <<-'END'
		root:x:0:
		daemon:x:1:
		bin:x:2:
		sys:x:3:
		adm:x:4:
		tty:x:5:
		disk:x:6:
		wheel:x:10:root
		mail:x:8:
		www-data:x:33:
		staff:x:50:
		users:x:100:
		nogroup:x:65534:
	END
	tar -C "$root" --owner=0 --group=0 -cf "$1" .
}

# debian_image FILE: bash and the programs of a minimal system.
debian_image() {
	mmdebstrap --quiet --mode=root --variant=essential --format=tar --include=perl-base,coreutils,util-linux \
		--aptopt='Acquire::Check-Valid-Until "false"' \
		--dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
		--dpkgopt='path-exclude=/usr/share/locale/*' --dpkgopt='path-exclude=/usr/share/i18n/*' \
		--dpkgopt='path-exclude=/usr/share/zoneinfo/*' --dpkgopt='path-exclude=/usr/lib/*/gconv/*' \
		trixie "$1" "deb $(mirror) trixie main"
}
