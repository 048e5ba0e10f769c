// Causal attention over a paged KV cache, for any mix of whole prompts, chunks and short suffixes of long prefixes.
//
// q, out: [tokens][heads][D] bf16. keys, values: [blocks][block size][kv_heads][D] bf16, block_size a power of two.
// table: [sequences][table_width] blocks; sequences may share some. contexts: keys each sequence has. starts:
// [sequences + 1], first query row of each; its last query sees all its keys, and with a window only the last `window`.
// tiles: [][2], sequence and position / rows a tile of each block's work, made by the host.
//
// An FP8 cache (kv_cache.cu) has bytes of e4m3, and a scale for each head of each slot, a power of two. Tiles are
// widened to bf16 in shared memory, exactly, and go the same way from there.
//
// A thread block takes one head and a tile of queries at consecutive positions from a multiple of the tile's rows; a
// warp takes 16 of them. Keys go by in tiles, loaded one ahead, with an online softmax (FlashAttention-2) on mma.sync;
// on sm_90a also on wgmma, the tiles copied by all threads or, a block of the cache at a time, by the copy engine (TMA).
//
// Bits. Queries and keys lie in tiles at absolute positions, so the row of position P walks the same tiles in the same
// company, whatever else is in the batch and however its prompt was cut. Each 512 keys have a softmax of their own;
// these are added up in order. That is what paged_decode.cu does too, so a token decoded has the bits of one prefilled;
// the arithmetic both share is written in intrinsics, which no compiler contracts differently in the two.
#include "port.cuh"
struct AttentionArgs {
  bf16* out;
  const bf16* q;
  const void* keys;  // bf16, or bytes of e4m3
  const void* values;
  const float* key_scales;  // FP8 only
  const float* value_scales;
  const int* table;
  const int* contexts;
  const int* starts;
  const int* tiles;
  int table_width, block_size, heads, kv_heads;
  int window;   // 0: none
  float scale;  // of the scores
};
struct AttentionTmaArgs {
  AttentionArgs attention;
  TensorMap keys, values;  // [slots][kv_heads][D], in boxes of 64 columns, 1 head, and a block's slots up to 64
};
constexpr int SPLIT = 512;  // keys with a softmax of their own
constexpr float LOG2_E = 1.4426950408889634f;

