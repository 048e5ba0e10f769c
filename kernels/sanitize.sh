#!/usr/bin/env bash
# Runs the kernels under AddressSanitizer + UBSan and under ThreadSanitizer, and checks that both find planted bugs.
# Needs g++ (or CXX). The last line is a count of checks; the exit status is not 0 if any failed.
set -uo pipefail
cd "$(dirname "$0")"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cxx=${CXX:-g++}
common=(-std=c++17 -fno-strict-aliasing -w -g1 -O1)
asan=(-fsanitize=address,undefined -fno-sanitize-recover=undefined)
tsan=(-fsanitize=thread)
# ThreadSanitizer needs a predictable address space.
calm=()
if command -v setarch >/dev/null && setarch -R true 2>/dev/null; then calm=(setarch -R); fi
passed=0
failed=0

verdict() { # name, expected (clean|found), exit status
    if { [ "$2" = clean ] && [ "$3" = 0 ]; } || { [ "$2" = found ] && [ "$3" != 0 ]; }; then
        passed=$((passed + 1))
        echo "ok    $1 ($2)"
    else
        failed=$((failed + 1))
        echo "FAIL  $1: expected $2, exit status $3"
        tail -n 20 "$work/log"
    fi
}

check() { # name, expected, folder with the sources, flags...
    local name=$1 expected=$2 sources=$3
    shift 3
    "$cxx" "${common[@]}" "$@" "$sources/cpu/check.cpp" -o "$work/check" 2>"$work/log" || {
        verdict "$name does not compile" clean 1
        return
    }
    "${calm[@]}" env TSAN_OPTIONS=halt_on_error=1 "$work/check" 1 >"$work/log" 2>&1
    verdict "$name" "$expected" $?
}

plant() { # file, what to change, in a copy of the sources; fails if nothing changed
    rm -rf "$work/planted"
    mkdir "$work/planted"
    cp -r ./*.cu port.cuh cpu "$work/planted/"
    sed -i "$2" "$work/planted/$1"
    if cmp -s "$1" "$work/planted/$1"; then
        verdict "the planted bug '$2' does not apply to $1" clean 1
    fi
}

check "kernels, address and undefined behaviour" clean . "${asan[@]}"
check "kernels, threads" clean . "${tsan[@]}"

plant rms_norm.cu 's|const int nv = n / 8;|const int nv = n / 8 + 1;|'
check "planted: a read past the end" found "$work/planted" "${asan[@]}"
plant rms_norm.cu 's|part\[warp\] = s;|part[warp + 32] = s;|'
check "planted: a shared array overrun" found "$work/planted" "${asan[@]}"
plant rms_norm.cu '0,/^  __syncthreads();/{/^  __syncthreads();/d}'
check "planted: a missing barrier" found "$work/planted" "${tsan[@]}"
plant rms_norm.cu '0,/^  __syncthreads();/s|^  __syncthreads();|  if (warp == 0) __syncthreads();|'
check "planted: a divergent barrier" found "$work/planted" "${tsan[@]}"
plant paged_attention.cu 's|cp_async_wait<0>();||'
check "planted: a forgotten wait for a copy" found "$work/planted" "${asan[@]}"
plant paged_attention.cu 's|__syncthreads();.*everyone is done.*||'
check "planted: a tile overwritten too early" found "$work/planted" "${tsan[@]}"

echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
