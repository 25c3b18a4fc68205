#!/bin/sh
# Tests the Debian package in a clean Debian: sh contrib/test-deb.sh [12|13] [arguments for pytest]
#
# Builds the package, installs it in a root of Debian 12 (Proxmox VE 8) or 13 (9) with what it depends on and no Python
# package of another kind, and runs the real-mount suite (tests/mount), or what the arguments say, on what was installed.
# pytest and moto, which Debian 12 does not have, come into a virtual environment beside it. What failed is run once
# more. As root. CI runs a part of the suite so, in both: tests/packaging/test_installed.py.
#
#     DEB    a package that is built already
set -eu

fail() {
    printf 'test-deb.sh: %s\n' "$*" >&2
    exit 1
}
cd "$(dirname "$0")/.."
. contrib/setup.sh

release=12
case ${1:-} in
12 | 13)
    release=$1
    shift
    ;;
esac
[ $# -gt 0 ] || set -- tests/mount
need_root contrib/test-deb.sh
need_fuse
# shellcheck disable=SC2046 # a list
install_packages $(missing_packages debootstrap)

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
if [ -n "${DEB:-}" ]; then
    cp "$DEB" "$work" || fail "no package $DEB"
else
    sh contrib/build-deb.sh "$work" >/dev/null || fail "the package could not be built"
fi
mkdir "$work/tree"
cp -r tests contrib docs README.md CHANGELOG.md pyproject.toml "$work/tree" # all but the code

cat >"$work/inside" <<'INSIDE'
set -eu
apt-get update -q >/dev/null
echo "== installing the package"
apt-get install -y -q --no-install-recommends /build/s3fsx_*_all.deb >/build/log 2>&1 || { tail -n 30 /build/log; exit 1; }
dpkg-query -W -f '${Package} ${Version}\n' s3fsx python3 python3-pyfuse3 python3-trio python3-boto3 python3-botocore \
    python3-diskcache python3-urllib3 fuse3
echo "== installing what the tests need"
apt-get install -y -q --no-install-recommends python3-venv perl attr openssl qemu-utils lzop pigz zstd tar gzip mount \
    procps psmisc radosgw ceph-mon ceph-osd python3-rados strace iproute2 libtcmalloc-minimal4 gcc libc6-dev \
    >/build/log 2>&1 || { tail -n 30 /build/log; exit 1; }
python3 -m venv --system-site-packages /venv
extra=$(python3 -c 'import tomllib; print("\n".join(
    d for d in tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["test"]
    if d.split(">")[0] not in ("mypy", "ruff")))')
printf '%s\n' "$extra" >/build/requirements
/venv/bin/pip install -q --retries 10 -r /build/requirements
/venv/bin/python -c 'import s3fsx, boto3, trio, pyfuse3
for m in s3fsx, boto3, trio, pyfuse3: assert m.__file__.startswith("/usr/lib/python3/dist-packages/"), m'
echo "== pytest $*"
# Debian 13's botocore, not ours: a warning is an error in these tests.
set -- -W 'ignore:datetime.datetime.utcnow() is deprecated:DeprecationWarning' "$@"
status=0
/venv/bin/python -m pytest "$@" || status=$?
[ "$status" = 1 ] || exit "$status"
# As contrib/test.sh does, and for the same reason.
echo "== pytest, again: what failed"
exec /venv/bin/python -m pytest --last-failed --last-failed-no-failures=none "$@"
INSIDE

passed=''
for name in $(env | sed -n 's/^\(PIP_INDEX_URL\|PIP_EXTRA_INDEX_URL\|PIP_DEFAULT_TIMEOUT\|https\?_proxy\|no_proxy\)=.*/\1/p'); do
    passed="$passed --env $name=$(printenv "$name")"
done
status=0
# shellcheck disable=SC2086 # options
python3 contrib/debroot.py "$release" --bind "$work:/build" $passed -- \
    sh -c 'cd /build/tree && exec sh /build/inside "$@"' - "$@" || status=$?
exit "$status"
