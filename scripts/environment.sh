# Makes the environment of the checkout; sourced by demo, test and check.
#
#   make_environment LOCK...   makes .venv from the last lock named, unless it was made from one of them as they are now

ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
VENV="$ROOT/.venv"
PYTHON="$VENV/bin/python"
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1
unset PYTHONDONTWRITEBYTECODE # compiling every module at every start takes seconds

say() { printf '%s\n' "$*" >&2; }

fail() {
    say "$1"
    say "  hint: $2"
    exit 1
}

find_python() {
    local candidate
    for candidate in ${QALA_PYTHON:-} python3.11 python3.12 python3.13 python3; do
        if "$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null; then
            printf '%s\n' "$candidate"
            return
        fi
    done
    fail "Python 3.11, 3.12 or 3.13 is needed, and not found." \
        "on Debian or Ubuntu: apt-get install python3 python3-venv   (or name one: QALA_PYTHON=/path/to/python3.11)"
}

# What .venv is made of: the lock's hash and the place of the checkout, which an environment cannot leave.
stamp_of() { printf '%s %s %s\n' "$1" "$(sha256sum < "$ROOT/$1" | cut -c1-64)" "$ROOT"; }

is_made_from() {
    local lock
    for lock in "$@"; do
        grep -qxF "$(stamp_of "$lock")" "$VENV/.made-from" 2>/dev/null && return 0
    done
    return 1
}

make_venv() {
    local python="$1"
    "$PYTHON" -m pip --version > /dev/null 2>&1 && return
    "$python" -c 'import ensurepip, venv' 2> /dev/null ||
        fail "This Python ($python) cannot make virtual environments." "on Debian or Ubuntu: apt-get install python3-venv"
    say "making the environment $VENV with $("$python" --version)"
    "$python" -m venv --clear "$VENV"
}

# Shows a line every few packages of what pip does, and all of it where it fails.
install_packages() {
    local lock="$1" log="$VENV/install.log" total
    total="$(grep -c '^[a-zA-Z0-9]' "$ROOT/$lock")"
    say "installing $total packages of $lock"
    if ! "$PYTHON" -m pip install --require-hashes --progress-bar off -r "$ROOT/$lock" 2>&1 | tee "$log" |
        awk -v total="$total" '
            /^Collecting|^Requirement already/ { n++; if (n % 10 == 0) { printf "  %d of %d fetched\n", n, total; fflush() } }
            /^Installing collected/ { print "  all fetched, unpacking"; fflush() }' >&2; then
        tail -n 15 "$log" >&2 || true
        fail "The packages could not be installed." "is the package index reachable? The whole log: $log"
    fi
}

install_project() {
    local log="$VENV/install.log"
    "$PYTHON" "$ROOT/hatch_build.py" >> "$log" 2>&1 || say "the page was not built (see $log); everything else works"
    if ! "$PYTHON" -m pip install --no-deps --no-build-isolation --progress-bar off -e "$ROOT" >> "$log" 2>&1; then
        tail -n 15 "$log" >&2 || true
        fail "The project itself could not be installed." "the whole log: $log"
    fi
}

make_environment() {
    local lock="${!#}" python
    set -o pipefail
    if ! is_made_from "$@"; then
        python="$(find_python)"
        make_venv "$python"
        rm -f "$VENV/.made-from"
        install_packages "$lock"
        say "building the page and installing Qala itself"
        install_project
        stamp_of "$lock" > "$VENV/.made-from"
    elif ! "$PYTHON" "$ROOT/hatch_build.py" > "$VENV/install.log" 2>&1; then
        say "the page could not be rebuilt (see $VENV/install.log); everything else works"
    fi
}
