#!/usr/bin/env bash
# bash tools/slurm_train.sh PARTITION JOB_NAME CONFIG WORK_DIR [train.py options]
# GPUS (in all), GPUS_PER_NODE, CPUS_PER_TASK and SRUN_ARGS as in mmpretrain.
# GRACE seconds before its time is up (default: 120) Slurm asks the training to save a checkpoint and end. It then goes on from
# there: within a batch job by requeueing the job, otherwise by another srun. REQUEUE=0 leaves that to you.
set -eu

PARTITION=$1
JOB_NAME=$2
CONFIG=$3
WORK_DIR=$4
shift 4
GPUS=${GPUS:-8}
GPUS_PER_NODE=${GPUS_PER_NODE:-8}
CPUS_PER_TASK=${CPUS_PER_TASK:-5}
PREEMPTED=75

HERE=$(dirname "$0")
export PYTHONPATH="$HERE/..:${PYTHONPATH:-}"
run() {
    # --wait ends the others a minute after the first task has ended, --kill-on-bad-exit would do it at once
    # shellcheck disable=SC2086
    srun -p "$PARTITION" \
        --job-name="$JOB_NAME" --gres=gpu:"$GPUS_PER_NODE" --ntasks="$GPUS" \
        --ntasks-per-node="$GPUS_PER_NODE" --cpus-per-task="$CPUS_PER_TASK" --kill-on-bad-exit=0 --wait=60 \
        --signal=USR1@"${GRACE:-120}" ${SRUN_ARGS:-} \
        python -u "$HERE/train.py" "$CONFIG" --work-dir "$WORK_DIR" --launcher slurm "$@"
}

CODE=0
run "$@" || CODE=$?
while [ "$CODE" = "$PREEMPTED" ] && [ "${REQUEUE:-1}" != 0 ]; do
    if [ -n "${SLURM_JOB_ID:-}" ]; then
        scontrol requeue "$SLURM_JOB_ID" && exit
        echo "job $SLURM_JOB_ID cannot be requeued (salloc, or no --requeue): the same command with --resume goes on" >&2
        break
    fi
    CODE=0
    run "$@" --resume || CODE=$?
done
exit "$CODE"
