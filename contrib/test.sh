#!/bin/sh
# Sets up and runs everything that CI runs: sh contrib/test.sh [-- arguments for pytest]
#
# On Debian 12 or 13, as root (the tests mount). Installs packages only where they are missing, and keeps a virtual
# environment in .venv that is made anew when pyproject.toml or the Python changes. PYTHON chooses the interpreter.
set -eu

cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python3}
# A compiler and headers for pyfuse3, the programs that Proxmox runs on a storage, and Ceph RGW to test against.
PACKAGES="fuse3 libfuse3-dev pkg-config gcc python3 python3-dev python3-venv
    perl attr openssl qemu-utils lzop pigz zstd tar gzip mount
    radosgw ceph-mon ceph-osd python3-rados"

say() { printf '\n== %s\n' "$*"; }
fail() {
    printf 'test.sh: %s\n' "$*" >&2
    exit 1
}

[ "${1:-}" != -- ] || shift
[ "$(id -u)" = 0 ] || fail "must run as root: the tests mount file systems (sudo sh contrib/test.sh)"

missing=
for package in $PACKAGES; do
    case $(dpkg-query -W -f '${db:Status-Abbrev}' "$package" 2>/dev/null) in
    ii*) ;;
    *) missing="$missing $package" ;;
    esac
done
# Only makes RGW faster; it has another package name in Debian 13, which provides this one.
ls /usr/lib/*/libtcmalloc_minimal.so.4 >/dev/null 2>&1 || missing="$missing libtcmalloc-minimal4"
if [ -n "$missing" ]; then
    say "installing:$missing"
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -q
    # shellcheck disable=SC2086 # a list
    apt-get install -y -q --no-install-recommends $missing || fail "apt-get could not install:$missing"
fi

[ -e /dev/fuse ] || modprobe fuse 2>/dev/null || true
[ -e /dev/fuse ] || fail "/dev/fuse is missing: load the fuse module (in a container: give it the device)"
"$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    fail "$PYTHON is $("$PYTHON" -V 2>&1), 3.11 or later is needed (PYTHON=/usr/bin/python3.11 sh contrib/test.sh)"

key=$({ "$PYTHON" -c 'import sys; print(sys.version, sys.executable)'; pwd; cat pyproject.toml; } | sha256sum)
if [ "$(cat .venv/key 2>/dev/null)" != "$key" ]; then
    say "virtual environment with $("$PYTHON" -V)"
    rm -rf .venv
    "$PYTHON" -m venv .venv
    .venv/bin/python -m pip install -q --retries 10 --disable-pip-version-check -e '.[test]'
    printf '%s\n' "$key" >.venv/key
fi

say "ruff"
.venv/bin/ruff check .
.venv/bin/ruff format --check .
say "mypy --strict"
.venv/bin/mypy
say "pytest"
exec .venv/bin/python -m pytest "$@"
