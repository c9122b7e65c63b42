#!/usr/bin/env bash
# The whole test suite. Extra arguments go to pytest: scripts/test.sh -k audit
set -uo pipefail
cd "$(dirname "$0")/.."
export PATH="${VENV:-$PWD/.venv}/bin:$PATH" PYTHONDONTWRITEBYTECODE=1
echo "== lint"
scripts/lint.sh || { echo "lint failed"; exit 1; }
echo "== tests"
exec python -m pytest -n 2 --dist loadfile --durations 15 "$@"
