#!/bin/sh
# install_debs.sh [--list] FOLDER: install the packages that FOLDER/index.json asks for, and what they need and this host lacks, out of FOLDER.
# One line of stdout for each package that is (with --list: would be) installed or brought up to date; nothing when all are there.
# Needs a shell and apt. The only archive apt sees is FOLDER, which was verified; nothing is fetched, removed or downgraded.
set -eu
list=no
if [ "$1" = --list ]; then list=yes; shift; fi
folder=$(cd "$1" && pwd)
[ -e "$folder/index.json" ] || exit 0
requested=$(sed -n 's/.*"requested":\[\([^]]*\)\].*/\1/p' "$folder/index.json" | tr -d '"' | tr ',' ' ')
[ -n "$requested" ] || exit 0
state=$(mktemp -d)
trap 'rm -rf "$state"' EXIT
mkdir -p "$state/lists/partial"
echo "deb [trusted=yes] file:$folder ./" >"$state/sources.list"
apt() {
  DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8 apt-get -q -y --no-install-recommends --no-remove \
    -o "Dir::Etc::sourcelist=$state/sources.list" -o Dir::Etc::sourceparts=/dev/null -o "Dir::State::lists=$state/lists" \
    -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache= -o APT::Sandbox::User=root -o Acquire::Languages=none \
    -o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold -o Dpkg::Use-Pty=0 "$@"
}
apt update >"$state/said" 2>&1 || { cat "$state/said" >&2; exit 1; }
# shellcheck disable=SC2086 - names of packages, one word each
apt --simulate install $requested >"$state/plan" 2>"$state/said" || { cat "$state/plan" "$state/said" >&2; exit 1; }
sed -n 's/^Inst \([^ ]*\) .*(\([^ ]*\) .*/\1 \2/p' "$state/plan" | tee "$state/missing"
if [ "$list" = yes ] || [ ! -s "$state/missing" ]; then exit 0; fi
# shellcheck disable=SC2086
apt install $requested >&2
