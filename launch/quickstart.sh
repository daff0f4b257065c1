#!/usr/bin/env bash
# Trains, evaluates and shows an MQVAE on the embedded photographs: minutes on two CPU cores.
# Run again, it goes on where it was stopped.
#   bash launch/quickstart.sh [WORKDIR]
set -euo pipefail
workdir=$(realpath -m "${1:-$(dirname "$0")/../runs/photos}")
cd "$(dirname "$0")/.."
bash launch/setup.sh
exec .venv/bin/python -m mq_jax.main --config=configs/photos_mqvae.py --workdir="$workdir"
