# What happens after each of the two boots of tests/packaging/booted.sh. Arguments: bucket, RGW's port.
set -eu
bucket=$1 store=$2
name=s3-backup where=/mnt/pve/s3-backup unit=s3fsx@s3-backup.service
waiting=$where/dump/vzdump-qemu-100-2026_11_26-21_00_00.vma.dat
fail() {
    printf 'FAILED: %s\n' "$*"
    exit 1
}
say() { printf '\n== %s\n' "$*"; }
run() {
    printf '# %s\n' "$*"
    "$@"
}
shown() { systemctl show --value -p "$1" $unit; }
await() { # SECONDS COMMAND...
    left=$(($1 * 5))
    shift
    until "$@" >/dev/null 2>&1; do
        left=$((left - 1))
        [ $left -gt 0 ] || fail "never: $*"
        sleep 0.2
    done
}
other_pid() { [ "$(shown MainPID)" != "$1" ] && [ "$(shown MainPID)" != 0 ] && mountpoint -q $where; }

first() {
    say "install"
    apt-get install -y -q --no-install-recommends /given/s3fsx_*_all.deb >/given/log 2>&1 || { cat /given/log; fail "apt-get install"; }
    say "pve setup"
    run s3fsx pve setup $name --provider ceph --endpoint "http://127.0.0.1:$store" --region us-east-1 --bucket "$bucket" \
        --prefix pve/ --keys-file /given/keys </dev/null
    run systemctl is-enabled $unit
    run systemctl is-active $unit
    printf 'ready when started: %s, %s\n' "$(shown Type)" "$(shown StatusText)"
    (cd /given && python3 -c 'import archives; open("disk", "wb").write(archives.vma(16 << 20))')
    cp /given/disk $where/dump/vzdump-qemu-100-2026_11_26-20_00_00.vma

    say "the daemon is killed"
    old=$(shown MainPID)
    kill -9 "$old"
    await 60 other_pid "$old"
    printf 'restarts: %s\n' "$(shown NRestarts)"
    cmp /given/disk $where/dump/vzdump-qemu-100-2026_11_26-20_00_00.vma

    say "the package is installed again"
    old=$(shown MainPID)
    apt-get install -y -q --reinstall --no-install-recommends /given/s3fsx_*_all.deb >/given/log 2>&1 || { cat /given/log; fail "apt-get install"; }
    grep '^s3fsx: ' /given/log
    other_pid "$old" || fail "the mount is not the new version's"

    say "drill and timers"
    run systemctl start s3fsx-drill@$name.service || true
    printf 'drill: %s\n' "$(systemctl show --value -p Result s3fsx-drill@$name.service)"
    run systemctl enable -q --now s3fsx-drill@$name.timer s3fsx-lifecycle@$name.timer
    systemctl list-timers --no-legend --all 's3fsx-*' | grep -o 's3fsx-[a-z]*@[^ ]*\.timer' | sort

    say "the store's configuration is broken: no endless tries"
    cp /etc/s3fsx/$name.toml /given/kept.toml
    run systemctl stop $unit
    echo 'buckt = "x"' >>/etc/s3fsx/$name.toml
    systemctl start $unit 2>/dev/null && fail "started with a setting that does not exist"
    printf 'state: %s, status %s, restarts: %s\n' "$(systemctl is-active $unit)" "$(shown ExecMainStatus)" "$(shown NRestarts)"
    journalctl -u $unit -n 20 -o cat --no-pager | grep buckt
    cat /given/kept.toml >/etc/s3fsx/$name.toml
    run systemctl start $unit

    say "the log"
    journalctl -u $unit -o cat --no-pager | grep -c . | sed 's/^/lines: /'
    journalctl --no-pager >/given/journal

    say "a power off with a backup that was closed and not renamed, and a line in fstab"
    cp /given/disk $waiting
    mkdir -p /mnt/fstab
    printf '%s /mnt/fstab s3fsx _netdev,nofail,prefix=pve/fstab/ 0 0\n' $name >>/etc/fstab
}

second() {
    say "after the boot"
    run systemctl is-active $unit
    printf 'seen by what starts after it: %s\n' "$(tr '\n' ' ' </given/seen.2)"
    cmp /given/disk $waiting
    await 60 mountpoint -q /mnt/fstab
    run systemctl is-active mnt-fstab.mount
    echo hello >/mnt/fstab/snippets.txt
    systemctl --failed --no-legend --plain | grep -E 's3fsx|mnt|pve' | sed 's/^/failed: /'

    say "pve remove, purge"
    run umount /mnt/fstab
    sed -i /fstab/d /etc/fstab
    run s3fsx pve remove $name
    ! grep -q fuse.s3fsx /proc/self/mountinfo || fail "still mounted"
    systemctl disable -q --now s3fsx-drill@$name.timer s3fsx-lifecycle@$name.timer
    apt-get purge -y -q s3fsx >/given/log 2>&1 || { cat /given/log; fail "apt-get purge"; }
    systemctl list-units --all --no-legend --plain 's3fsx*' | sed 's/^/left: /'
    journalctl --no-pager >>/given/journal
}

case $(cat /given/boot) in
1) first ;;
2) second ;;
esac
touch "/given/done.$(cat /given/boot)"
systemctl start poweroff.target --job-mode=replace-irreversibly --no-block # without logind, which poweroff asks
