// rows.h - checks of the row kernels.
#pragma once
#include "harness.h"

static unsigned row_block(int n) { return std::min(512, (n / 8 + 31) / 32 * 32); }

#ifdef CHECK_embedding
#include "../../embedding.cu"
KERNEL_CHECK(embedding) {
  check("embedding", [](Result& r) {
    const int rows = 3, n = 520, vocabulary = 5;
    auto table = random_bf16(vocabulary * n, 1), out = nan_bf16(rows * n);
    Buffer<int> ids(rows);
    ids[0] = 4, ids[1] = 0, ids[2] = 4;
    r.run(embedding, rows, row_block(n), 0, EmbeddingArgs{out, table, ids, n, 0, vocabulary, vocabulary});
    r.out(out);
  });
}
#endif
#ifdef CHECK_rank_sum
#include "../../rank_sum.cu"
KERNEL_CHECK(rank_sum) {
  check("rank_sum", [](Result& r) {
    const int ranks = 3, n = 2056;
    auto parts = random_bf16(ranks * n, 3), out = nan_bf16(n);
    r.run(rank_sum, 2, 256, 0, RankSumArgs{out, parts, n, ranks});
    r.out(out);
  });
}
#endif
#ifdef CHECK_rms_norm
#include "../../rms_norm.cu"
KERNEL_CHECK(rms_norm) {
  for (int n : {8, 520, 4104})
    check("rms_norm " + std::to_string(n), [=](Result& r) {
      auto x = random_bf16(2 * n, 3), residual = random_bf16(2 * n, 3), weight = random_bf16(n, 1), out = nan_bf16(2 * n);
      r.run(rms_norm, 2, row_block(n), 0, RmsNormArgs{out, x, residual, weight, n, 1e-5f});
      r.out(out);
      r.out(residual);
    });
}
#endif
#ifdef CHECK_silu_mul
#include "../../silu_mul.cu"
KERNEL_CHECK(silu_mul) {
  check("silu_mul", [](Result& r) {
    const int rows = 2, n = 520;
    auto x = random_bf16(rows * 2 * n, 9), out = nan_bf16(rows * n);
    r.run(silu_mul, rows, row_block(n), 0, SiluMulArgs{out, x, n});
    r.out(out);
  });
}
#endif
#ifdef CHECK_fp8
#include "../../fp8.cu"
KERNEL_CHECK(fp8) {
  check("fp8", [](Result& r) {
    const int rows = 2, n = 1032;
    auto x = random_bf16(rows * n, 500);
    Buffer<uint8_t> out(rows * n);
    Buffer<float> scales(rows);
    r.run(fp8_quantize, rows, row_block(n), 0, Fp8Args{out, scales, x, n, 400.f});
    r.out(out);
    r.out(scales);
    Buffer<float> columns(n);
    for (size_t i = 0; i < columns.n; i++) columns[i] = random_float();
    r.run(fp8_scale, rows, row_block(n), 0, Fp8ScaleArgs{x, scales, columns, random_bf16(n, 1), n});
    r.out(x);
  });
}
#endif
#ifdef CHECK_kv_cache
#include "../../kv_cache.cu"
static void check_kv_cache_of(int d, void (*kernel)(KvCacheArgs), bool fp8 = false) {
  check("kv_cache " + std::to_string(d) + (fp8 ? " fp8" : ""), [=](Result& r) {
    const int tokens = 3, heads = 7, kv_heads = 2, positions = 9;
    auto qkv = random_bf16(tokens * (heads + 2 * kv_heads) * d, 2), norm = random_bf16(d, 1);
    auto queries = nan_bf16(tokens * heads * d);
    Buffer<uint8_t> keys(tokens * kv_heads * d * (fp8 ? 1 : 2)), cached(keys.n);
    Buffer<float> cos_sin(positions * d), key_scales(tokens * kv_heads), value_scales(tokens * kv_heads);
    for (size_t i = 0; i < cos_sin.n; i++) cos_sin[i] = random_float();
    Buffer<int> at(tokens), slots(tokens);
    at[0] = 8, at[1] = 0, at[2] = 5;
    slots[0] = 2, slots[1] = -1, slots[2] = 0;
    r.run(kernel, tokens, 256, 0,
          KvCacheArgs{queries, keys, cached, key_scales, value_scales, qkv, cos_sin, at, slots, norm, norm, heads,
                      kv_heads, 1e-6f});
    r.out(queries);
    r.out(keys);
    r.out(cached);
    r.out(key_scales);
    r.out(value_scales);
  });
}
KERNEL_CHECK(kv_cache) {
  check_kv_cache_of(64, kv_cache_d64);
  check_kv_cache_of(96, kv_cache_d96);
  check_kv_cache_of(128, kv_cache_d128);
  check_kv_cache_of(256, kv_cache_d256);
  check_kv_cache_of(64, kv_cache_fp8_d64, true);
  check_kv_cache_of(96, kv_cache_fp8_d96, true);
  check_kv_cache_of(256, kv_cache_fp8_d256, true);
}
#endif
