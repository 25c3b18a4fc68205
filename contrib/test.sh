#!/bin/sh
# Sets up and runs everything that CI runs: sh contrib/test.sh [-- arguments for pytest]
#
# On Debian 12 or 13, as root (the tests mount). Installs packages only where they are missing, and keeps a virtual
# environment in .venv that is made anew when pyproject.toml or the Python changes. PYTHON chooses the interpreter.
# Mounts are tested on Ceph RGW; with S3FSX_TEST_STORE=gateway on s3fsx gateway, where what only RGW has is skipped.
set -eu

cd "$(dirname "$0")/.."
say() { printf '\n== %s\n' "$*"; }
fail() {
    printf 'test.sh: %s\n' "$*" >&2
    exit 1
}
. contrib/setup.sh

# Besides what building needs: the programs that Proxmox runs on a storage, Ceph RGW to test against, what kills the
# daemon in the middle of a write, what the benchmark makes its network with, and what makes the clean Debian that the
# package is tried in, and the clients of the gateway.
PACKAGES="$BUILD_PACKAGES perl attr openssl qemu-utils pigz zstd tar gzip
    radosgw ceph-mon ceph-osd python3-rados strace iproute2 debootstrap systemd bzip2 lzop
    awscli rclone restic s3fs s3cmd duplicity python3-boto3"

[ "${1:-}" != -- ] || shift
need_root contrib/test.sh

# shellcheck disable=SC2086 # a list
missing=$(missing_packages $PACKAGES)
# Only makes RGW faster; it has another package name in Debian 13, which provides this one.
ls /usr/lib/*/libtcmalloc_minimal.so.4 >/dev/null 2>&1 || missing="$missing libtcmalloc-minimal4"
if [ -n "$missing" ]; then
    say "installing: $missing"
    # shellcheck disable=SC2086 # a list
    install_packages $missing
fi
need_fuse
need_python contrib/test.sh
if ! venv_ready test; then
    say "virtual environment with $("$PYTHON" -V)"
    make_venv test
fi

say "ruff"
.venv/bin/ruff check .
.venv/bin/ruff format --check .
say "mypy --strict"
.venv/bin/mypy
say "pytest"
status=0
.venv/bin/python -m pytest "$@" || status=$?
[ "$status" = 1 ] || exit "$status"
# Real mounts, kills and deadlines, for most of an hour, on a machine that may be busy with others: what failed is run once
# more by itself, and both outcomes stand in the log. What fails twice is broken.
say "pytest, again: what failed"
exec .venv/bin/python -m pytest --last-failed --last-failed-no-failures=none "$@"
