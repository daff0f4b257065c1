#!/usr/bin/env bash
# Times everything on one GPU in under 8 minutes, and leaves one JSON file and one table of it all:
# OUTPUT/bench.json and OUTPUT/bench.txt, to be sent to us. A part that fails or takes too long is
# noted there, and the next one begins. Without a GPU it runs, too, and stops at its limits.
#   bash launch/bench_gpu.sh [OUTPUT]
set -euo pipefail

# ---- edit here, or set in the environment ----
GPU=${GPU:-0}                  # as nvidia-smi numbers them
CORES=${CORES:-$(nproc)}       # of the CPU, for all but the GPU's work
DEADLINE=${DEADLINE:-470}      # seconds for everything; what is left then is not begun
# ----------------------------------------------

output=$(realpath -m "${1:-bench}")
cd "$(dirname "$0")/.."
python=${PYTHON:-.venv/bin/python}
export CUDA_VISIBLE_DEVICES=$GPU
parts=$(mktemp -d)
trap 'rm -rf "$parts"' EXIT
mkdir -p "$output"
: >"$output/bench.txt"
number=0
failed=0

# time_part SECONDS ARGUMENTS OF mq_jax.bench
time_part() {
    local limit=$1 code=0 file
    shift
    number=$((number + 1))
    file=$parts/$(printf %02d $number).json
    limit=$((limit < DEADLINE - SECONDS ? limit : DEADLINE - SECONDS))
    echo "== $* (at most ${limit} s)" | tee -a "$output/bench.txt"
    if ((limit > 0)); then
        timeout --signal=INT --kill-after=5 "$limit" "$python" -m mq_jax.bench "$@" \
            --cores="$CORES" --output="$file" 2>>"$output/bench.log" |
            tee -a "$output/bench.txt" || code=$?
    else
        code=124
    fi
    if ((code)) || [ ! -s "$file" ]; then
        failed=$((failed + 1))
        echo "failed with code $code; see bench.log" | tee -a "$output/bench.txt"
        printf '{"arguments": "%s", "failed": %d}\n' "$*" "$code" >"$file"
    fi
}

# What tells most comes first.
time_part 130 --part=step --config=configs/imagenet_mqgan.py --kinds=joint,unrolled,pipelined \
    --straight_through=encoder --config.train.batch_size=32 --rounds=5
time_part 110 --part=step --config=configs/cifar10_mqvae.py --straight_through=encoder --rounds=5
time_part 40 --part=pieces --rounds=5
time_part 40 --part=lookup --rounds=5
time_part 60 --part=startup
time_part 40 --part=tokenizer --rounds=5
time_part 40 --part=input --config=configs/photos_mqvae.py
time_part 30 --part=sampling --rounds=3
time_part 60 --part=quantizers --rounds=3
time_part 40 --part=unroll --rounds=3

{
    echo '['
    sep=
    for file in "$parts"/*.json; do
        printf '%s' "$sep"
        cat "$file"
        sep=,
    done
    echo ']'
} >"$output/bench.json"
echo "$output/bench.json and bench.txt: $((number - failed)) of $number parts in $SECONDS s"
exit $((failed > 0))
