#!/usr/bin/env bash
# bash dev/preempt_demo.sh [FOLDER]
# Ends a pretraining on 2 processes by SIGTERM five times at random moments, resumes it each time on another number of
# processes, and compares it with a run that nobody disturbs: each sample seen once an epoch, and the final loss. SEED changes
# the moments.
set -eu
HERE=$(dirname "$0")
PYTHONPATH="$HERE/..:${PYTHONPATH:-}" exec python "$HERE/preempt_demo.py" "${1:-work_dirs/preempt_demo}" --seed "${SEED:-0}"
