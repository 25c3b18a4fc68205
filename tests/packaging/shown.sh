# What tests/packaging/test_shown.py runs in a clean Debian: the day of an administrator, with its transcript.
# In /given: the package, keys, systemctl, stubs.py (pvesm), vzdump.py, archives.py. Arguments: bucket, RGW's port, two free ports.
set -eu
bucket=$1 store=$2 listen=$3 metrics=$4
name=s3-backup where=/mnt/pve/s3-backup
fail() {
    printf 'FAILED: %s\n' "$*"
    exit 1
}
say() { printf '\n== %s\n' "$*"; }
run() {
    printf '# %s\n' "$*"
    "$@"
}
milliseconds() { echo $(($(date +%s%N) / 1000000)); }
pid_of() { s3fsx status --json $where | awk -F"[:, ]+" '$2 == "\"pid\"" { print $3 }' | grep . || fail "no pid"; }
# The way to the store, which can be cut.
way() {
    socat "TCP-LISTEN:$listen,bind=127.0.0.1,fork,reuseaddr" "TCP:127.0.0.1:$store" 2>/dev/null &
    way=$!
}
cut_way() { # and the connections that are open
    children=$(ps -o pid= --ppid $way || true)
    kill $way $children 2>/dev/null || true
    wait $way 2>/dev/null || true
}

apt-get update -q >/dev/null
apt-get install -y -q --no-install-recommends socat procps zstd bzip2 >/given/log 2>&1 || { cat /given/log; fail "apt-get"; }
apt-get install -y -q --no-install-recommends --download-only /given/s3fsx_*_all.deb >/given/log 2>&1 || { cat /given/log; fail "download"; }
say "install"
before=$(df -k --output=used / | tail -n 1)
began=$(milliseconds)
printf '# apt install ./s3fsx_*_all.deb\n'
apt-get install -y -q --no-install-recommends /given/s3fsx_*_all.deb >/given/log 2>&1 || { cat /given/log; fail "apt-get install"; }
printf 'installed in %d ms, packages already fetched; %s of them new\n' $(($(milliseconds) - began)) "$(grep -c '^Setting up' /given/log)"
dpkg-query -W -f '${Package} ${Version}, ${Installed-Size} KiB installed\n' s3fsx

mkdir -p /run/systemd/system /etc/pve/priv /var/lib/stub
chmod 700 /etc/pve/priv
install -m 0755 /given/systemctl /usr/bin/systemctl
printf '#!/bin/sh\nexport STUB_HOME=/var/lib/stub S3FSX_PVE_DIR=/etc/pve PYTHONPATH=/given\nexec python3 -m stubs pvesm "$@"\n' >/usr/sbin/pvesm
chmod 755 /usr/sbin/pvesm
way

say "pve setup"
run s3fsx pve setup $name --provider ceph --endpoint "http://127.0.0.1:$listen" --region us-east-1 --bucket "$bucket" \
    --prefix pve/ --keys-file /given/keys --prune-backups keep-last=3 -o "metrics_listen=127.0.0.1:$metrics" </dev/null
run cat /etc/pve/storage.cfg

say "the unit stops and starts, as in a reboot, with a backup that was closed and not renamed"
printf 'VM\n' >$where/dump/vzdump-qemu-99-2026_11_26-21_00_00.vma.dat
old=$(pid_of)
kill -9 "$old"
umount -l $where
rm -r /run/s3fsx
run systemctl start s3fsx@$name.service
[ "$(pid_of)" != "$old" ] || fail "the old daemon"
run ls $where/dump
[ "$(cat $where/dump/vzdump-qemu-99-2026_11_26-21_00_00.vma.dat)" = VM ] || fail "the waiting file is lost"
rm $where/dump/vzdump-qemu-99-2026_11_26-21_00_00.vma.dat

say "vzdump: VM 100 and container 101"
PYTHONPATH=/given python3 - <<PYTHON
import archives, tarfile, io, vzdump
from pathlib import Path
dump, log = Path("$where/dump"), Path("/given/vzdump.log")
log.write_text("INFO: Finished\n")
Path("/given/vm").write_bytes(archives.vma(32 << 20))
tarfile.open(fileobj=io.BytesIO(archives.container(8 << 20))).extractall("/given/ct")
for stem, kind, write, source in (
    ("vzdump-qemu-100-2026_11_26-22_00_03", "vma", vzdump.write_vm, "/given/vm"),
    ("vzdump-lxc-101-2026_11_26-22_04_41", "tar", vzdump.write_container, "/given/ct"),
):
    vzdump.run(vzdump.Job(dump, stem, kind, ".zst"), write, Path(source), log)
PYTHON
run ls -l $where/dump
zstd -qdc $where/dump/vzdump-qemu-100-*.vma.zst | cmp - /given/vm || fail "the VM comes back differently"
mkdir /restored
zstd -qdc $where/dump/vzdump-lxc-101-*.tar.zst | tar -xpf - -C /restored
diff -r /given/ct /restored || fail "the container comes back differently"

say "backups, show, verify, drill"
run s3fsx backups $name
run s3fsx show 100
run s3fsx show 101
run s3fsx verify $name --all
run s3fsx drill $name --vmid 100
run s3fsx drill $name --vmid 101
run s3fsx backups $name

say "metrics"
python3 -c "import urllib.request; print(urllib.request.urlopen('http://127.0.0.1:$metrics/metrics', timeout=10).read().decode(), end='')" \
    >/given/metrics
printf '%s samples\n' "$(grep -vc '^#' /given/metrics)"
grep -E '^s3fsx_(endpoint_up|up|start_time_seconds|info)' /given/metrics || true

say "an outage"
s3fsx status >/given/log || { cat /given/log; fail "not healthy"; }
cut_way
began=$(milliseconds)
while s3fsx status >/given/log; do
    [ $(($(milliseconds) - began)) -lt 60000 ] || fail "the outage is not seen"
    ls $where/dump >/dev/null 2>&1 || true
    sleep 0.5
done
printf 'seen after %d ms\n# s3fsx status\n' $(($(milliseconds) - began))
head -n 6 /given/log
run df -h $where
way
began=$(milliseconds)
until s3fsx status >/given/log; do
    [ $(($(milliseconds) - began)) -lt 60000 ] || { cat /given/log; fail "the recovery is not seen"; }
    sleep 0.5
done
printf 'well again after %d ms\n' $(($(milliseconds) - began))
run df -h $where

say "pve remove"
run s3fsx pve remove $name
! grep -q fuse.s3fsx /proc/self/mountinfo || fail "still mounted"
[ -z "$(cat /etc/pve/storage.cfg)" ] || fail "the storage is still there"
find /etc/s3fsx /etc/pve -type f -not -name storage.cfg | sed 's/^/left: /'
run apt-get purge -y -q s3fsx >/given/log 2>&1 || { cat /given/log; fail "apt-get purge"; }
cut_way
printf '\n== done\n'
