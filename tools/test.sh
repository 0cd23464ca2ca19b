#!/usr/bin/env bash
# Install what is pinned into .venv (or $USP_VENV), then check style, types and every test.
# Arguments go to pytest: `bash tools/test.sh -m "not slow"` leaves out what takes over about 10 seconds.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"
ensure_env all
cd "$ROOT"
"$USP_VENV/bin/ruff" check
"$USP_VENV/bin/ruff" format --check
"$USP_VENV/bin/mypy" usp_mm
# Two processes of one thread each: threads of several processes would fight for the cores.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
exec "$USP_VENV/bin/python" -m pytest --numprocesses "${USP_TEST_PROCESSES:-2}" --dist loadfile --no-loadscope-reorder "$@"
