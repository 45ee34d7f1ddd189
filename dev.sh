#!/usr/bin/env bash
# Starts everything on this machine; see `agentex dev --help`. All logic is in agentex/dev.
#   ./dev.sh [OPTIONS OF agentex dev]
#   ./dev.sh --install-only REQUIREMENTS      only bring .venv up to date (the Makefile uses it)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

lock=requirements.txt
if [ "${1:-}" = --install-only ]; then lock=$2; fi
python=.venv/bin/python
stamp=.venv/installed-$lock

find_python() {
    local candidate found=""
    for candidate in python3.13 python3.12 python3.11 python3; do
        "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue
        found=$candidate
        "$candidate" -c 'import venv, ensurepip' 2>/dev/null && { echo "$candidate"; return; }
    done
    if [ -n "$found" ]; then
        echo "dev.sh: $found has no venv module: apt install python3-venv (macOS: brew install python@3.13)" >&2
    else
        echo "dev.sh: no Python 3.11 or newer: apt install python3 python3-venv (macOS: brew install python@3.13)" >&2
    fi
    return 1
}

if ! "$python" -c '' 2>/dev/null; then
    interpreter=$(find_python)
    rm -rf .venv
    "$interpreter" -m venv .venv
fi
if ! cat "$lock" pyproject.toml | cmp -s - "$stamp"; then
    echo "Installing $lock into .venv" >&2
    "$python" -m pip install --quiet --disable-pip-version-check --require-hashes -r "$lock"
    "$python" -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
    cat "$lock" pyproject.toml > "$stamp"
fi
[ "${1:-}" = --install-only ] || exec "$python" -m agentex.cli.main dev "$@"