template <int D, bool FP8, bool WGMMA, bool TMA = false>
__device__ __forceinline__ void paged_attention(const AttentionArgs& a, const TensorMap* key_map = nullptr,
                                                const TensorMap* value_map = nullptr) {
  constexpr int WARPS = D > 128 ? 4 : 8, THREADS = WARPS * 32, ROWS = WARPS * 16;
  constexpr int TK = D > 128 ? 32 : 64, CHUNKS = D / 8;  // keys a tile; 16-byte chunks a row
  constexpr int LD = WGMMA ? D : D + 8;                  // padded, or swizzled in slabs of 64 columns
  static_assert(!WGMMA || (!FP8 && D % 64 == 0 && D <= 128), "");
  static_assert(WGMMA || !TMA, "boxes are swizzled");
  static_assert(SPLIT % TK == 0 && TK % 16 == 0, "a warp's 16 rows end in one tile, and a tile lies in one split");
  constexpr bool FAR = D > 128;  // queries stay in shared memory: registers do not hold them
  constexpr int STAGES = FP8 ? 1 : 2;
  DYN_SHARED(bf16, tiles);  // [STAGES][keys, values][TK][LD]
  float4* sum = reinterpret_cast<float4*>(tiles + STAGES * 2 * TK * LD) + threadIdx.x;  // [CHUNKS][THREADS], one's own
  bf16* sq = reinterpret_cast<bf16*>(sum - threadIdx.x + CHUNKS * THREADS);             // [ROWS][LD], if FAR
  char* packed = reinterpret_cast<char*>(sq + (FAR ? ROWS * LD : 0));                   // [keys, values][TK][D], if FP8
  float* shared_scales = reinterpret_cast<float*>(packed + 2 * TK * D);                 // [keys, values][TK], if FP8
  mbarrier* full = reinterpret_cast<mbarrier*>(sq);                                     // [STAGES], if TMA

  const int h = blockIdx.x % a.heads, kvh = h / (a.heads / a.kv_heads);
  const int seq = a.tiles[blockIdx.x / a.heads * 2], tile = a.tiles[blockIdx.x / a.heads * 2 + 1] * ROWS;
  const int lane = threadIdx.x & 31, g = lane >> 2, tg = lane & 3;
  const int len = a.contexts[seq], past = len - (a.starts[seq + 1] - a.starts[seq]);
  const int* table = a.table + (size_t)seq * a.table_width;
  const int shift = __ffs(a.block_size) - 1;
  const float scale = __fmul_rn(a.scale, LOG2_E);

  // This warp's rows are at positions p to p + 15; the thread's two at p + g and p + g + 8. Warps that work together,
  // alone or four, walk [first, last].
  constexpr int TOGETHER = WGMMA ? 64 : 16;
  const int p = tile + (threadIdx.x >> 5) * 16, p0 = p + g, p1 = p0 + 8, lead = p & ~(TOGETHER - 1);
  const bool real0 = p0 >= past && p0 < len, real1 = p1 >= past && p1 < len;
  const bool busy = lead + TOGETHER > past && lead < len;
  const int first = a.window ? max(0, lead - a.window + 1) / TK * TK : 0, last = p / TK * TK;
  const int block_p = max(tile, past & ~(TOGETHER - 1));  // the first busy warp's
  const int begin = a.window ? max(0, block_p - a.window + 1) / TK * TK : 0, end = min(tile + ROWS, len);

  const long long row = a.starts[seq] - past;  // of position 0, were it there
  uint32_t qf[FAR ? 1 : D / 16][4];
  if constexpr (FAR) {  // a warp copies its own rows, together with the first tile
    for (int i = lane; i < 16 * CHUNKS; i += 32) {
      const int at = p + i / CHUNKS, c = i % CHUNKS;
      const bool real = at >= past && at < len;
      cp_async_16(&sq[(at - tile) * LD + c * 8], a.q + (real ? ((row + at) * a.heads + h) * D + c * 8 : 0), real);
    }
  } else {
    const uint32_t* q0 = reinterpret_cast<const uint32_t*>(a.q + ((row + p0) * a.heads + h) * D) + tg;
    const uint32_t* q1 = reinterpret_cast<const uint32_t*>(a.q + ((row + p1) * a.heads + h) * D) + tg;
#pragma unroll
    for (int k = 0; k < D / 16; k++) {
      qf[k][0] = real0 ? q0[k * 8] : 0u;
      qf[k][1] = real1 ? q1[k * 8] : 0u;
      qf[k][2] = real0 ? q0[k * 8 + 4] : 0u;
      qf[k][3] = real1 ? q1[k * 8 + 4] : 0u;
    }
  }
  auto slot_of = [&](int t) {  // which cached head is the key at t
    return (((long long)table[t >> shift] << shift) + (t & (a.block_size - 1))) * a.kv_heads + kvh;
  };
  constexpr int SCALES = (2 * TK + THREADS - 1) / THREADS;
  float scales[SCALES];  // FP8: those this thread hands to the others
  auto load = [&](int t0, int stage) {
    if constexpr (TMA) {  // one thread asks for the blocks that hold a key
      if (threadIdx.x != 0) return;
      const int rows = min(a.block_size, TK), blocks = (min(t0 + TK, len) - t0 + rows - 1) / rows;
      mbarrier_expect(full + stage, blocks * rows * D * 4);
      for (int column = 0; column < D; column += 64)
        for (int t = t0; t < t0 + blocks * rows; t += rows) {
          const int slot = (table[t >> shift] << shift) + (t & (a.block_size - 1));
          bf16* to = tiles + stage * 2 * TK * LD + column * TK + (t - t0) * 64;
          tma_load(to, key_map, full + stage, column, kvh, slot);
          tma_load(to + TK * LD, value_map, full + stage, column, kvh, slot);
        }
    } else {
      constexpr int BYTES = FP8 ? D : 2 * D;  // of a key; copied 16 at a time; values follow the keys
      for (int i = threadIdx.x; i < 2 * TK * BYTES / 16; i += THREADS) {
        const int at = i / (BYTES / 16), c = i % (BYTES / 16) * 16, t = t0 + at % TK;
        const bool real = t < len;
        const void* from = at < TK ? a.keys : a.values;
        bf16* wide = tiles + stage * 2 * TK * LD;
        if constexpr (WGMMA) wide += at / TK * TK * LD + c / 128 * TK * 64 + at % TK * 64 + (c / 16 % 8 ^ at % 8) * 8;
        else wide += at * LD + c / 2;
        char* to = FP8 ? packed + i * 16 : reinterpret_cast<char*>(wide);
        cp_async_16(to, static_cast<const char*>(from) + (real ? slot_of(t) * BYTES + c : 0), real);
      }
      if constexpr (FP8)
        for (int e = 0; e < SCALES; e++) {
          const int i = threadIdx.x + e * THREADS, t = t0 + i % TK;
          if (i < 2 * TK) scales[e] = t < len ? (i < TK ? a.key_scales : a.value_scales)[slot_of(t)] : 0.f;
        }
      cp_async_commit();
    }
  };
  auto widen = [&]() {  // FP8: the bytes this thread copied, to bf16; exact, as scales are powers of two
    for (int i = threadIdx.x; i < 2 * TK * D / 16; i += THREADS) {
      const uint4 v = reinterpret_cast<const uint4*>(packed)[i];
      const uint32_t u[4] = {v.x, v.y, v.z, v.w};
      const int t = i / (D / 16);
      const float scale = shared_scales[t];
      uint32_t y[8];
#pragma unroll
      for (int k = 0; k < 8; k++) {
        const uint32_t pair = u[k / 2] >> k % 2 * 16;
        y[k] = pack_bf16(from_e4m3(pair) * scale, from_e4m3(pair >> 8) * scale);
      }
      uint4* to = reinterpret_cast<uint4*>(tiles + t * LD + i % (D / 16) * 16);
      to[0] = make_uint4(y[0], y[1], y[2], y[3]);
      to[1] = make_uint4(y[4], y[5], y[6], y[7]);
    }
  };
  float o[D / 8][4], m[2] = {-INFINITY, -INFINITY}, l[2] = {0.f, 0.f};  // of this split: largest score, sums
  float all_m[2] = {-INFINITY, -INFINITY}, all_l[2] = {0.f, 0.f};       // of the splits before
#pragma unroll
  for (int n = 0; n < D / 8; n++) {
    o[n][0] = o[n][1] = o[n][2] = o[n][3] = 0.f;
    sum[n * THREADS] = make_float4(0.f, 0.f, 0.f, 0.f);
  }
  if constexpr (TMA) {
    if (threadIdx.x < STAGES) mbarrier_init(full + threadIdx.x);
    __syncthreads();  // barriers are there
  }
  load(begin, 0);
  for (int t0 = begin, stage = 0; t0 < end; t0 += TK, stage ^= 1) {
    if constexpr (TMA) mbarrier_wait(full + stage, (t0 - begin) / TK / STAGES & 1);
    else cp_async_wait<0>();
    if constexpr (WGMMA && !TMA) wgmma_shared_written();
    if constexpr (FP8)
      for (int e = 0; e < SCALES; e++)
        if (threadIdx.x + e * THREADS < 2 * TK) shared_scales[threadIdx.x + e * THREADS] = scales[e];
    __syncthreads();  // this tile is there, and no one reads the one before it any more
    if constexpr (TMA)
      if (t0 + TK > len) {  // values of no key: whatever they are, times a weight of 0
        for (int i = threadIdx.x; i < (t0 + TK - len) * (D / 8); i += THREADS) {
          const int at = len - t0 + i / (D / 8), c = i % (D / 8);
          bf16* to = tiles + (stage * 2 + 1) * TK * LD + c / 8 * TK * 64 + at * 64 + c % 8 * 8;
          *reinterpret_cast<uint4*>(to) = make_uint4(0, 0, 0, 0);
        }
        wgmma_shared_written();
        __syncthreads();  // they are zeros
      }
    if constexpr (FP8) widen();
    if (t0 + TK < end) load(t0 + TK, stage ^ 1);
    if constexpr (FP8) __syncthreads();  // this tile is widened
    if (!busy || t0 < first || t0 > last) continue;
    const bf16 *sk = tiles + (FP8 ? 0 : stage * 2 * TK * LD), *sv = sk + TK * LD;

    float s[TK / 8][4];  // scores: queries x keys
#pragma unroll
    for (int n = 0; n < TK / 8; n++) s[n][0] = s[n][1] = s[n][2] = s[n][3] = 0.f;
    if constexpr (WGMMA) {
      wgmma_settle(qf);
      wgmma_settle(s);
      wgmma_begin();
#pragma unroll
      for (int k = 0; k < D / 16; k++)
        wgmma_k16<false>(s, qf[k], wgmma_tile_at(sk + k / 4 * TK * 64 + k % 4 * 16, 16, 1024));
      wgmma_end();
      wgmma_settle(s);
    }
#pragma unroll
    for (int k = 0; k < (WGMMA ? 0 : D / 32); k++) {
      uint32_t q[2][4];
#pragma unroll
      for (int i = 0; i < 2; i++) {
        if constexpr (FAR) ldmatrix_x4(q[i], &sq[(p - tile + (lane & 15)) * LD + k * 32 + i * 16 + (lane >> 4) * 8]);
        else
          for (int j = 0; j < 4; j++) q[i][j] = qf[2 * k + i][j];
      }
#pragma unroll
      for (int n = 0; n < TK / 8; n++) {
        uint32_t b[4];
        ldmatrix_x4(b, &sk[(n * 8 + (lane & 7)) * LD + k * 32 + (lane >> 3) * 8]);
        mma_m16n8k16_bf16(s[n], q[0], b[0], b[1]);
        mma_m16n8k16_bf16(s[n], q[1], b[2], b[3]);
      }
    }
    if (t0 == last || (a.window && t0 <= p + 15 - a.window)) {
#pragma unroll
      for (int n = 0; n < TK / 8; n++)
#pragma unroll
        for (int j = 0; j < 4; j++) {
          const int t = t0 + n * 8 + tg * 2 + (j & 1), at = j < 2 ? p0 : p1;
          if (t > at || (a.window && t <= at - a.window)) s[n][j] = -INFINITY;
        }
    }
#pragma unroll
    for (int r = 0; r < 2; r++) {  // the rows of p0 and p1
      float x = m[r];
#pragma unroll
      for (int n = 0; n < TK / 8; n++) x = fmaxf(x, fmaxf(s[n][2 * r], s[n][2 * r + 1]));
      x = fmaxf(x, __shfl_xor_sync(~0u, x, 1));
      x = fmaxf(x, __shfl_xor_sync(~0u, x, 2));
      const float base = x == -INFINITY ? 0.f : __fmul_rn(x, scale);
      const float c = fast_exp2(fmaf(m[r], scale, -base));
      m[r] = x;
      l[r] = __fmul_rn(l[r], c);
#pragma unroll
      for (int n = 0; n < TK / 8; n++) {
        s[n][2 * r] = fast_exp2(fmaf(s[n][2 * r], scale, -base));
        s[n][2 * r + 1] = fast_exp2(fmaf(s[n][2 * r + 1], scale, -base));
        l[r] = __fadd_rn(l[r], __fadd_rn(s[n][2 * r], s[n][2 * r + 1]));
      }
#pragma unroll
      for (int n = 0; n < D / 8; n++) {
        o[n][2 * r] = __fmul_rn(o[n][2 * r], c);
        o[n][2 * r + 1] = __fmul_rn(o[n][2 * r + 1], c);
      }
    }
    uint32_t w[TK / 16][4];  // weights, as a left operand
#pragma unroll
    for (int k = 0; k < TK / 16; k++)
#pragma unroll
      for (int j = 0; j < 4; j++) w[k][j] = pack_bf16(s[2 * k + j / 2][j % 2 * 2], s[2 * k + j / 2][j % 2 * 2 + 1]);
    if constexpr (WGMMA) {
      wgmma_settle(w);
      wgmma_settle(o);
      wgmma_begin();
#pragma unroll
      for (int k = 0; k < TK / 16; k++) wgmma_k16<true>(o, w[k], wgmma_tile_at(sv + k * 16 * 64, TK * 128, 1024));
      wgmma_end();
      wgmma_settle(o);
    }
#pragma unroll
    for (int k = 0; k < (WGMMA ? 0 : TK / 16); k++) {
#pragma unroll
      for (int n = 0; n < D / 16; n++) {
        uint32_t b[4];
        ldmatrix_x4_trans(b, &sv[(k * 16 + (lane & 15)) * LD + n * 16 + (lane >> 4) * 8]);
        mma_m16n8k16_bf16(o[2 * n], w[k], b[0], b[1]);
        mma_m16n8k16_bf16(o[2 * n + 1], w[k], b[2], b[3]);
      }
    }

    if (t0 != last && (t0 + TK) % SPLIT) continue;
    float was[2], is[2];  // what the sums so far and this split's are worth
#pragma unroll
    for (int r = 0; r < 2; r++) {
      l[r] = __fadd_rn(l[r], __shfl_xor_sync(~0u, l[r], 1));
      l[r] = __fadd_rn(l[r], __shfl_xor_sync(~0u, l[r], 2));
      const float x = fmaxf(all_m[r], m[r]), base = x == -INFINITY ? 0.f : __fmul_rn(x, scale);
      was[r] = fast_exp2(fmaf(all_m[r], scale, -base));
      is[r] = fast_exp2(fmaf(m[r], scale, -base));
      all_m[r] = x;
      all_l[r] = fmaf(all_l[r], was[r], __fmul_rn(l[r], is[r]));
      m[r] = -INFINITY;
      l[r] = 0.f;
    }
#pragma unroll
    for (int n = 0; n < D / 8; n++) {
      float4 v = sum[n * THREADS];
      v.x = fmaf(v.x, was[0], __fmul_rn(o[n][0], is[0]));
      v.y = fmaf(v.y, was[0], __fmul_rn(o[n][1], is[0]));
      v.z = fmaf(v.z, was[1], __fmul_rn(o[n][2], is[1]));
      v.w = fmaf(v.w, was[1], __fmul_rn(o[n][3], is[1]));
      sum[n * THREADS] = v;
      o[n][0] = o[n][1] = o[n][2] = o[n][3] = 0.f;
    }
  }
  const float inv0 = 1.f / all_l[0], inv1 = 1.f / all_l[1];
  uint32_t* out0 = reinterpret_cast<uint32_t*>(a.out + ((row + p0) * a.heads + h) * D) + tg;
  uint32_t* out1 = reinterpret_cast<uint32_t*>(a.out + ((row + p1) * a.heads + h) * D) + tg;
#pragma unroll
  for (int n = 0; n < D / 8; n++) {
    const float4 v = sum[n * THREADS];
    if (real0) out0[n * 4] = pack_bf16(__fmul_rn(v.x, inv0), __fmul_rn(v.y, inv0));
    if (real1) out1[n * 4] = pack_bf16(__fmul_rn(v.z, inv1), __fmul_rn(v.w, inv1));
  }
}
#define PAGED_ATTENTION(D, NAME, ...)                                                                       \
  extern "C" __global__ void __launch_bounds__(D > 128 ? 128 : 256, 1) NAME##_d##D(const AttentionArgs a) { \
    paged_attention<D, __VA_ARGS__>(a);                                                                     \
  }                                                                                                         \
  CUDACPU_KERNEL(NAME##_d##D);
PAGED_ATTENTION(64, paged_attention, false, false)
PAGED_ATTENTION(96, paged_attention, false, false)
PAGED_ATTENTION(128, paged_attention, false, false)
PAGED_ATTENTION(256, paged_attention, false, false)
PAGED_ATTENTION(64, paged_attention_fp8, true, false)
PAGED_ATTENTION(96, paged_attention_fp8, true, false)
PAGED_ATTENTION(128, paged_attention_fp8, true, false)
PAGED_ATTENTION(256, paged_attention_fp8, true, false)
PAGED_ATTENTION(64, paged_attention_wgmma, false, true)
PAGED_ATTENTION(128, paged_attention_wgmma, false, true)
#define PAGED_ATTENTION_TMA(D)                                                             \
  extern "C" __global__ void __launch_bounds__(256, 1)                                     \
      paged_attention_wgmma_tma_d##D(const __grid_constant__ AttentionTmaArgs a) {         \
    paged_attention<D, false, true, true>(a.attention, &a.keys, &a.values);                \
  }                                                                                        \
  CUDACPU_KERNEL(paged_attention_wgmma_tma_d##D);
PAGED_ATTENTION_TMA(64)
PAGED_ATTENTION_TMA(128)
