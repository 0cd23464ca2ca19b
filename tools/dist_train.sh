#!/usr/bin/env bash
# bash tools/dist_train.sh CONFIG NUM_PROCESSES_PER_NODE [train.py options]
# On several nodes set NNODES, NODE_RANK and MASTER_ADDR on each. Without GPUs the processes run on the CPU (gloo).
set -eu

CONFIG=$1
NUM=$2
shift 2
NNODES=${NNODES:-1}
NODE_RANK=${NODE_RANK:-0}
MASTER_ADDR=${MASTER_ADDR:-127.0.0.1}
PORT=${PORT:-29500}

HERE=$(dirname "$0")
PYTHONPATH="$HERE/..:${PYTHONPATH:-}" exec python -m usp_mm.torchrun \
    --nnodes="$NNODES" --node_rank="$NODE_RANK" --nproc_per_node="$NUM" \
    --master_addr="$MASTER_ADDR" --master_port="$PORT" \
    "$HERE/train.py" "$CONFIG" --launcher pytorch "$@"
