#!/bin/sh
# make_self_extracting.sh FOLDER INSTALL_SCRIPT OUT: one shell script that carries the packages of FOLDER and installs them with INSTALL_SCRIPT, for a host with nothing but a shell.
set -eu
folder=$1 install=$2 out=$3
stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT
mkdir "$stage/os"
cp "$install" "$stage/install_debs.sh"
cp "$folder"/* "$stage/os/"
cat >"$out" <<'HEADER'
#!/bin/sh
set -eu
umask 077
stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT
sed '1,/^__PACKAGES__$/d' "$0" | tar -x -C "$stage"
sh "$stage/install_debs.sh" "$stage/os"
exit 0
__PACKAGES__
HEADER
tar -c -C "$stage" install_debs.sh os >>"$out"
