#!/bin/sh
# Makes .venv in the checkout with k2 in it: `scripts/setup.sh`, with what the tests need: `scripts/setup.sh dev`.
#
# Every package comes by the hashes of requirements.lock (dev: requirements-dev.lock). Where something is missing
# that only the machine's owner can add, it prints the one command that adds it and exits 1.
# PYTHON names the interpreter to use; else the newest of 3.13, 3.12, 3.11 on the PATH.
set -eu
cd "$(dirname "$0")/.."

case "${1:-}" in
'') lock=requirements.lock ;;
dev) lock=requirements-dev.lock ;;
*)
    echo "usage: scripts/setup.sh [dev]" >&2
    exit 2
    ;;
esac

has() { command -v "$1" >/dev/null 2>&1; }

as_root() { if [ "$(id -u)" = 0 ]; then echo "$*"; else echo "sudo $*"; fi; }

apt() { echo "$(as_root apt-get update) && $(as_root apt-get install -y "$@")"; }

# One sentence that says what is missing, the one command that mends it.
mend() {
    printf '\nk2stream cannot be set up yet: %s\nThis mends it; then run the same again:\n\n    %s\n\n' "$1" "$2" >&2
    exit 1
}

is_supported() { "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' >/dev/null 2>&1; }

find_python() {
    for candidate in ${PYTHON:-python3.13 python3.12 python3.11 python3 python}; do
        if has "$candidate" && is_supported "$candidate"; then
            echo "$candidate"
            return
        fi
    done
}

get_python() {
    if has apt-get; then
        for version in 3.13 3.12 3.11; do
            if apt-cache show "python$version-venv" >/dev/null 2>&1; then
                apt "python$version" "python$version-venv"
                return
            fi
        done
    elif has dnf; then
        as_root dnf install -y python3.12
        return
    elif has brew; then
        echo "brew install python@3.13"
        return
    fi
    echo "curl -LsSf https://astral.sh/uv/install.sh | sh" # uv brings a Python of its own
}

get_venv() {
    if has apt-get; then
        version=$("$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
        apt "python$version-venv"
    else
        echo "curl -LsSf https://astral.sh/uv/install.sh | sh" # uv needs no module of Python's
    fi
}

get_compiler() {
    if has apt-get; then
        apt build-essential python3-dev
    elif has xcode-select; then
        echo "xcode-select --install"
    elif has dnf; then
        as_root dnf install -y gcc gcc-c++ python3-devel
    else
        echo "install a C compiler with your system's package manager"
    fi
}

make_with_uv() {
    if [ -n "${PYTHON:-}" ]; then wanted=$PYTHON; else wanted='>=3.11,<3.14'; fi
    [ -x .venv/bin/python ] || uv venv --quiet --python "$wanted" .venv
    uv pip install --quiet --python .venv/bin/python --require-hashes --requirement "$lock"
    uv pip install --quiet --python .venv/bin/python --no-deps --no-build-isolation --editable .
}

make_with_pip() {
    if [ ! -x .venv/bin/python ]; then
        python=$(find_python)
        [ -n "$python" ] || mend "it needs Python 3.11, 3.12 or 3.13 and finds none." "$(get_python)"
        "$python" -c 'import ensurepip, venv' >/dev/null 2>&1 ||
            mend "$python has no venv module with pip." "$(get_venv "$python")"
        "$python" -m venv .venv
    fi
    .venv/bin/python -m pip --version >/dev/null 2>&1 || .venv/bin/python -m ensurepip --upgrade >/dev/null
    pip="env PIP_DISABLE_PIP_VERSION_CHECK=1 .venv/bin/python -m pip install --quiet"
    $pip --require-hashes --requirement "$lock"
    $pip --no-deps --no-build-isolation --editable .
}

rm -f .venv/setup.log
if [ -d .venv ] && ! .venv/bin/python -c 'import sys' >/dev/null 2>&1; then
    rm -rf .venv # left half made by an interrupted run, or its interpreter is gone
fi
echo "Setting up .venv from $lock (a minute or so the first time)..."
if has uv; then
    make_with_uv || failed=yes
else
    make_with_pip || failed=yes
fi
if [ "${failed:-}" = yes ]; then
    has cc || has gcc || has clang || mend "a package has no wheel for this machine and there is no C compiler to build it." "$(get_compiler)"
    echo "k2stream could not be set up: the lines above say why. If a package could not be fetched, see to the network and run the same again." >&2
    exit 1
fi
touch ".venv/.made-from-$lock"
[ "$lock" = requirements.lock ] || touch .venv/.made-from-requirements.lock
