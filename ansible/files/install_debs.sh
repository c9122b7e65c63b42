#!/bin/sh
# install_debs.sh [--list] FOLDER: install the packages in FOLDER that this host lacks or has in an older version. One line of stdout for each; nothing when all are there.
# Needs a shell, dpkg and apt; reads no package list and reaches no network: what is not in FOLDER and not installed is an error.
set -eu
list=no
if [ "$1" = --list ]; then list=yes; shift; fi
folder=$1
set --
for deb in "$folder"/*.deb; do
  [ -e "$deb" ] || continue
  facts=$(dpkg-deb --show --showformat='${Package} ${Version} ${Architecture}' "$deb")
  package=${facts%% *} facts=${facts#* }
  version=${facts% *} architecture=${facts#* }
  [ "$architecture" = all ] && name=$package || name=$package:$architecture
  present=$(dpkg-query --show --showformat='${db:Status-Status} ${Version}' "$name" 2>/dev/null || true)
  if [ "${present%% *}" = installed ] && dpkg --compare-versions "${present#* }" ge "$version"; then continue; fi
  echo "$package $version"
  set -- "$@" "$deb"
done
[ $# -eq 0 ] && exit 0
[ "$list" = yes ] && exit 0
lists=$(mktemp -d)
trap 'rm -rf "$lists"' EXIT
DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8 apt-get -q -y --no-install-recommends --no-remove \
  -o Dir::Etc::sourcelist=/dev/null -o Dir::Etc::sourceparts=/dev/null -o "Dir::State::lists=$lists" -o APT::Sandbox::User=root \
  -o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold -o Dpkg::Use-Pty=0 install "$@" >&2
