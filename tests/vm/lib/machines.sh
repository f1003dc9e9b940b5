# What tests of whole systems as machines share: the Debian package, with nothing else that could serve; a service inside
# that answers. Sourced after common.sh.

LOCULE=/usr/bin/locule
UNIT=locule@web1.service
aside=/usr/local/bin/.locule-aside

# install_package: the checkout's own, kept in $package; the checkout's own program is out of the way until the end. After
# a reboot it is there already, and only its end is seen to.
install_package() {
    CLEANUPS+=(put_back)
    [ "$BOOTS" = 0 ] || return 0
    package=$(cd /locule && DEB_COMPRESSION=none tools/deb /usr/local/bin/locule 2>&1 | tail -n 1)
    like "the package is built" "$package" '^target/deb/locule_.*\.deb$'
    mv /usr/local/bin/locule $aside
    hash -r
    check "it installs" dpkg --install "/locule/$package"
}
put_back() {
    local name
    for name in $($LOCULE ls --quiet); do $LOCULE rm --force "$name"; done
    dpkg --purge locule
    rm -rf /var/lib/locule /run/locule /etc/systemd/system/locule@*.service.d
    systemctl daemon-reload
    mv -f $aside /usr/local/bin/locule
}

# Of web1, in the unit that the package has for machines.
is_up() { [ "$(systemctl is-active "$UNIT")" = active ]; }
payload() { echo "/sys/fs/cgroup$(systemctl show --value --property ControlGroup "$UNIT")/payload"; }
# another_boot: checks after a reboot of the host that it is up again, as another one's, with its limit of 512 MiB
another_boot() {
    check "web1 is up after the reboot" eventually is_up
    is "it is another boot" "$(jq -r .keeper.boot_id /run/locule/.machines/web1/keeper.json)" "$(cat /proc/sys/kernel/random/boot_id)"
    is "the limit holds" "$(cat "$(payload)/memory.max")" $((512 << 20))
}

# What a machine with systemd and Perl, which each Debian has, runs to answer on its port 80 from now on and after each boot
# (`enable --now`), or after the next one (`enable`).
serve() {
    cat <<SH
cat >/usr/local/bin/www <<"END"
#!/usr/bin/perl
use IO::Socket::INET;
\$s = IO::Socket::INET->new(LocalPort => 80, Listen => 9, ReuseAddr => 1) or die;
while (\$c = \$s->accept) { \$_ = <\$c>; print \$c "HTTP/1.0 200 OK\r\n\r\nserved\n"; close \$c }
END
printf "[Service]\nExecStart=/usr/local/bin/www\n[Install]\nWantedBy=multi-user.target\n" >/etc/systemd/system/www.service
chmod +x /usr/local/bin/www
systemctl $* www.service
SH
}
# answers [PORT]: the published one (8080)
answers() { busybox wget -q -T 30 -O - "http://127.0.0.1:${1:-8080}/" | grep -q served; }
