#!/bin/sh
# Builds the Debian package: sh contrib/build-deb.sh [DIRECTORY]
#
# On Debian 12 or 13, as root (it installs what building needs, with apt). s3fsx_VERSION_all.deb is put into DIRECTORY
# (dist), for Debian 12 and 13 and Proxmox VE 8 and 9. The same source makes the same bytes: the dates in it are that of
# contrib/debian/changelog.
set -eu

fail() {
    printf 'build-deb.sh: %s\n' "$*" >&2
    exit 1
}
mkdir -p "${1:-dist}" || fail "no directory for the package"
out=$(realpath "${1:-dist}")
cd "$(dirname "$0")/.."
. contrib/setup.sh

need_root contrib/build-deb.sh
needed=$(sed -n '/^Build-Depends:/,/^[^ ]/s/^ \([a-z0-9-]*\).*/\1/p' contrib/debian/control)
# shellcheck disable=SC2046,SC2086 # lists
install_packages $(missing_packages build-essential dpkg-dev lintian $needed)

tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT
mkdir "$tree/s3fsx"
cp -r pyproject.toml README.md CHANGELOG.md LICENSE s3fsx docs contrib "$tree/s3fsx"
find "$tree" -name __pycache__ -prune -exec rm -r {} +
cp -r contrib/debian "$tree/s3fsx/debian"
cd "$tree/s3fsx"
# The distribution's Python and no other.
unset PYTHONPATH PYTHONHOME
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
logged dpkg-buildpackage --build=binary --unsigned-source --unsigned-changes || fail "dpkg-buildpackage failed"
logged lintian --fail-on error,warning "$tree"/*.changes || fail "lintian has found something"
cp "$tree"/*.deb "$out"
printf '%s\n' "$out"/s3fsx_*_all.deb
