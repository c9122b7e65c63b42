#!/usr/bin/env bash
# Debian packages that some tests use. As root they are installed; otherwise (or where they cannot be had)
# the tests that need them are skipped by name and the summary says so.
set -uo pipefail
declare -A needs=(
  [chromium]=chromium [tesseract]="tesseract-ocr tesseract-ocr-rus"
  [systemd-nspawn]=systemd-container [debootstrap]=debootstrap [ssh]=openssh-client [ip]=iproute2 # a bare host (tests/integration/nspawn_bed.py)
  [nft]=nftables [strace]=strace # proof that nothing gets out
)
PATH=$PATH:/usr/sbin:/sbin
missing=()
for program in "${!needs[@]}"; do command -v "$program" >/dev/null || missing+=(${needs[$program]}); done
[ ${#missing[@]} -eq 0 ] && exit 0
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
  echo "note: not installed (not root): ${missing[*]}; tests that need them will be skipped" >&2
  exit 0
fi
echo "installing for tests: ${missing[*]}" >&2
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq >/dev/null 2>&1
timeout 600 apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null 2>&1 || echo "note: could not install ${missing[*]}; tests that need them will be skipped" >&2
exit 0
