#!/usr/bin/env bash
# Install what is pinned into .venv (or $USP_VENV), then check style, types and every test.
# Arguments go to pytest: `bash tools/test.sh -m "not slow"` leaves out what takes over about 10 seconds.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"
ensure_env all
cd "$ROOT"
"$USP_VENV/bin/ruff" check
"$USP_VENV/bin/ruff" format --check
"$USP_VENV/bin/mypy" usp_mm/functional usp_mm/vaes
exec "$USP_VENV/bin/python" -m pytest "$@"
