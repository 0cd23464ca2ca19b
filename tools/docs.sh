#!/usr/bin/env bash
# Install what is pinned into .venv (or $USP_VENV), then build the documentation into docs/_build/html; warnings are errors.
# Arguments go to Sphinx: `bash tools/docs.sh -E` reads every page anew.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"
ensure_env all
cd "$ROOT"
exec "$USP_VENV/bin/python" -m sphinx -W --keep-going "$@" docs docs/_build/html
