# Sourced by demo.sh and test.sh, in the root of the checkout: what both need on a Debian machine.
# shellcheck shell=sh
#
# PYTHON chooses the interpreter of the virtual environment .venv, which both share. Whoever sources this defines
# fail(), which prints one line and exits.

PYTHON=${PYTHON:-python3}
# pyfuse3 comes as source: a compiler and headers.
# shellcheck disable=SC2034 # used by those who source this
BUILD_PACKAGES="fuse3 libfuse3-dev pkg-config gcc libc6-dev mount python3 python3-dev python3-venv"

need_root() {
    [ "$(id -u)" = 0 ] || fail "must run as root: it mounts a file system (sudo sh $1)"
}

# logged COMMAND...: what it says is shown only when it fails.
logged() {
    setup_log=$(mktemp)
    setup_status=0
    "$@" >"$setup_log" 2>&1 </dev/null || setup_status=$?
    [ "$setup_status" = 0 ] || tail -n 30 "$setup_log" >&2
    rm -f "$setup_log"
    return "$setup_status"
}

# missing_packages NAME...: prints those that are not installed.
missing_packages() {
    for package in "$@"; do
        case $(dpkg-query -W -f '${db:Status-Abbrev}' "$package" 2>/dev/null) in
        ii*) ;;
        *) printf '%s ' "$package" ;;
        esac
    done
}

# install_packages NAME...: with apt, if there are any. A fresh machine may be busy with its first upgrades.
install_packages() {
    [ $# -gt 0 ] || return 0
    command -v apt-get >/dev/null || fail "no apt-get here (Debian 12 or 13 is expected); please install: $*"
    export DEBIAN_FRONTEND=noninteractive
    logged apt-get update -q || fail "apt-get update failed"
    logged apt-get install -y -q --no-install-recommends -o DPkg::Lock::Timeout=300 "$@" ||
        fail "apt-get could not install: $*"
}

need_fuse() {
    [ -e /dev/fuse ] || modprobe fuse 2>/dev/null || true
    [ -e /dev/fuse ] || fail "/dev/fuse is missing: load the fuse module (in a container: give it the device)"
}

# need_python SCRIPT: the script is named in the advice only.
need_python() {
    command -v "$PYTHON" >/dev/null || fail "$PYTHON is not there"
    "$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
        fail "$PYTHON is $("$PYTHON" -V 2>&1), 3.11 or later is needed (PYTHON=/usr/bin/python3.11 sh $1)"
}

venv_key() {
    { "$PYTHON" -c 'import sys; print(sys.version, sys.executable)'; pwd; cat pyproject.toml; } | sha256sum
}

# venv_ready EXTRA: .venv has what pyproject.toml asks for, with that extra. "test" has everything of "gateway".
venv_ready() {
    [ -x .venv/bin/python ] && [ "$(cat .venv/key 2>/dev/null)" = "$(venv_key)" ] &&
        { [ -e ".venv/has-$1" ] || [ -e .venv/has-test ]; }
}

# make_venv EXTRA: anew when pyproject.toml or the Python changed, else only what is lacking.
make_venv() {
    if [ "$(cat .venv/key 2>/dev/null)" != "$(venv_key)" ]; then
        rm -rf .venv
        logged "$PYTHON" -m venv .venv || fail "$PYTHON could not make the virtual environment .venv"
        venv_key >.venv/key
    fi
    PIP_ROOT_USER_ACTION=ignore logged .venv/bin/python -m pip install -q --retries 10 --disable-pip-version-check \
        -e ".[$1]" || fail "pip could not install s3fsx with its dependencies"
    : >".venv/has-$1"
}
