// attention.h - checks of prefill and decode over a paged cache.
#pragma once
#include "harness.h"
#if defined(CHECK_paged_attention) || defined(CHECK_paged_decode)
#include "../../attention_tile.cuh"
#include <numeric>
using std::vector;

// Sequences of `lengths` keys in shuffled blocks. Unused slots are NaN; unused table entries are out of bounds.
struct Sequences {
  int kv_heads, d, width = 0, block = 16;
  Buffer<bf16> keys{0}, values{0};
  Buffer<float> key_scales{0}, value_scales{0};
  Buffer<int> table{0}, contexts{0};
  Sequences(const vector<int>& lengths, int kv_heads, int d, bool fp8)
      : kv_heads(kv_heads), d(d), contexts(lengths.size()) {
    int blocks = 1;
    for (int len : lengths) {
      width = std::max(width, (len + block - 1) / block);
      blocks += (len + block - 1) / block;
    }
    vector<int> free(blocks);
    std::iota(free.begin(), free.end(), 0);
    for (int i = blocks - 1; i > 0; i--) std::swap(free[i], free[(unsigned)(random_float() * 1e6 + 2e6) % (i + 1)]);
    const size_t heads = (size_t)blocks * block * kv_heads;
    keys = nan_bf16(heads * d / (fp8 ? 2 : 1));  // FP8: two bytes per element
    values = nan_bf16(keys.n);
    key_scales = Buffer<float>(heads), value_scales = Buffer<float>(heads);
    for (size_t i = 0; i < heads; i++) key_scales[i] = value_scales[i] = NAN;
    table = Buffer<int>(lengths.size() * width);
    for (size_t i = 0; i < table.n; i++) table[i] = 1 << 28;
    for (size_t s = 0; s < lengths.size(); s++) {
      contexts[s] = lengths[s];
      for (int t = 0; t < lengths[s]; t++) {
        int& at = table[s * width + t / block];
        if (t % block == 0) {
          at = free.back();
          free.pop_back();
        }
        const size_t slot = (size_t)at * block + t % block, each = keys.n / (blocks * block);
        for (size_t i = slot * each; i < (slot + 1) * each; i++)
          keys[i] = to_bf16(random_float() * 2), values[i] = to_bf16(random_float());
        for (size_t i = slot * kv_heads; i < (slot + 1) * kv_heads; i++) key_scales[i] = value_scales[i] = 1 / 64.f;
      }
    }
  }
  PagedKv cache() {
    return {keys, values, key_scales, value_scales, table, contexts, width, block, kv_heads};
  }
};

