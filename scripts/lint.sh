#!/usr/bin/env bash
# Everything that reads the code without running it.
set -uo pipefail
cd "$(dirname "$0")/.."
status=0
ruff check --quiet . || status=1
mypy --no-error-summary appliance services || status=1
lint-imports --no-cache >/tmp/lint-imports.$$ 2>&1 || { cat /tmp/lint-imports.$$; status=1; }
rm -f /tmp/lint-imports.$$
exit $status
