#!/usr/bin/env bash
# Trains on this machine in one process: on all its GPUs, or on the CPU where it has none.
#   CONFIG=configs/photos_mqvae.py bash launch/local.sh [FURTHER ARGUMENTS OF mq_jax.main]
# The same command goes on where a run was stopped.
set -euo pipefail

# ---- edit here, or set in the environment ----
CONFIG=${CONFIG:-} # the experiment, configs/X.py
WORKDIR=${WORKDIR:-runs/$(basename "$CONFIG" .py)}
DATA=${DATA:-} # config.data.dir; empty: as the configuration has it
# ----------------------------------------------

if [ -z "$CONFIG" ]; then
    echo "error: CONFIG is not set: CONFIG=configs/photos_mqvae.py bash launch/local.sh, say" >&2
    exit 1
fi
cd "$(dirname "$0")/.."
python=${PYTHON:-.venv/bin/python}
exec "$python" -m mq_jax.main --config="$CONFIG" --workdir="$WORKDIR" \
    ${DATA:+--config.data.dir="$DATA"} "$@"
