#!/usr/bin/env bash
# Every recipe of docs/integrations.md against a real box. Makes an environment of its own once (RECIPES_ENV, default .venv-recipes: 600 MB, two minutes) with the
# clients that users bring; extra arguments go to pytest. Packages come from the sources that pip is configured for on this machine.
# openai (Apache-2.0), langchain-openai, llama-index-* (MIT): tested against, never shipped or imported by the product.
set -euo pipefail
cd "$(dirname "$0")/.."
environment=${RECIPES_ENV:-$PWD/.venv-recipes}
packages="openai==2.54.0 langchain-openai==1.7.4 llama-index-llms-openai-like==0.8.1 llama-index-embeddings-openai-like==0.4.0"
if [ "$(cat "$environment/made-for" 2>/dev/null)" != "$packages" ]; then
  printf '\033[1mcreating %s\033[0m\n' "$environment" >&2
  rm -rf "$environment"
  "${PYTHON:-python3}" -m venv "$environment"
  # shellcheck disable=SC2086
  "$environment/bin/python" -m pip --disable-pip-version-check --quiet install $packages || {
    echo "error: the packages cannot be had: $packages" >&2
    echo "hint: the package sources of this machine must have them; without them, make test runs the recipes of the openai client" >&2
    exit 2
  }
  echo "$packages" >"$environment/made-for"
fi
export PATH="${VENV:-$PWD/.venv}/bin:$PATH" RECIPES_PYTHON="$environment/bin/python"
exec python -m pytest -n 0 -rs --durations 5 tests/recipes "$@"
