#!/usr/bin/env bash
# Trains on this machine in one process: on all its GPUs, or on the CPU where it has none.
#   bash launch/local.sh [FURTHER ARGUMENTS OF mq_jax.main]
#   CONFIG=configs/photos_mqvae.py WORKDIR=runs/mine bash launch/local.sh --config.train.steps=100
# The same command goes on where a run was stopped.
set -euo pipefail

# ---- edit here, or set in the environment ----
CONFIG=${CONFIG:-configs/photos_mqvae.py}
WORKDIR=${WORKDIR:-runs/$(basename "$CONFIG" .py)}
DATA=${DATA:-} # config.data.dir; empty: as the configuration has it
# ----------------------------------------------

cd "$(dirname "$0")/.."
python=${PYTHON:-.venv/bin/python}
exec "$python" -m mq_jax.main --config="$CONFIG" --workdir="$WORKDIR" \
    ${DATA:+--config.data.dir="$DATA"} "$@"
