// check.cpp - every kernel in every thread order, for the sanitizers: no complaint, no NaN, always the same bits.
// Whether the numbers are right is what the Rust tests ask. With -DONLY -DCHECK_name just that kernel is built.
#ifndef ONLY
#define CHECK_embedding
#define CHECK_fp8
#define CHECK_kv_cache
#define CHECK_logprobs
#define CHECK_paged_attention
#define CHECK_paged_decode
#define CHECK_rank_sum
#define CHECK_rms_norm
#define CHECK_silu_mul
#endif
#include "../port.cuh"
#include <cstring>
#include <functional>
#include <memory>
#include <numeric>
using std::vector;

static uint64_t state;
static float rnd() {  // -1 to 1
  state = state * 6364136223846793005ull + 1442695040888963407ull;
  return ((int)(state >> 40) - (1 << 23)) / (float)(1 << 23);
}

// Exactly as long as it should be, so that ASan sees one element too many.
template <class T>
struct Buf {
  std::unique_ptr<T[]> p;
  size_t n;
  explicit Buf(size_t n) : p(new T[n]()), n(n) {}
  operator T*() { return p.get(); }
};
static Buf<bf16> values(size_t n, float spread) {
  Buf<bf16> b(n);
  for (size_t i = 0; i < n; i++) b[i] = to_bf16(rnd() * spread);
  return b;
}
static Buf<bf16> nans(size_t n) {
  Buf<bf16> b(n);
  for (size_t i = 0; i < n; i++) b[i] = {0x7fff};
  return b;
}

// What a case leaves: what the shim said, the bits of its outputs, whether a NaN is among them.
struct Result {
  std::string error;
  uint64_t digest = 14695981039346656037ull;
  bool nan = false;
  void add(uint32_t bits) { digest = (digest ^ bits) * 1099511628211ull; }
  template <class A>
  void run(void (*kernel)(A), dim3 grid, unsigned block, size_t shared, A args) {
    if (error.empty()) error = cudacpu::launch(grid, block, shared, kernel, args);
  }
  void out(Buf<bf16>& b) {
    for (size_t i = 0; i < b.n; i++) {
      add(b[i].x);
      nan |= to_float(b[i]) != to_float(b[i]);
    }
  }
  void out(Buf<float>& b) {
    for (size_t i = 0; i < b.n; i++) {
      add(__float_as_uint(b[i]));
      nan |= b[i] != b[i];
    }
  }
  template <class T>
  void out(Buf<T>& b) {
    for (size_t i = 0; i < b.n; i++) add((uint32_t)b[i]);
  }
};
static void check(const std::string& name, std::function<void(Result&)> work) {
  uint64_t first = 0;
  for (int order : {cudacpu::FORWARD, cudacpu::REVERSE, cudacpu::RANDOM}) {
    cudacpu::config.order = order;
    state = 42;
    Result r;
    work(r);
    if (order == cudacpu::FORWARD) first = r.digest;
    const char* verdict = !r.error.empty() ? r.error.c_str() : r.nan ? "NaN" : r.digest != first ? "other bits" : "";
    if (*verdict) {
      printf("FAIL  %s order=%d %s\n", name.c_str(), order, verdict);
      exit(1);
    }
  }
  printf("done  %s\n", name.c_str());
}
static unsigned row_block(int n) { return std::min(512, (n / 8 + 31) / 32 * 32); }

