#!/usr/bin/env bash
# Compiles every kernel for sm_80, sm_90a and sm_100, prints a table of registers, and fails if attention spills any.
# Needs no GPU and no toolkit: it installs nvcc from PyPI into a cache outside the checkout, unless NVCC=/path/to/nvcc
# is set. Arguments, if any, are a command to run afterwards, with NVCC set and the same release's NVRTC on
# LD_LIBRARY_PATH.
set -euo pipefail
here=$PWD
cd "$(dirname "$0")"
# The wheels do not pin each other's versions, and releases cannot be mixed.
wheels=(nvidia-cuda-nvcc==13.0.88 nvidia-nvvm==13.0.88 nvidia-cuda-crt==13.0.88 nvidia-cuda-runtime==13.0.96
    nvidia-cuda-cccl==13.0.85 nvidia-cuda-nvrtc==13.0.88)
venv="${XDG_CACHE_HOME:-$HOME/.cache}/surprisal-ci/nvcc-13.0.88"

if [ -z "${NVCC:-}" ]; then
    if [ ! -e "$venv/complete" ]; then
        rm -rf "$venv"
        python3 -m venv "$venv" 2>/dev/null || {
            (apt-get update && apt-get install -y python3-venv) >/dev/null
            python3 -m venv "$venv"
        }
        "$venv/bin/pip" install --quiet --disable-pip-version-check "${wheels[@]}"
        touch "$venv/complete"
    fi
    NVCC=$(echo "$venv"/lib/python3*/site-packages/nvidia/cu13/bin/nvcc)
    libraries=$(dirname "$(dirname "$NVCC")")/lib
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
compile() { # file, architecture; prints a table row for each kernel
    "$NVCC" -std=c++17 -O3 -Xptxas -v -Werror all-warnings "-gencode=arch=compute_$2,code=sm_$2" -cubin \
        -o "$work/$1.$2.cubin" "$1.cu" 2>"$work/$1.$2.log" || {
        cat "$work/$1.$2.log"
        return 1
    }
    awk -v arch="sm_$2" '
        /Compiling entry function/ { match($0, /\047[^\047]*\047/); kernel = substr($0, RSTART + 1, RLENGTH - 2) }
        /bytes spill stores/ { for (i = 1; i < NF; i++) if ($(i + 1) == "bytes" && $(i + 2) == "spill") spilled += $i }
        /Used .* registers/ { for (i = 1; i < NF; i++) if ($(i + 1) ~ /^registers/) registers = $i
            printf "%-28s %-7s %9d %8d\n", kernel, arch, registers, spilled; spilled = 0 }
    ' "$work/$1.$2.log"
}

printf "%-28s %-7s %9s %8s\n" kernel arch registers spilled
failed=0
for file in *.cu; do
    pids=()
    for arch in 80 90a 100; do
        compile "${file%.cu}" "$arch" >"$work/$arch.rows" &
        pids+=($!)
    done
    for pid in "${pids[@]}"; do wait "$pid" || failed=1; done
    sort "$work"/*.rows | tee -a "$work/table"
done
if [ "$failed" = 1 ]; then
    echo "a kernel failed to compile"
    exit 1
fi
if grep -E '^paged_(attention|decode)' "$work/table" | awk '$4 > 0 { bad = 1; print "spills: " $0 } END { exit !bad }'; then
    exit 1
fi
echo "$(wc -l <"$work/table") kernels, no spills in attention"
if [ $# -gt 0 ]; then
    cd "$here"
    NVCC=$NVCC LD_LIBRARY_PATH=${libraries:+$libraries:}${LD_LIBRARY_PATH:-} "$@"
fi
