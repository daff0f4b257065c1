#!/usr/bin/env bash
# Trains on several GPUs of this machine: one process for all of them, or one for each.
#   CONFIG=configs/photos_mqvae.py GPUS=0,1 bash launch/multi_gpu.sh [ARGUMENTS OF mq_jax.main]
# Ctrl-C saves and ends them; the same command goes on.
set -euo pipefail

# ---- edit here, or set in the environment ----
CONFIG=${CONFIG:-} # the experiment, configs/X.py
WORKDIR=${WORKDIR:-runs/$(basename "$CONFIG" .py)}
DATA=${DATA:-}               # config.data.dir; empty: as the configuration has it
GPUS=${GPUS:-0,1,2,3}        # as nvidia-smi numbers them
PROCESSES=${PROCESSES:-one}  # one for all GPUs | each has its own
PORT=${PORT:-29500}          # of this machine, free; read where each GPU has its process
# ----------------------------------------------

if [ -z "$CONFIG" ]; then
    echo "error: CONFIG is not set: CONFIG=configs/photos_mqvae.py bash launch/multi_gpu.sh, say" >&2
    exit 1
fi
cd "$(dirname "$0")/.."
python=${PYTHON:-.venv/bin/python}
export CUDA_VISIBLE_DEVICES=$GPUS
command=("$python" -m mq_jax.main "--config=$CONFIG" "--workdir=$WORKDIR"
    ${DATA:+"--config.data.dir=$DATA"} "$@")

case $PROCESSES in
one) exec "${command[@]}" ;;
each) ;;
*)
    echo "error: PROCESSES is '$PROCESSES'; expected one or each" >&2
    exit 1
    ;;
esac

IFS=, read -ra gpus <<<"$GPUS"
export MASTER_ADDR=127.0.0.1 MASTER_PORT=$PORT
export WORLD_SIZE=${#gpus[@]} LOCAL_WORLD_SIZE=${#gpus[@]}
# Without job control a background process ignores SIGINT; with it, each has a group of its own.
set -m
pids=()
signalled=0
# Each signal goes on to all; a second one makes them quit at once.
trap 'signalled=1; kill -INT "${pids[@]}" 2>/dev/null || true' INT
trap 'signalled=1; kill -TERM "${pids[@]}" 2>/dev/null || true' TERM
for rank in "${!gpus[@]}"; do
    ((signalled)) && break
    RANK=$rank LOCAL_RANK=$rank "${command[@]}" &
    pids+=($!)
done

status=0
for pid in "${pids[@]}"; do
    signalled=1
    # A signal ends `wait`, though not the process.
    while ((signalled)); do
        signalled=0
        code=0
        wait "$pid" || code=$?
    done
    status=$((status ? status : code))
done
exit "$status"
