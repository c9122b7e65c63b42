#!/usr/bin/env bash
# Create the environment and install pinned, hash-checked packages. Run again at will: it does only what is missing.
#   scripts/setup.sh runtime   what the box needs
#   scripts/setup.sh test      the same and what the tests need
set -euo pipefail
what=${1:?runtime or test}
cd "$(dirname "$0")/.."
venv=${VENV:-$PWD/.venv}
say() { printf '\033[1m%s\033[0m\n' "$*" >&2; }

python=""
for candidate in python3.11 python3 python3.12 python3.13; do
  if command -v "$candidate" >/dev/null && "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then python=$candidate; break; fi
done
[ -n "$python" ] || { echo "error: Python 3.11 or newer is needed" >&2; echo "hint: apt-get install python3 python3-venv" >&2; exit 2; }

make_venv() {
  "$python" -m venv "$venv" 2>/dev/null && return
  rm -rf "$venv"
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    say "installing python3-venv"
    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq python3-venv >/dev/null && "$python" -m venv "$venv" && return
  fi
  # no ensurepip, but a pip somewhere: let that pip fill an empty environment
  "$python" -m venv --without-pip "$venv" && "$python" -m pip --python "$venv/bin/python" install -q pip && return
  rm -rf "$venv"
  echo "error: cannot create a Python environment" >&2
  echo "hint: as root: apt-get install python3-venv" >&2
  exit 2
}

fingerprint=$(cat "requirements/$what.lock" requirements/build.lock pyproject.toml | sha256sum | cut -c1-16)
stamp="$venv/.installed-$what-$fingerprint"
if [ ! -e "$stamp" ]; then
  [ -x "$venv/bin/python" ] || { say "creating $venv"; make_venv; }
  say "installing pinned packages ($what); the first time this takes a minute or two"
  pip=("$venv/bin/python" -m pip --disable-pip-version-check install --quiet --no-deps --require-hashes --only-binary :all:)
  "${pip[@]}" -r requirements/build.lock
  "${pip[@]}" -r "requirements/$what.lock"
  "$venv/bin/python" -m pip --disable-pip-version-check install --quiet --no-deps --no-build-isolation --editable .
  # compiled once here, so that the first start is as fast as every other
  "$venv/bin/python" -m compileall -q -j 0 "$venv/lib" appliance services >/dev/null || true
  rm -f "$venv"/.installed-"$what"-*
  touch "$stamp"
fi

"$venv/bin/python" -m appliance.hub.setup --quiet-when-done

if [ "$what" = test ]; then scripts/setup_test_tools.sh; fi
