#!/usr/bin/env bash
# Install what is pinned into .venv (or $USP_VENV), then run the demo; arguments go to tools/quickstart.py.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"
ensure_env demo
cd "$ROOT"
exec "$USP_VENV/bin/python" dev/quickstart.py "$@"
