#!/usr/bin/env bash
# Runs the kernels under AddressSanitizer + UBSan and under ThreadSanitizer, and checks that both find planted bugs.
# Needs g++ (or CXX). The last line counts the checks; the exit status is nonzero if any failed.
set -uo pipefail
cd "$(dirname "$0")"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cxx=${CXX:-g++}
common=(-std=c++17 -fno-strict-aliasing -w -Wno-psabi -g1)
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
    "${calm[@]}" env TSAN_OPTIONS=halt_on_error=1 "$work/check" >"$work/log" 2>&1
    verdict "$name" "$expected" $?
}

plant() { # bug, kernel to run, sanitizer, file to change, sed script; the kernel's check must fail
    rm -rf "$work/planted"
    mkdir "$work/planted"
    cp -r ./*.cu ./*.cuh cpu "$work/planted/"
    sed -i "$5" "$work/planted/$4"
    if cmp -s "$4" "$work/planted/$4"; then
        verdict "the planted bug '$5' does not apply to $4" clean 1
        return
    fi
    local flags=("${asan[@]}")
    if [ "$3" = threads ]; then flags=("${tsan[@]}"); fi
    check "planted in $2: $1" found "$work/planted" "${flags[@]}" -DONLY "-DCHECK_$2"
}

check "kernels, address and undefined behavior" clean . -O1 "${asan[@]}"
check "kernels, threads" clean . -O1 "${tsan[@]}"

past='s|i < a.n / 8|i <= a.n / 8|'
plant "a vector beyond the row" embedding address embedding.cu "$past"
plant "a vector beyond the row" silu_mul address silu_mul.cu "$past"
plant "half of the next row" silu_mul address silu_mul.cu 's|row \* 2 + 1|row * 2 + 2|'
plant "a vector beyond the row" fp8 address fp8.cu "$past"
plant "a scale that every warp writes" fp8 threads fp8.cu 's|threadIdx.x == 0|threadIdx.x % 32 == 0|'
plant "a vector beyond the end" rank_sum address rank_sum.cu 's|i >= vectors|i > vectors|'
plant "one rank too many" rank_sum address rank_sum.cu 's|r < a.ranks|r <= a.ranks|'
plant "a vector beyond the row" rms_norm address rms_norm.cu 's|a.n / 8;|a.n / 8 + 1;|'
plant "a shared array overrun" rms_norm address port.cuh 's|buffer\[threadIdx.x >> 5\] = v|buffer[(threadIdx.x >> 5) + 32] = v|'
plant "a missing barrier" rms_norm threads port.cuh '/every warp has written/d'
plant "a divergent barrier" rms_norm threads port.cuh 's|__syncthreads();  // every|if (threadIdx.x < 32) __syncthreads();  // every|'
plant "a buffer overwritten while another warp reads it" logprobs threads port.cuh '/the previous reduction has been read/d'
plant "a list overwritten while another warp reads it" logprobs threads logprobs.cu '/the previous firsts have been read/d'
plant "one row too many" logprobs address logprobs.cu 's|row >= a.rows|row > a.rows|'
plant "one column too many" logprobs address logprobs.cu 's|column + e \* TILE_THREADS < a.vocabulary|column + e * TILE_THREADS <= a.vocabulary|'
plant "a value head beyond its slot" kv_cache address kv_cache.cu 's|(head - a.heads) % a.kv_heads|(head - a.heads)|'
plant "padding written to the cache" kv_cache address kv_cache.cu 's|if (!query \&\& slot < 0) continue;||'
plant "a pair of bytes stored as 32 bits" kv_cache address kv_cache.cu 's|uint16_t\* to = reinterpret_cast<uint16_t\*>|uint32_t* to = reinterpret_cast<uint32_t*>|'
plant "a lane that skips a warp sum" kv_cache threads kv_cache.cu 's|norm ? rsqrtf|norm \&\& lane < 31 ? rsqrtf|'
for kernel in paged_attention paged_decode; do
    plant "a missing wait for a copy" $kernel address attention_tile.cuh 's|cp_async_wait<0>();||'
    plant "a missing barrier" $kernel threads attention_tile.cuh '/the tile has arrived/d'
    plant "a tile used before it is widened" $kernel threads $kernel.cu '/the tile is widened/d'
    plant "a tile overwritten too early" $kernel threads $kernel.cu 's|t0 + BLOCK_N, stage ^ 1|t0 + BLOCK_N, stage|'
    plant "one key too many" $kernel address attention_tile.cuh 's|valid = t < kv.len;|valid = t < kv.len + 1;|'
    plant "one query too many" $kernel address attention_tile.cuh 's|valid1 = rows.valid(lane.row() + 8)|valid1 = true|'
done
plant "a missing wait for the copy engine" paged_attention address paged_attention.cu 's|mbarrier_wait(full + stage,.*|{}|'
plant "a box copied to another stage" paged_attention address paged_attention.cu 's|smem.keys<Shape>(stage) + column|smem.tiles + column|'
plant "one block too many" paged_attention address paged_attention.cu 's|(min(t0 + BLOCK_N, kv.len) - t0 + rows - 1) / rows|BLOCK_N / rows|'
plant "a barrier that expects too many bytes" paged_attention address paged_attention.cu 's|mbarrier_expect(full + stage, blocks|mbarrier_expect(full + stage, 2 * blocks|'
plant "values beyond the end that are not zeroed" paged_attention address paged_attention.cu 's|if (t0 + BLOCK_N > len) {|if (t0 > len) {|'
plant "barriers used before they are initialized" paged_attention threads paged_attention.cu '/barriers are initialized/d'
plant "one output row too many" paged_attention address paged_attention.cu 's|valid1 = rows.valid(lane.row() + 8)|valid1 = true|'
plant "one split too many" paged_decode address paged_decode.cu 's|split <= p / SPLIT|split <= p / SPLIT + 1|'

echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
