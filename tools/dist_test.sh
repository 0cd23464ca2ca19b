#!/usr/bin/env bash
# bash tools/dist_test.sh CONFIG CHECKPOINT NUM_PROCESSES_PER_NODE [test.py options]
# On several nodes set NNODES, NODE_RANK and MASTER_ADDR on each. Without GPUs the processes run on the CPU (gloo).
# One node takes a free port unless PORT is set, several take 29500.
set -eu

CONFIG=$1
CHECKPOINT=$2
NUM=$3
shift 3
NNODES=${NNODES:-1}
if [ "$NNODES" = 1 ] && [ -z "${PORT:-}" ]; then
    RENDEZVOUS="--standalone"
else
    RENDEZVOUS="--node_rank=${NODE_RANK:-0} --master_addr=${MASTER_ADDR:-127.0.0.1} --master_port=${PORT:-29500}"
fi

HERE=$(dirname "$0")
# shellcheck disable=SC2086
PYTHONPATH="$HERE/..:${PYTHONPATH:-}" exec python -m usp_mm.runtime.torchrun \
    --nnodes="$NNODES" $RENDEZVOUS --nproc_per_node="$NUM" \
    "$HERE/test.py" "$CONFIG" "$CHECKPOINT" --launcher pytorch "$@"
