# What tests/packaging/test_package.py runs in a clean Debian. In /given: the package, pve1.toml, pve2.toml, systemctl.
set -eu
say() { printf '== %s\n' "$*"; }
fail() {
    printf 'FAILED: %s\n' "$*"
    exit 1
}
pid_of() { s3fsx status --json "$1" | awk -F"[:, ]+" '$2 == "\"pid\"" { print $3 }' | grep . || fail "no pid of $1"; }
is_mounted() { grep -q " $1 " /proc/self/mountinfo; }
reinstall() { apt-get install -y -q --no-install-recommends --reinstall /given/s3fsx_*_all.deb >/given/log 2>&1 || { cat /given/log; fail reinstall; }; }
began=$(date +%s)
lap() { say "$* after $(($(date +%s) - began)) s"; }

apt-get update -q >/dev/null
lap "package lists"
apt-get install -y -q --no-install-recommends /given/s3fsx_*_all.deb >/given/log 2>&1 || { cat /given/log; fail "apt-get install"; }
lap "installed"
dpkg-query -W -f '${Package} ${Version}\n' s3fsx python3-pyfuse3 python3-trio python3-boto3 python3-diskcache
[ "$(stat -c %a /etc/s3fsx)" = 700 ] || fail "/etc/s3fsx is open"
for file in pve/S3fsxPlugin.pm monitoring/s3fsx.rules.yml monitoring/s3fsx.dashboard.json; do
    [ -s /usr/share/s3fsx/$file ] || fail "no $file"
done
for unit in s3fsx@.service s3fsx-drill@.service s3fsx-drill@.timer s3fsx-lifecycle@.service s3fsx-lifecycle@.timer; do
    [ -s /usr/lib/systemd/system/$unit ] || fail "no $unit"
done
[ -s /usr/share/bash-completion/completions/s3fsx ] || fail "no completion"
[ ! -e /usr/share/perl5/PVE ] || fail "the plugin is active"
[ -x /usr/bin/s3fsx ] && [ -x /sbin/mount.s3fsx ] || fail "no commands"
s3fsx --version
# As after a start with systemd; in /usr/bin because apt gives scripts a PATH without /usr/local.
mkdir -p /run/systemd/system
install -m 0755 /given/systemctl /usr/bin/systemctl
install -m 0600 /given/pve1.toml /given/pve2.toml /etc/s3fsx/

say "a mount by the unit, and one by mount(8)"
systemctl start s3fsx@pve1.service
mkdir -p /mnt/pve2
mount -t s3fsx pve2 /mnt/pve2
is_mounted /mnt/pve/pve1 && is_mounted /mnt/pve2 || fail "not mounted"

say "what vzdump does"
cd /mnt/pve/pve1
mkdir -p dump
stem=dump/vzdump-qemu-100-2026_11_20-13_15_26
head -c 20000000 /dev/urandom >/given/disk
rm -f $stem.vma.dat
cat /given/disk >$stem.vma.dat
perl -e 'rename($ARGV[0], $ARGV[1]) or die "rename: $!\n"' $stem.vma.dat $stem.vma
(set -C && echo "VM 100" >$stem.vma.notes.tmp.1)
mv $stem.vma.notes.tmp.1 $stem.vma.notes
: >>$stem.vma.protected
ls -l dump
[ "$(ls dump | wc -l)" = 3 ] || fail "not three files"
cmp /given/disk $stem.vma || fail "another content"
cd /

say "an upgrade while a backup is written"
old1=$(pid_of /mnt/pve/pve1) old2=$(pid_of /mnt/pve2)
exec 8>/mnt/pve/pve1/dump/vzdump-qemu-101-2026_11_20-13_15_26.vma.dat
head -c 9000000 /given/disk >&8
reinstall
grep '^s3fsx:' /given/log
[ "$(pid_of /mnt/pve/pve1)" = "$old1" ] || fail "the mount in use was taken away"
[ "$(pid_of /mnt/pve2)" = "$old2" ] || fail "the mount of mount(8) was taken away"
tail -c +9000001 /given/disk >&8
exec 8>&-
mv /mnt/pve/pve1/dump/vzdump-qemu-101-2026_11_20-13_15_26.vma.dat /mnt/pve/pve1/dump/vzdump-qemu-101-2026_11_20-13_15_26.vma

say "an upgrade while nothing is in use"
reinstall
grep '^s3fsx:' /given/log
new1=$(pid_of /mnt/pve/pve1)
[ "$new1" != "$old1" ] || fail "the mount is still the old one"
for number in 100 101; do
    cmp /given/disk /mnt/pve/pve1/dump/vzdump-qemu-$number-2026_11_20-13_15_26.vma || fail "another content"
done
lap "upgraded"

say "a removal while a file is open"
exec 8</mnt/pve/pve1/$stem.vma
if apt-get remove -y -q s3fsx >/given/log 2>&1; then fail "removed under a program"; fi
grep '^s3fsx:' /given/log
[ "$(pid_of /mnt/pve/pve1)" = "$new1" ] || fail "the mount in use was taken away"
s3fsx --version
exec 8<&-

say "a removal with something unfinished"
is_mounted /mnt/pve2 || mount -t s3fsx pve2 /mnt/pve2
kill -9 "$(pid_of /mnt/pve/pve1)"
umount -l /mnt/pve/pve1
systemctl start s3fsx@pve1.service
mkdir -p /mnt/pve2/dump
head -c 20000000 /given/disk >/mnt/pve2/dump/vzdump-qemu-102-2026_11_20-13_15_26.vma.dat
kill -9 "$(pid_of /mnt/pve2)"
apt-get remove -y -q s3fsx >/given/log 2>&1 || { cat /given/log; fail "apt-get remove"; }
grep '^s3fsx:' /given/log
! grep -q fuse.s3fsx /proc/self/mountinfo || fail "still mounted"
[ -e /var/lib/s3fsx ] || fail "the journal is gone"

say "installed again, it is finished"
apt-get install -y -q --no-install-recommends /given/s3fsx_*_all.deb >/given/log 2>&1 || { cat /given/log; fail "apt-get install"; }
mount -t s3fsx pve2 /mnt/pve2
cd /mnt/pve2/dump
mv vzdump-qemu-102-2026_11_20-13_15_26.vma.dat vzdump-qemu-102-2026_11_20-13_15_26.vma
cmp /given/disk vzdump-qemu-102-2026_11_20-13_15_26.vma || fail "another content"
cd /

say "purge"
apt-get purge -y -q s3fsx >/given/log 2>&1 || { cat /given/log; fail "apt-get purge"; }
grep '^s3fsx:' /given/log || true
find / -xdev -name '*s3fsx*' -not -path '/proc/*' -not -path '/given/*' -not -path '/var/cache/apt/*' -not -path '/var/log/*' \
    | sort | sed 's/^/left: /'
ls /etc/s3fsx | sed 's/^/kept: /'
ls -d /var/cache/s3fsx /var/lib/s3fsx /run/s3fsx 2>/dev/null && fail "traces"
lap "all done"
