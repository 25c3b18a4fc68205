#!/bin/sh
# A Proxmox VE backup into an S3 bucket and back, on a fresh Debian 12 or 13, as root:
#
#     sh contrib/demo.sh         set up what is missing, run, leave the mount for a look (a former run is removed first)
#     sh contrib/demo.sh status  what is running
#     sh contrib/demo.sh stop    unmount, end the server, delete everything but the packages and .venv
#
# The S3 server is s3fsx's own (s3fsx gateway), over a directory, on a loopback port. Nothing leaves this machine but the
# downloads of apt and pip.
# From the environment:
#     DEMO_DIR     /var/lib/s3fsx-demo  logs, credentials, the buckets, the guest disk; made here, deleted as a whole
#     DEMO_MOUNT   /mnt/s3fsx-demo      the mountpoint
#     DEMO_PORT    0                    the server's port; 0 is any free one
#     DEMO_PYTHON  none                 a Python that has s3fsx[gateway]: nothing is installed then
#     PYTHON       python3              the interpreter for .venv
set -eu

DEMO_DIR=${DEMO_DIR:-/var/lib/s3fsx-demo}
DEMO_MOUNT=${DEMO_MOUNT:-/mnt/s3fsx-demo}
DEMO_PORT=${DEMO_PORT:-0}
BUCKET=s3fsx-demo
STEPS=9
cd "$(dirname "$0")/.."
# As the kernel names it, without a look at the last part: it may be a mount that hangs.
DEMO_MOUNT=$(realpath -m "${DEMO_MOUNT%/*}/")/${DEMO_MOUNT##*/}

# Only the demo's own settings count, and no proxy stands before a loopback server.
for variable in $(env | sed -n 's/^\(S3FSX_[A-Z0-9_]*\)=.*/\1/p'); do unset "$variable"; done
export S3FSX_CONFIG_DIR="$DEMO_DIR" NO_PROXY=127.0.0.1 no_proxy=127.0.0.1 LC_ALL=C
umask 022
bold='' plain=''
if [ -t 1 ] && [ "${TERM:-dumb}" != dumb ] && [ -z "${NO_COLOR:-}" ]; then
    bold=$(printf '\033[1m') plain=$(printf '\033[0m')
fi

now() { echo $(($(date +%s%N) / 1000000)); } # ms
seconds() { printf '%d.%d s' $(($1 / 1000)) $(($1 % 1000 / 100)); }
info() { printf '     %s\n' "$*"; }
fail() {
    failure=$*
    exit 1
}
. contrib/setup.sh

number=0 title='' began='' times=''
# step TITLE: ends the step before it, with its time.
step() {
    end_step
    number=$((number + 1)) title=$1 began=$(now)
    printf '\n%s[%d/%d] %s%s\n' "$bold" "$number" "$STEPS" "$title" "$plain"
}
end_step() {
    [ -n "$began" ] || return 0
    took=$(seconds $(($(now) - began)))
    info "done in $took"
    times="$times$(printf '     %-58s %8s' "$title" "$took")
"
    began=''
}

s3fsx() { "$python" -m s3fsx "$@"; }
bucket() {
    command=$1
    shift
    "$python" contrib/demo_s3.py "$command" "$DEMO_DIR" "$@"
}
# requests: sets completes and copies to how many of these requests the mount has made.
requests() {
    s3fsx status --json "$DEMO_MOUNT" >"$DEMO_DIR/status.json" || fail "s3fsx status failed"
    counts=$("$python" -c '
import json, sys
(mount,) = json.load(sys.stdin).values()
made = mount["endpoint"]["requests"].get
print(made("CompleteMultipartUpload", 0), made("CopyObject", 0) + made("UploadPartCopy", 0))' <"$DEMO_DIR/status.json") ||
        fail "s3fsx status has no counters"
    completes=${counts% *} copies=${counts#* }
}
is_mounted() { awk -v dir="$DEMO_MOUNT" '$5 == dir { found = 1 } END { exit !found }' /proc/self/mountinfo; }
server_pid() {
    pid=$(cat "$DEMO_DIR/server.pid" 2>/dev/null) || return 1
    tr '\0' ' ' 2>/dev/null <"/proc/$pid/cmdline" | grep -qF "s3fsx gateway serve --path $DEMO_DIR/buckets " && echo "$pid"
}

# tear_down: removes the run in DEMO_DIR. Prints nothing when it works, else the reason, and returns 1.
tear_down() {
    if is_mounted && ! s3fsx umount --timeout 90 "$DEMO_MOUNT" 2>"$DEMO_DIR/umount.said"; then
        cat "$DEMO_DIR/umount.said"
        return 1
    fi
    end_server
    [ ! -e "$DEMO_DIR/made-mountpoint" ] || rmdir "$DEMO_MOUNT" 2>/dev/null || true
    rm -rf --one-file-system "$DEMO_DIR"
}
# give_up: the same for a run that failed. Nobody waits for what could still be published.
give_up() {
    if is_mounted; then
        pid=$(s3fsx status --json "$DEMO_MOUNT" 2>/dev/null | awk -F'[:, ]+' '$2 == "\"pid\"" { print $3 }')
        [ -z "$pid" ] || kill -9 "$pid" 2>/dev/null || true
        umount -l "$DEMO_MOUNT" || true
    fi
    tear_down
}
end_server() {
    if pid=$(server_pid); then
        kill "$pid" 2>/dev/null || true
        tries=0
        while server_pid >/dev/null && [ $tries -lt 50 ]; do sleep 0.1; tries=$((tries + 1)); done
        ! server_pid >/dev/null || kill -9 "$pid" 2>/dev/null || true
    fi
}

# What failed, whether all is done, and whether what is there was made by this very run.
failure='' finished='' made=''
at_exit() {
    status=$?
    trap - EXIT INT TERM HUP
    [ -z "$finished" ] || exit "$status"
    [ "$status" != 0 ] || status=1
    [ -n "$failure" ] || failure="a command failed, as said above"
    [ -z "$title" ] || failure="step $number, $title: $failure"
    if [ -n "$made" ]; then
        grep -hE ' (WARNING|ERROR|CRITICAL) ' "$DEMO_DIR/s3fsx.log" 2>/dev/null | tail -n 5 >&2 || true
        give_up >&2 || true
    fi
    printf 'demo.sh: %s\n' "$failure" >&2
    exit "$status"
}
trap at_exit EXIT
trap 'failure=interrupted; exit 130' INT
trap 'failure=terminated; exit 143' TERM HUP

# --- what vzdump does ------------------------------------------------------------------------------------------------

log() {
    info "$*"
    printf '%s INFO: %s\n' "$(date '+%Y-%m-%d %H:%M:%S')" "$*" >>"$DEMO_DIR/guest/vzdump.log"
}
# rename(2) and nothing else; mv would copy where that fails.
rename() { perl -e 'rename($ARGV[0], $ARGV[1]) or die "rename: $!\n"' "$1" "$2" || fail "rename to $2 failed"; }
prepare() { # target temporary
    rm -f "$2"
    df -P -T -B 1 "${1%/*}" >/dev/null || fail "df failed"
}
commit() { # target temporary
    requests
    completes_before=$completes copies_before=$copies
    renamed=$(now)
    rename "$2" "$1"
    renamed=$(($(now) - renamed))
    requests
    completes=$((completes - completes_before)) copies=$((copies - copies_before))
    [ -s "$1" ] || fail "$1 is empty"
    log "renamed to ${1##*/}"
    info "  in $renamed ms: $completes CompleteMultipartUpload, $copies copies"
    [ "$copies" = 0 ] || fail "the rename copied"
}
finish() { # target temporary notes
    # O_EXCL, as PVE::Tools::file_set_contents
    (set -C && printf '%s\n' "$3" >"$1.notes.tmp.$$") || fail "the notes could not be written"
    rename "$1.notes.tmp.$$" "$1.notes"
    # Nothing is written: the file is only created, by opening it for reading.
    perl -e 'use Fcntl; sysopen(my $f, $ARGV[0], O_RDONLY|O_CREAT, 0644) or die "$!\n"; close($f)' "$1.protected" ||
        fail "the protection mark could not be set"
    log "notes and protection set"
    [ ! -e "$2" ] || fail "$2 is still there"
}

make_guests() {
    mkdir "$DEMO_DIR/guest" "$DEMO_DIR/guest/ct"
    # 64 MiB: 24 that do not compress, 24 of text, 16 of free space.
    for block in 1 2 3 4 5 6 7 8; do
        head -c 3145728 /dev/urandom
        yes "block $block of a database table, which compresses well" 2>/dev/null | head -c 3145728
        head -c 2097152 /dev/zero
    done >"$DEMO_DIR/guest/disk.raw"
    mkdir -p "$DEMO_DIR/guest/ct/etc" "$DEMO_DIR/guest/ct/var/lib"
    echo demo >"$DEMO_DIR/guest/ct/etc/hostname"
    cp -r /etc/apt "$DEMO_DIR/guest/ct/etc/" 2>/dev/null || true
    head -c 6291456 /dev/urandom >"$DEMO_DIR/guest/ct/var/lib/data"
    ln -s var/lib "$DEMO_DIR/guest/ct/lib"
    head -c 8388608 /dev/urandom >"$DEMO_DIR/guest/installer.iso"
}

back_up_vm() {
    stem=$DEMO_MOUNT/dump/vzdump-qemu-100-$stamp
    vm=$stem.vma.zst
    prepare "$vm" "$stem.vma.dat"
    rm -rf "$stem.tmp"
    mkdir "$stem.tmp" || fail "the scratch directory could not be made"
    rm -f "$stem.log"
    printf 'memory: 2048\nscsi0: demo:100/vm-100-disk-0.raw,size=64M\n' >"$stem.tmp/qemu-server.conf" ||
        fail "the guest's configuration could not be written"
    log "creating vzdump archive ${stem##*/}.vma.dat"
    wrote=$(now)
    # Through a pipe, as QEMU feeds it.
    # shellcheck disable=SC2002
    cat "$DEMO_DIR/guest/disk.raw" | zstd --threads=1 -q >"$stem.vma.dat" || fail "writing the archive failed"
    wrote=$(($(now) - wrote))
    log "$(($(stat -c %s "$stem.vma.dat") >> 20)) MiB written and closed in $(seconds $wrote)"
    waiting=$(bucket uploads) || fail "the S3 server does not answer"
    [ "$waiting" = "pve/dump/${vm##*/}" ] || fail "no upload waits under the final name"
    bucket list >"$DEMO_DIR/listing" || fail "the S3 server does not answer"
    ! grep -q '\.vma' "$DEMO_DIR/listing" || fail "the archive is visible before the rename"
    info "  in the bucket: an upload waits under the final name, nothing is visible"
    commit "$vm" "$stem.vma.dat"
    finish "$vm" "$stem.vma.dat" "VM 100, made by the demo"
    rm -rf "$stem.tmp" || fail "the scratch directory could not be removed"
    cp "$DEMO_DIR/guest/vzdump.log" "$stem.log" || fail "the log could not be copied"
}

back_up_container() {
    stem=$DEMO_MOUNT/dump/vzdump-lxc-101-$stamp
    ct=$stem.tar.zst
    prepare "$ct" "$stem.tar.dat"
    log "creating vzdump archive ${stem##*/}.tar.dat"
    bash -c 'set -o pipefail; tar cpf - -C "$1" . | zstd --threads=1 -q > "$2"' - \
        "$DEMO_DIR/guest/ct" "$stem.tar.dat" || fail "writing the archive failed"
    commit "$ct" "$stem.tar.dat"
    finish "$ct" "$stem.tar.dat" "container 101, made by the demo"
    cp "$DEMO_DIR/guest/vzdump.log" "$stem.log" || fail "the log could not be copied"
    log "a backup that fails: written, then its .dat is deleted"
    failed=$DEMO_MOUNT/dump/vzdump-qemu-102-$stamp.vma.dat
    head -c 16777216 "$DEMO_DIR/guest/disk.raw" | zstd -1 -q >"$failed" || fail "writing the archive failed"
    rm "$failed" || fail "the .dat could not be deleted"
}

# --- the steps -------------------------------------------------------------------------------------------------------

set_up() {
    if [ -n "${DEMO_PYTHON:-}" ]; then
        python=$DEMO_PYTHON
        info "using $python"
    else
        # shellcheck disable=SC2046,SC2086 # lists
        set -- $(missing_packages $BUILD_PACKAGES attr zstd)
        if [ $# -gt 0 ]; then
            info "installing with apt, which may take some minutes:"
            echo "$*" | fold -s -w 70 | while read -r line; do info "  $line"; done
            install_packages "$@"
        fi
        need_python contrib/demo.sh
        if ! venv_ready gateway; then
            info "installing s3fsx in .venv, which may take some minutes"
            make_venv gateway
        fi
        python=$PWD/.venv/bin/python
    fi
    need_fuse
    for program in zstd perl bash tar; do
        command -v $program >/dev/null || fail "$program is not installed"
    done
    info "$("$python" -V), $(s3fsx --version)"
}

start_server() {
    mkdir -p "$DEMO_DIR"
    made=yes
    chmod 0700 "$DEMO_DIR"
    : >"$DEMO_DIR/.s3fsx-demo"
    access_key=DEMO$(od -An -N8 -tx1 /dev/urandom | tr -d ' \n')
    secret_key=$(od -An -N20 -tx1 /dev/urandom | tr -d ' \n')
    # Files, 0600 from the start: no keys on a command line.
    (umask 077 && echo "$access_key:$secret_key" >"$DEMO_DIR/gateway.keys" && cat >"$DEMO_DIR/demo.toml") <<TOML
bucket = "$BUCKET"
prefix = "pve/"
access_key = "$access_key"
secret_key = "$secret_key"
cache_dir = "$DEMO_DIR/cache"
state_dir = "$DEMO_DIR/state"
log_file = "$DEMO_DIR/s3fsx.log"
write_deadline = "30s"
publish_deadline = "60s"
TOML
    mkdir "$DEMO_DIR/buckets"
    setsid "$python" -m s3fsx gateway serve --path "$DEMO_DIR/buckets" --listen "127.0.0.1:$DEMO_PORT" \
        --access-key-file "$DEMO_DIR/gateway.keys" </dev/null >"$DEMO_DIR/server.said" 2>"$DEMO_DIR/server.log" &
    started=$!
    echo "$started" >"$DEMO_DIR/server.pid"
    tries=0
    until endpoint=$(grep -o -m 1 'http://[0-9.:]*' "$DEMO_DIR/server.said"); do
        kill -0 "$started" 2>/dev/null || fail "the S3 server ended: $(tail -n 1 "$DEMO_DIR/server.log")"
        [ $tries -lt 300 ] || fail "the S3 server did not start within 30 s"
        sleep 0.1
        tries=$((tries + 1))
    done
    echo "$endpoint" >"$DEMO_DIR/endpoint"
    echo "endpoint = \"$endpoint\"" >>"$DEMO_DIR/demo.toml"
    bucket make || fail "the S3 server does not answer"
    info "s3fsx gateway at $endpoint, bucket $BUCKET, in $DEMO_DIR/buckets"
}

mount_it() {
    s3fsx mount demo "$DEMO_MOUNT" 2>"$DEMO_DIR/mount.said" || fail "$(tail -n 1 "$DEMO_DIR/mount.said")"
}

restore() {
    # What is read now cannot come from this machine's memory.
    s3fsx umount "$DEMO_MOUNT" || fail "unmounting failed"
    rm -rf "$DEMO_DIR/cache"
    mount_it
    info "mounted anew, with empty caches"
    expected=$(sha256sum <"$DEMO_DIR/guest/disk.raw")
    restored=$({ zstd -q -d -c "$vm" || echo failed; } | sha256sum)
    [ "$restored" = "$expected" ] || fail "the restored disk differs from the guest's"
    info "VM disk      sha256 $(echo "${restored%% *}" | cut -c1-32)..."
    info "             restored through zstd, identical"
    stored=$(bucket sha256 "pve/dump/${vm##*/}") || fail "the S3 server does not answer"
    through=$(sha256sum <"$vm")
    [ "${through%% *}" = "$stored" ] || fail "mount and bucket differ"
    info "archive      sha256 the same through the mount and from the bucket"
    zstd -q -d -c "$ct" | tar -t >"$DEMO_DIR/guest/names" || fail "the container's archive cannot be read"
    mkdir "$DEMO_DIR/guest/ct-restored"
    zstd -q -d -c "$ct" | tar -xp -C "$DEMO_DIR/guest/ct-restored" || fail "the container cannot be restored"
    diff -r --no-dereference "$DEMO_DIR/guest/ct" "$DEMO_DIR/guest/ct-restored" >/dev/null ||
        fail "the restored container differs"
    info "container    $(wc -l <"$DEMO_DIR/guest/names") entries, restored, identical"
    cmp -s "$DEMO_DIR/guest/installer.iso" "$DEMO_MOUNT/template/iso/installer.iso" || fail "the ISO differs"
    info "ISO          identical"
}

run() {
    need_root contrib/demo.sh
    if [ -e "$DEMO_DIR" ] && [ ! -e "$DEMO_DIR/.s3fsx-demo" ]; then
        mine=$(ls -A "$DEMO_DIR") || fail "$DEMO_DIR is no directory"
        [ -z "$mine" ] || fail "$DEMO_DIR is not empty and not of this demo; set DEMO_DIR to another one"
    fi
    printf '%ss3fsx demo: a Proxmox VE backup into an S3 bucket and back%s\n' "$bold" "$plain"
    all=$(now)

    step "Set up"
    set_up
    if [ -e "$DEMO_DIR/.s3fsx-demo" ]; then
        problem=$(tear_down) || fail "the former run cannot be removed: $problem"
        info "former run removed"
    fi
    ! is_mounted || fail "$DEMO_MOUNT is a mountpoint, and not of this demo; set DEMO_MOUNT to another one"

    step "Start an S3 server"
    start_server

    step "Mount the bucket"
    if [ ! -d "$DEMO_MOUNT" ]; then
        mkdir -p "$DEMO_MOUNT" || fail "$DEMO_MOUNT cannot be made"
        : >"$DEMO_DIR/made-mountpoint"
    fi
    mount_it
    info "s3://$BUCKET/pve/ is $DEMO_MOUNT"

    step "Make a guest: a disk of 64 MiB, a container, an ISO image"
    make_guests

    step "Back up VM 100 as vzdump does"
    stamp=$(date +%Y_%m_%d-%H_%M_%S)
    back_up_vm

    step "Back up container 101, and let a third backup fail"
    back_up_container

    step "Upload an ISO image as the GUI does, with cp"
    cp -- "$DEMO_DIR/guest/installer.iso" "$DEMO_MOUNT/template/iso/installer.iso" || fail "cp failed"

    step "Look into the bucket, through the S3 API"
    bucket list >"$DEMO_DIR/listing" || fail "the S3 server does not answer"
    cat "$DEMO_DIR/listing"
    grep -q '^ *0 unfinished multipart uploads$' "$DEMO_DIR/listing" || fail "a multipart upload is left"
    ! grep -q -e '\.dat$' -e '\.tmp' "$DEMO_DIR/listing" || fail "a temporary name is left"

    step "Restore and compare"
    restore
    end_step

    printf '\n%ss3fsx status%s\n' "$bold" "$plain"
    s3fsx status "$DEMO_MOUNT" >"$DEMO_DIR/status" || fail "s3fsx status failed"
    cat "$DEMO_DIR/status"
    printf '\n%sOK: all identical, no rename copied, no upload left behind%s\n' "$bold" "$plain"
    printf '%s' "$times"
    printf '     %-58s %8s\n' "all" "$(seconds $(($(now) - all)))"
    finished=yes
    hint
}

hint() {
    cat <<END

The mount is up. Have a look:
  ls -l $DEMO_MOUNT/dump
  df -h $DEMO_MOUNT
  getfattr -d $DEMO_MOUNT/template/iso/installer.iso
  cat $DEMO_DIR/s3fsx.log
  ls -l $DEMO_DIR/buckets/$BUCKET/pve/dump
  alias s3fsx='S3FSX_CONFIG_DIR=$DEMO_DIR $python -m s3fsx'
  s3fsx status --watch
  s3fsx backups demo
  s3fsx ls -l demo:dump
  s3fsx verify demo --all
Remove everything:
  sh contrib/demo.sh stop
END
}

case $DEMO_DIR$DEMO_MOUNT in *[!A-Za-z0-9/._-]*) fail "DEMO_DIR and DEMO_MOUNT: plain names only" ;; esac
case $DEMO_DIR in /*) ;; *) fail "DEMO_DIR = $DEMO_DIR is no absolute path" ;; esac
python=${DEMO_PYTHON:-$PWD/.venv/bin/python}
case ${1:-run} in
run) run ;;
stop)
    need_root "contrib/demo.sh stop"
    if [ -e "$DEMO_DIR/.s3fsx-demo" ]; then
        problem=$(tear_down) || fail "not stopped: $problem"
        echo "demo stopped, $DEMO_DIR deleted"
    else
        echo "no demo in $DEMO_DIR"
    fi
    ;;
status)
    need_root "contrib/demo.sh status"
    [ -e "$DEMO_DIR/.s3fsx-demo" ] || fail "no demo in $DEMO_DIR"
    echo "S3 server: $(server_pid >/dev/null && cat "$DEMO_DIR/endpoint" || echo 'not running')"
    s3fsx status "$DEMO_MOUNT" || fail "not mounted"
    ;;
-h | --help | help) sed -n '2,15s/^# \{0,1\}//p' "$0" ;;
*) fail "unknown command $1; use: sh contrib/demo.sh [stop | status]" ;;
esac
finished=yes
