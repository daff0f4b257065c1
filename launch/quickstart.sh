#!/usr/bin/env bash
# Trains, evaluates and shows an MQVAE on the embedded photographs: minutes on two CPU cores. With
# --with-prior also its second stage: the photographs' tokens, a small prior over them, and images
# that it draws, in WORKDIR-prior. Run again, it goes on where it was stopped.
#   bash launch/quickstart.sh [--with-prior] [WORKDIR]
set -euo pipefail
usage="bash launch/quickstart.sh [--with-prior] [WORKDIR]"
prior=
if [ "${1:-}" = --with-prior ]; then
    prior=yes
    shift
fi
given=${1:-}
if [ $# -gt 1 ] || [ "${given:0:1}" = - ]; then
    echo "error: got '$*'; expected: $usage" >&2
    exit 2
fi
workdir=$(realpath -m "${given:-$(dirname "$0")/../runs/photos}")
cd "$(dirname "$0")/.."
bash launch/setup.sh
program=(.venv/bin/python -m mq_jax.main)
first=("${program[@]}" --config=configs/photos_mqvae.py --workdir="$workdir")
if [ -z "$prior" ]; then
    exec "${first[@]}"
fi
# A stage that was interrupted ends with a code that ends this script, too.
"${first[@]}" --interrupted_code=75
"${program[@]}" --config=configs/photos_prior.py --workdir="$workdir-prior" \
    --config.tokens="$workdir" --interrupted_code=75
# The best step on held-out regions is from before it knows the photographs.
exec "${program[@]}" --mode=sample --workdir="$workdir-prior" --count=36 --step=1000 --top_p=0.9
