# What tests/packaging/test_systemd.py runs in a clean Debian: systemd as the first process of it, booted twice.
# In /given: the package, keys, stubs.py (pvesm), day.sh (what the boots do). Arguments: bucket, RGW's port.
set -eu
fail() {
    printf 'FAILED: %s\n' "$*"
    exit 1
}
apt-get update -q >/dev/null
apt-get install -y -q --no-install-recommends systemd systemd-sysv dbus procps python3-minimal >/given/log 2>&1 ||
    { cat /given/log; fail "apt-get"; }
rm /usr/sbin/policy-rc.d # here is somebody who starts services
rm -f /etc/systemd/system/*.wants/e2scrub* /etc/systemd/system/timers.target.wants/*
systemctl mask systemd-udevd.service systemd-udev-trigger.service systemd-networkd.service systemd-timesyncd.service \
    systemd-logind.service console-getty.service getty.target >/dev/null 2>&1
mkdir -p /etc/pve/priv /var/lib/stub
chmod 700 /etc/pve/priv
printf '#!/bin/sh\nexport STUB_HOME=/var/lib/stub S3FSX_PVE_DIR=/etc/pve PYTHONPATH=/given\nexec python3 -m stubs pvesm "$@"\n' >/usr/sbin/pvesm
chmod 755 /usr/sbin/pvesm

# A Proxmox daemon that wants the storage when it starts, as pvestatd does.
cat >/etc/systemd/system/pvestatd.service <<'UNIT'
[Service]
Type=oneshot
ExecStart=/bin/sh -c 'mountpoint -q /mnt/pve/s3-backup && ls /mnt/pve/s3-backup/dump >/given/seen.$$(cat /given/boot)'
RemainAfterExit=yes
[Install]
WantedBy=multi-user.target
UNIT
cat >/etc/systemd/system/day.service <<UNIT
[Unit]
After=multi-user.target
[Service]
Type=oneshot
StandardOutput=append:/given/transcript
StandardError=inherit
ExecStart=/bin/sh /given/day.sh $*
ExecStopPost=/bin/sh -c 'test -e /given/done.\$\$(cat /given/boot) || { journalctl -n 60 --no-pager; systemctl start poweroff.target --job-mode=replace-irreversibly --no-block; }'
TimeoutStartSec=300
[Install]
WantedBy=default.target
UNIT
systemctl enable pvestatd.service day.service >/dev/null 2>&1
printf '[Journal]\nReadKMsg=no\n' >/etc/systemd/journald.conf

for boot in 1 2; do
    echo $boot >/given/boot
    # A process and a mount namespace of its own, as a machine has. Controllers are the host's: a hierarchy without any does.
    unshare --mount --pid --fork --kill-child --mount-proc --cgroup sh -c '
        umount -l /sys/fs/cgroup 2>/dev/null || true
        mount -t cgroup2 cgroup2 /sys/fs/cgroup
        mount -t tmpfs -o mode=0755 tmpfs /run
        mount --make-rshared /
        export container=test
        exec /lib/systemd/systemd --show-status=false --log-target=null' || true
    cat /given/transcript
    : >/given/transcript
    [ -e "/given/done.$boot" ] || fail "boot $boot did not come to its end"
done
