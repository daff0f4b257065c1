#!/usr/bin/env bash
# Times everything on one GPU in under 8 minutes, and leaves one JSON file and one table of it all:
# OUTPUT/bench.json and OUTPUT/bench.txt, to be sent to us. A part that fails or takes too long is
# noted there with the rows that it measured, and the next one begins; so it is after Ctrl-C.
# Without a GPU it ends at once. What was compiled is kept: a second try gets further.
#   bash launch/bench_gpu.sh [OUTPUT]
set -euo pipefail

# ---- edit here, or set in the environment ----
GPU=${GPU:-0}                  # as nvidia-smi numbers them
CORES=${CORES:-$(nproc)}       # of the CPU, for all but the GPU's work
DEADLINE=${DEADLINE:-470}      # seconds for everything; what is left then is not begun
ALLOW_CPU=${ALLOW_CPU:-}       # 1: to try this without a GPU, on a CPU, which reaches its limits
# ----------------------------------------------

output=$(realpath -m "${1:-bench}")
cd "$(dirname "$0")/.."
python=${PYTHON:-.venv/bin/python}
export CUDA_VISIBLE_DEVICES=$GPU
mkdir -p "$output"
: >"$output/bench.log"

# An array whose elements tell of one part each: its arguments, and how it ended.
asked=()
ended=()
child=

# Everything so far, whole or as it was.
assemble() {
    local i separator='' part
    {
        echo '['
        for i in "${!asked[@]}"; do
            part=$output/parts/$i.json
            printf '%s{"arguments": "%s", "ended": "%s", "result": ' \
                "$separator" "${asked[$i]}" "${ended[$i]}"
            if [ -s "$part" ]; then cat "$part"; else echo null; fi
            echo '}'
            separator=,
        done
        echo ']'
    } >"$output/parts/all"
    mv "$output/parts/all" "$output/bench.json"
}

# What a part started may outlive it.
end_part() {
    if [ -n "$child" ]; then
        kill -KILL -- "-$child" 2>/dev/null || true
        child=
    fi
}

finish() {
    end_part
    if ((${#asked[@]})); then
        assemble
    fi
    rm -rf "$output/parts"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
trap 'exit 129' HUP

platform=$("$python" -c 'import jax; print(jax.default_backend())' 2>>"$output/bench.log") || true
if [ "$platform" = gpu ]; then
    # A part whose GPU fails says so, and does not time the CPU.
    export JAX_PLATFORMS=cuda,cpu
elif [ -z "$ALLOW_CPU" ]; then
    echo "error: JAX computes on '${platform:-nothing}' here; expected a GPU: install the CUDA" \
        "build (bash launch/setup.sh), see $output/bench.log, or set ALLOW_CPU=1 to try a CPU" >&2
    exit 1
fi

rm -rf "$output/parts"
mkdir "$output/parts"
: >"$output/bench.txt"

# A part has its own seconds and what those before it left.
due=$SECONDS

# time_part SECONDS ARGUMENTS OF mq_jax.bench
time_part() {
    local i=${#asked[@]} code=0 limit
    due=$((due + $1 < DEADLINE ? due + $1 : DEADLINE))
    shift
    limit=$((due - SECONDS))
    asked+=("$*")
    ended+=("interrupted")
    echo "== $* (at most ${limit} s)" | tee -a "$output/bench.txt"
    if ((limit > 0)); then
        # Not in the foreground: the shell hears Ctrl-C only between what runs there.
        timeout --kill-after=5 "$limit" "$python" -m mq_jax.bench "$@" --cores="$CORES" \
            --output="$output/parts/$i.json" \
            >"$output/parts/table" 2>>"$output/bench.log" &
        child=$!
        wait "$child" || code=$?
        end_part
        tee -a "$output/bench.txt" <"$output/parts/table"
        if ((code == 0)); then
            ended[i]="done"
        elif ((SECONDS >= due)); then
            ended[i]="over its limit"
        else
            ended[i]="code $code"
        fi
    else
        ended[i]="not begun"
    fi
    if [ "${ended[$i]}" != "done" ]; then
        echo "${ended[$i]}: bench.json has its rows, if any; see bench.log" |
            tee -a "$output/bench.txt"
    fi
    assemble
}

# What tells most comes first. The limits add up to less than the deadline.
time_part 140 --part=step --config=configs/imagenet_mqgan.py --kinds=unrolled \
    --straight_through=encoder --config.train.batch_size=32 --rounds=5
time_part 75 --part=step --config=configs/cifar10_mqvae.py --kinds=none,pipelined,unrolled \
    --straight_through=encoder --rounds=5
time_part 25 --part=pieces --rounds=5
time_part 20 --part=lookup --rounds=5
time_part 40 --part=tokenizer --rounds=5
time_part 45 --part=startup
time_part 30 --part=input --config=configs/photos_mqvae.py
time_part 15 --part=checkpoint --rounds=3
time_part 20 --part=sampling --rounds=3
time_part 25 --part=quantizers --kinds=l2,ema,fsq,ibq --rounds=3
time_part 25 --part=unroll --config=configs/photos_mqvae.py --rounds=3

whole=0
for how in "${ended[@]}"; do
    if [ "$how" = "done" ]; then
        whole=$((whole + 1))
    fi
done
echo "$output/bench.json and bench.txt: $whole of ${#asked[@]} parts in $SECONDS s"
exit $((whole < ${#asked[@]}))