#ifdef CHECK_embedding
#include "../embedding.cu"
static void check_embedding() {
  check("embedding", [](Result& r) {
    const int rows = 3, n = 520, vocabulary = 5;
    auto table = values(vocabulary * n, 1), out = nans(rows * n);
    Buf<int> ids(rows);
    ids[0] = 4, ids[1] = 0, ids[2] = 4;
    r.run(embedding, rows, row_block(n), 0, EmbeddingArgs{out, table, ids, n, 0, vocabulary, vocabulary});
    r.out(out);
  });
}
#endif
#ifdef CHECK_rank_sum
#include "../rank_sum.cu"
static void check_rank_sum() {
  check("rank_sum", [](Result& r) {
    const int ranks = 3, n = 2056;
    auto parts = values(ranks * n, 3), out = nans(n);
    r.run(rank_sum, 2, 256, 0, RankSumArgs{out, parts, n, ranks});
    r.out(out);
  });
}
#endif
#ifdef CHECK_rms_norm
#include "../rms_norm.cu"
static void check_rms_norm() {
  for (int n : {8, 520, 4104})
    check("rms_norm " + std::to_string(n), [=](Result& r) {
      auto x = values(2 * n, 3), residual = values(2 * n, 3), weight = values(n, 1), out = nans(2 * n);
      r.run(rms_norm, 2, row_block(n), 0, RmsNormArgs{out, x, residual, weight, n, 1e-5f});
      r.out(out);
      r.out(residual);
    });
}
#endif
#ifdef CHECK_silu_mul
#include "../silu_mul.cu"
static void check_silu_mul() {
  check("silu_mul", [](Result& r) {
    const int rows = 2, n = 520;
    auto x = values(rows * 2 * n, 9), out = nans(rows * n);
    r.run(silu_mul, rows, row_block(n), 0, SiluMulArgs{out, x, n});
    r.out(out);
  });
}
#endif
#ifdef CHECK_fp8
#include "../fp8.cu"
static void check_fp8() {
  check("fp8", [](Result& r) {
    const int rows = 2, n = 1032;
    auto x = values(rows * n, 500);
    Buf<uint8_t> out(rows * n);
    Buf<float> scales(rows);
    r.run(fp8_quantize, rows, row_block(n), 0, Fp8Args{out, scales, x, n, 400.f});
    r.out(out);
    r.out(scales);
    Buf<float> columns(n);
    for (size_t i = 0; i < columns.n; i++) columns[i] = rnd();
    r.run(fp8_scale, rows, row_block(n), 0, Fp8ScaleArgs{x, scales, columns, values(n, 1), n});
    r.out(x);
  });
}
#endif
#ifdef CHECK_kv_cache
#include "../kv_cache.cu"
static void check_kv_cache_of(int d, void (*kernel)(KvCacheArgs), bool fp8 = false) {
  check("kv_cache " + std::to_string(d) + (fp8 ? " fp8" : ""), [=](Result& r) {
    const int tokens = 3, heads = 7, kv_heads = 2, positions = 9;
    auto qkv = values(tokens * (heads + 2 * kv_heads) * d, 2), norm = values(d, 1);
    auto queries = nans(tokens * heads * d);
    Buf<uint8_t> keys(tokens * kv_heads * d * (fp8 ? 1 : 2)), cached(keys.n);
    Buf<float> cos_sin(positions * d), key_scales(tokens * kv_heads), value_scales(tokens * kv_heads);
    for (size_t i = 0; i < cos_sin.n; i++) cos_sin[i] = rnd();
    Buf<int> at(tokens), slots(tokens);
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
static void check_kv_cache() {
  check_kv_cache_of(64, kv_cache_d64);
  check_kv_cache_of(96, kv_cache_d96);
  check_kv_cache_of(128, kv_cache_d128);
  check_kv_cache_of(256, kv_cache_d256);
  check_kv_cache_of(64, kv_cache_fp8_d64, true);
  check_kv_cache_of(96, kv_cache_fp8_d96, true);
  check_kv_cache_of(256, kv_cache_fp8_d256, true);
}
#endif
#ifdef CHECK_logprobs
#include "../logprobs.cu"
static void check_logprobs() {
  for (int vocabulary : {33, 4100})
    check("logprobs " + std::to_string(vocabulary), [=](Result& r) {
      const int rows = 2, tiles = (vocabulary + COLUMNS - 1) / COLUMNS, top = 5;
      const long long stride = vocabulary + 3;
      Buf<float> logits((rows - 1) * stride + vocabulary);
      for (size_t i = 0; i < logits.n; i++) logits[i] = rnd() * 9;
      Buf<int> targets(rows), ids(rows * tiles * top), ranks(rows), top_ids(rows * top);
      targets[0] = vocabulary - 1;
      Buf<unsigned> members(rows * ((vocabulary + 31) / 32));
      members[1] = 1;
      members[members.n - 1] = 1;
      Buf<LogprobPart> parts(rows * tiles);
      Buf<float> tops(rows * tiles * top), logprobs(rows), entropies(rows), sets(rows), top_logprobs(rows * top);
      Buf<float> target_logits(rows);
      r.run(logprobs_target, 1, 256, 0,
            LogprobTargetArgs{target_logits, logits, targets, stride, rows, 0, vocabulary});
      r.run(logprobs_tile, dim3(tiles, rows), 256, 0,
            LogprobTileArgs{parts, tops, ids, logits, target_logits, members, stride, 0, vocabulary, 1, top});
      r.run(logprobs_combine, rows, 32, 0,
            LogprobCombineArgs{logprobs, ranks, entropies, sets, top_logprobs, top_ids, parts, tops, ids, target_logits,
                               1, tiles, top});
      r.out(logprobs);
      r.out(ranks);
      r.out(entropies);
      r.out(sets);
      r.out(top_logprobs);
      r.out(top_ids);
    });
}
#endif

// Sequences of `lengths` keys over shuffled blocks; NaN where nothing lives, unused table entries point nowhere.
struct Paged {
  int kv_heads, d, width = 0, block = 16;
  Buf<bf16> keys{0}, cached{0};
  Buf<float> key_scales{0}, value_scales{0};
  Buf<int> table{0}, contexts{0};
  Paged(const vector<int>& lengths, int kv_heads, int d, bool fp8)
      : kv_heads(kv_heads), d(d), contexts(lengths.size()) {
    int blocks = 1;
    for (int len : lengths) {
      width = std::max(width, (len + block - 1) / block);
      blocks += (len + block - 1) / block;
    }
    vector<int> free(blocks);
    std::iota(free.begin(), free.end(), 0);
    for (int i = blocks - 1; i > 0; i--) std::swap(free[i], free[(unsigned)(rnd() * 1e6 + 2e6) % (i + 1)]);
    const size_t heads = (size_t)blocks * block * kv_heads;
    keys = nans(heads * d / (fp8 ? 2 : 1));  // FP8: two bytes in each
    cached = nans(keys.n);
    key_scales = Buf<float>(heads), value_scales = Buf<float>(heads);
    for (size_t i = 0; i < heads; i++) key_scales[i] = value_scales[i] = NAN;
    table = Buf<int>(lengths.size() * width);
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
          keys[i] = to_bf16(rnd() * 2), cached[i] = to_bf16(rnd());
        for (size_t i = slot * kv_heads; i < (slot + 1) * kv_heads; i++) key_scales[i] = value_scales[i] = 1 / 64.f;
      }
    }
  }
};
static size_t tile_bytes(int keys, int d, bool fp8) {
  return fp8 ? 2 * keys * (2 * (d + 8) + d + 4) : 4 * keys * (d + 8) * 2;
}
#ifdef CHECK_paged_attention
#include "../paged_attention.cu"
static void start(Result& r, void (*kernel)(AttentionArgs), unsigned blocks, unsigned threads, size_t shared,
                  AttentionArgs a, Paged&, int) {
  r.run(kernel, blocks, threads, shared, a);
}
static void start(Result& r, void (*kernel)(AttentionTmaArgs), unsigned blocks, unsigned threads, size_t shared,
                  AttentionArgs a, Paged& kv, int d) {
  auto map = [&](Buf<bf16>& cache) {
    const uint64_t row = kv.kv_heads * d;
    return TensorMap{(uint64_t)(bf16*)cache, (uint64_t)d, (uint64_t)kv.kv_heads, cache.n / row, (uint64_t)kv.block};
  };
  r.run(kernel, blocks, threads, shared + 16, AttentionTmaArgs{a, map(kv.keys), map(kv.cached)});
}
template <class A>
static void check_prefill_of(int d, void (*kernel)(A), int window, bool fp8 = false) {
  check("paged_attention " + std::to_string(d) + (std::is_same<A, AttentionArgs>::value ? "" : " by tma") +
            (fp8      ? " fp8"
             : window ? " windowed"
                      : ""),
        [=](Result& r) {
          const int heads = 2, kv_heads = 1, rows = d > 128 ? 64 : 128;
          Paged kv({37, 150, 1}, kv_heads, d, fp8);
          const int lengths[] = {37, 150, 1}, queries[] = {37, 100, 1};
          Buf<int> starts(4), tiles(d > 128 ? 10 : 8);
          int n = 0;
          for (int i = 0; i < 3; i++) {
            starts[i + 1] = starts[i] + queries[i];
            for (int tile = (lengths[i] - queries[i]) / rows; tile <= (lengths[i] - 1) / rows; tile++, n++)
              tiles[2 * n] = i, tiles[2 * n + 1] = tile;
          }
          auto q = values(starts[3] * heads * d, 2), out = nans(starts[3] * heads * d);
          const int threads = rows * 2, tk = d > 128 ? 32 : 64;
          const size_t shared = tile_bytes(tk, d, fp8) + d / 8 * threads * 16 + (d > 128 ? rows * (d + 8) * 2 : 0);
          start(r, kernel, n * heads, threads, shared,
                AttentionArgs{out, q, kv.keys, kv.cached, kv.key_scales, kv.value_scales, kv.table, kv.contexts, starts,
                              tiles, kv.width, kv.block, heads, kv_heads, window, 0.125f},
                kv, d);
          r.out(out);
        });
}
static void check_paged_attention() {
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
#include "../paged_decode.cu"
static void check_decode_of(int d, void (*kernel)(DecodeArgs), int window, bool fp8 = false) {
  check("paged_decode " + std::to_string(d) +
            (fp8      ? " fp8"
             : window ? " windowed"
                      : ""),
        [=](Result& r) {
          const int heads = 6, kv_heads = 2, sequences = 3, splits = 2;
          Paged kv({37, 530, 1}, kv_heads, d, fp8);
          auto q = values(sequences * heads * d, 2), out = nans(sequences * heads * d);
          Buf<float> parts(sequences * heads * splits * (d + 2));
          for (size_t i = 0; i < parts.n; i++) parts[i] = NAN;
          r.run(kernel, dim3(splits, kv_heads, sequences), 32,
                tile_bytes(decode_tile(d), d, fp8) + (d > 128 ? 16 : 0) * (d + 8) * 2,
                DecodeArgs{parts, q, kv.keys, kv.cached, kv.key_scales, kv.value_scales, kv.table, kv.contexts,
                           kv.width, kv.block, heads, kv_heads, window, splits, 0.125f});
          r.run(paged_decode_combine, dim3(heads, sequences), d, 0,
                DecodeCombineArgs{out, parts, kv.contexts, heads, window, splits, d, 0.125f});
          r.out(out);
        });
}
static void check_paged_decode() {
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

int main() {
#ifdef CHECK_embedding
  check_embedding();
#endif
#ifdef CHECK_fp8
  check_fp8();
#endif
#ifdef CHECK_kv_cache
  check_kv_cache();
#endif
#ifdef CHECK_logprobs
  check_logprobs();
#endif
#ifdef CHECK_paged_attention
  check_paged_attention();
#endif
#ifdef CHECK_paged_decode
  check_paged_decode();
#endif
#ifdef CHECK_rank_sum
  check_rank_sum();
#endif
#ifdef CHECK_rms_norm
  check_rms_norm();
#endif
#ifdef CHECK_silu_mul
  check_silu_mul();
#endif
}
