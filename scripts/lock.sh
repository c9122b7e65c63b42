#!/usr/bin/env bash
# Resolve pyproject.toml into hash-pinned locks that contain no registry address.
set -euo pipefail
cd "$(dirname "$0")/.."
command -v uv >/dev/null || { echo "uv is needed once: pip install uv" >&2; exit 2; }
options=(--generate-hashes --no-annotate --no-header --no-emit-index-url --no-emit-find-links
         # fastcdc names them for its own command line, which nobody here runs
         --no-emit-package click-default-group --no-emit-package codetiming --no-emit-package humanize --no-emit-package py-cpuinfo
         --python-version 3.11 --python-platform x86_64-manylinux_2_28 --quiet)
uv pip compile pyproject.toml "${options[@]}" -o requirements/runtime.lock
uv pip compile pyproject.toml --extra test -c requirements/runtime.lock "${options[@]}" -o requirements/test.lock
printf 'pip\n' | uv pip compile - "${options[@]}" -o requirements/install.lock
printf 'ansible-core\n' | uv pip compile - -c requirements/test.lock "${options[@]}" -o requirements/ansible.lock
printf 'setuptools\nwheel\n' | uv pip compile - "${options[@]}" -o requirements/build.lock
wc -l requirements/*.lock