// Returns the bytes of the tiles of keys and values, and of `rows` rows of queries if they do not fit in registers.
static size_t shared_bytes(int d, bool fp8, int rows) {
  const int keys = block_n(d), queries = d > 128 ? rows * (d + 8) * 2 : 0;
  return (fp8 ? 2 * keys * (2 * (d + 8) + d + 4) : 4 * keys * (d + 8) * 2) + queries;
}
static std::string case_name(const char* kernel, int d, int window, bool fp8) {
  return std::string(kernel) + " " + std::to_string(d) + (fp8 ? " fp8" : window ? " windowed" : "");
}
#ifdef CHECK_paged_attention
#include "../../paged_attention.cu"
static void launch(Result& r, void (*kernel)(AttentionArgs), unsigned blocks, unsigned threads, size_t shared,
                   AttentionArgs a, Sequences&) {
  r.run(kernel, blocks, threads, shared, a);
}
static void launch(Result& r, void (*kernel)(AttentionTmaArgs), unsigned blocks, unsigned threads, size_t shared,
                   AttentionArgs a, Sequences& kv) {
  auto map = [&](Buffer<bf16>& cache) {
    const uint64_t d = kv.d, kv_heads = kv.kv_heads;
    return TensorMap{(uint64_t)(bf16*)cache, d, kv_heads, cache.n / (kv_heads * d), (uint64_t)kv.block};
  };
  r.run(kernel, blocks, threads, shared + 16, AttentionTmaArgs{a, map(kv.keys), map(kv.values)});
}
template <class A>
static void check_prefill_of(int d, void (*kernel)(A), int window, bool fp8 = false) {
  const char* name = std::is_same<A, AttentionArgs>::value ? "paged_attention" : "paged_attention by tma";
  check(case_name(name, d, window, fp8), [=](Result& r) {
    const int heads = 2, kv_heads = 1, rows = d > 128 ? 64 : 128, threads = rows * 2;
    Sequences kv({37, 150, 1}, kv_heads, d, fp8);
    const int lengths[] = {37, 150, 1}, queries[] = {37, 100, 1};
    Buffer<int> starts(4), tiles(d > 128 ? 10 : 8);
    int n = 0;
    for (int i = 0; i < 3; i++) {
      starts[i + 1] = starts[i] + queries[i];
      for (int tile = (lengths[i] - queries[i]) / rows; tile <= (lengths[i] - 1) / rows; tile++, n++)
        tiles[2 * n] = i, tiles[2 * n + 1] = tile;
    }
    auto q = random_bf16(starts[3] * heads * d, 2), out = nan_bf16(starts[3] * heads * d);
    launch(r, kernel, n * heads, threads, shared_bytes(d, fp8, rows) + d / 8 * threads * 16,
           AttentionArgs{out, q, kv.cache(), starts, tiles, heads, window, 0.125f}, kv);
    r.out(out);
  });
}
KERNEL_CHECK(paged_attention) {
  check_prefill_of(64, paged_attention_d64, 0);
  check_prefill_of(64, paged_attention_d64, 70);
  check_prefill_of(96, paged_attention_d96, 0);
  check_prefill_of(128, paged_attention_d128, 0);
  check_prefill_of(256, paged_attention_d256, 0);
  check_prefill_of(64, paged_attention_fp8_d64, 0, true);
  check_prefill_of(96, paged_attention_fp8_d96, 0, true);
  check_prefill_of(256, paged_attention_fp8_d256, 0, true);
  check_prefill_of(64, paged_attention_wgmma_d64, 0);
  check_prefill_of(128, paged_attention_wgmma_d128, 70);
  check_prefill_of(64, paged_attention_wgmma_tma_d64, 70);
  check_prefill_of(128, paged_attention_wgmma_tma_d128, 0);
}
#endif
#ifdef CHECK_paged_decode
#include "../../paged_decode.cu"
static void check_decode_of(int d, void (*kernel)(DecodeArgs), int window, bool fp8 = false) {
  check(case_name("paged_decode", d, window, fp8), [=](Result& r) {
    const int heads = 6, kv_heads = 2, sequences = 3, splits = 2;
    Sequences kv({37, 530, 1}, kv_heads, d, fp8);
    auto q = random_bf16(sequences * heads * d, 2), out = nan_bf16(sequences * heads * d);
    Buffer<float> parts(sequences * heads * splits * (d + 2));
    for (size_t i = 0; i < parts.n; i++) parts[i] = NAN;
    r.run(kernel, dim3(splits, kv_heads, sequences), 32, shared_bytes(d, fp8, 16),
          DecodeArgs{parts, q, kv.cache(), heads, window, splits, 0.125f});
    r.run(paged_decode_combine, dim3(heads, sequences), d, 0,
          DecodeCombineArgs{out, parts, kv.contexts, heads, window, splits, d, 0.125f});
    r.out(out);
  });
}
KERNEL_CHECK(paged_decode) {
  check_decode_of(64, paged_decode_d64, 0);
  check_decode_of(64, paged_decode_d64, 12);
  check_decode_of(96, paged_decode_d96, 0);
  check_decode_of(128, paged_decode_d128, 0);
  check_decode_of(256, paged_decode_d256, 0);
  check_decode_of(64, paged_decode_fp8_d64, 0, true);
  check_decode_of(96, paged_decode_fp8_d96, 0, true);
  check_decode_of(256, paged_decode_fp8_d256, 0, true);
}
#endif
#endif
