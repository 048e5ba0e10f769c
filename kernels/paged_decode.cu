// Attention of one query a sequence, its last token, over a paged KV cache: split over the keys, then combined.
//
// q, out: [sequences][heads][D] bf16; keys, values, table, contexts, window as in paged_attention.cu. parts: workspace,
// [sequences][heads][splits][D + 2] f32: a split's largest score, its sum of weights, its weighted sum of values.
//
// A warp takes one sequence, one KV head and the 512 keys from a multiple of 512; its 16 rows are the query heads that
// share the KV head, so keys and values are read once for all of them. A second kernel adds the splits up in order.
// Tiles, splits and arithmetic are those of paged_attention.cu, step by step, so the bits are too.
#include "port.cuh"
struct DecodeArgs {
  float* parts;
  const bf16* q;
  const void* keys;  // bf16, or bytes of e4m3
  const void* values;
  const float* key_scales;  // FP8 only
  const float* value_scales;
  const int* table;
  const int* contexts;
  int table_width, block_size, heads, kv_heads, window, splits;
  float scale;
};
struct DecodeCombineArgs {
  bf16* out;
  const float* parts;
  const int* contexts;
  int heads, window, splits, head_size;
  float scale;
};
constexpr int DECODE_SPLIT = 512;
constexpr float DECODE_LOG2_E = 1.4426950408889634f;
__host__ __device__ constexpr int decode_tile(int head_size) { return head_size > 128 ? 32 : 64; }
// The first key tile of the query at position p: where prefill's warp of p begins.
__device__ __forceinline__ int decode_first(int p, int window, int tile) {
  return window ? max(0, (p & ~15) - window + 1) / tile * tile : 0;
}

template <int D, bool FP8>
__device__ __forceinline__ void paged_decode(const DecodeArgs& a) {
  constexpr int TK = decode_tile(D), LD = D + 8, CHUNKS = D / 8;
  constexpr bool FAR = D > 128;  // queries stay in shared memory: registers do not hold them
  constexpr int STAGES = FP8 ? 1 : 2;
  DYN_SHARED(bf16, tiles);                                               // [STAGES][keys, values][TK][LD]
  bf16* sq = tiles + STAGES * 2 * TK * LD;                               // [16][LD], if FAR
  char* packed = reinterpret_cast<char*>(sq + (FAR ? 16 * LD : 0));      // [keys, values][TK][D], if FP8
  float* shared_scales = reinterpret_cast<float*>(packed + 2 * TK * D);  // [keys, values][TK], if FP8
  const int split = blockIdx.x, kvh = blockIdx.y, seq = blockIdx.z, lane = threadIdx.x, g = lane >> 2, tg = lane & 3;
  const int group = a.heads / a.kv_heads, p = a.contexts[seq] - 1;
  const int begin = max(decode_first(p, a.window, TK), split * DECODE_SPLIT),
            end = min((split + 1) * DECODE_SPLIT, p + 1);
  if (begin >= end) return;
  const int* table = a.table + (size_t)seq * a.table_width;
  const int shift = __ffs(a.block_size) - 1;
  const float scale = __fmul_rn(a.scale, DECODE_LOG2_E);
  const size_t row0 = (size_t)seq * a.heads + kvh * group + g, row1 = row0 + 8;
  const bool real0 = g < group, real1 = g + 8 < group;
  uint32_t qf[FAR ? 1 : D / 16][4];
  if constexpr (FAR) {  // together with the first tile
    for (int i = lane; i < 16 * CHUNKS; i += 32) {
      const int at = i / CHUNKS, c = i % CHUNKS;
      cp_async_16(&sq[at * LD + c * 8], a.q + (row0 - g + (at < group ? at : 0)) * D + c * 8, at < group);
    }
  } else {
    const uint32_t* q0 = reinterpret_cast<const uint32_t*>(a.q + row0 * D) + tg;
    const uint32_t* q1 = reinterpret_cast<const uint32_t*>(a.q + row1 * D) + tg;
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
  constexpr int SCALES = (2 * TK + 32 - 1) / 32;
  float scales[SCALES];  // FP8: those this thread hands to the others
  auto load = [&](int t0, int stage) {
    constexpr int BYTES = FP8 ? D : 2 * D;  // of a key; copied 16 at a time; values follow the keys
    for (int i = lane; i < 2 * TK * BYTES / 16; i += 32) {
      const int at = i / (BYTES / 16), c = i % (BYTES / 16) * 16, t = t0 + at % TK;
      const bool real = t <= p;
      const void* from = at < TK ? a.keys : a.values;
      char* to = FP8 ? packed + i * 16 : reinterpret_cast<char*>(tiles + (stage * 2 * TK + at) * LD) + c;
      cp_async_16(to, static_cast<const char*>(from) + (real ? slot_of(t) * BYTES + c : 0), real);
    }
    if constexpr (FP8)
      for (int e = 0; e < SCALES; e++) {
        const int i = lane + e * 32, t = t0 + i % TK;
        if (i < 2 * TK) scales[e] = t <= p ? (i < TK ? a.key_scales : a.value_scales)[slot_of(t)] : 0.f;
      }
    cp_async_commit();
  };
  auto widen = [&]() {  // FP8: the bytes this thread copied, to bf16; exact, as scales are powers of two
    for (int i = lane; i < 2 * TK * D / 16; i += 32) {
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
  float o[D / 8][4], m[2] = {-INFINITY, -INFINITY}, l[2] = {0.f, 0.f};
#pragma unroll
  for (int n = 0; n < D / 8; n++) o[n][0] = o[n][1] = o[n][2] = o[n][3] = 0.f;
  load(begin, 0);
  for (int t0 = begin, stage = 0; t0 < end; t0 += TK, stage ^= 1) {
    cp_async_wait<0>();
    if constexpr (FP8)
      for (int e = 0; e < SCALES; e++)
        if (lane + e * 32 < 2 * TK) shared_scales[lane + e * 32] = scales[e];
    __syncthreads();  // this tile is there, and no lane reads the one before it any more
    if constexpr (FP8) widen();
    if (t0 + TK < end) load(t0 + TK, stage ^ 1);
    if constexpr (FP8) __syncthreads();  // this tile is widened
    const bf16 *sk = tiles + (FP8 ? 0 : stage * 2 * TK * LD), *sv = sk + TK * LD;
    float s[TK / 8][4];
#pragma unroll
    for (int n = 0; n < TK / 8; n++) s[n][0] = s[n][1] = s[n][2] = s[n][3] = 0.f;
#pragma unroll
    for (int k = 0; k < D / 32; k++) {
      uint32_t q[2][4];
#pragma unroll
      for (int i = 0; i < 2; i++) {
        if constexpr (FAR) ldmatrix_x4(q[i], &sq[(lane & 15) * LD + k * 32 + i * 16 + (lane >> 4) * 8]);
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
    if (t0 + TK > p || (a.window && t0 <= p - a.window)) {
#pragma unroll
      for (int n = 0; n < TK / 8; n++)
#pragma unroll
        for (int j = 0; j < 4; j++) {
          const int t = t0 + n * 8 + tg * 2 + (j & 1);
          if (t > p || (a.window && t <= p - a.window)) s[n][j] = -INFINITY;
        }
    }
#pragma unroll
    for (int r = 0; r < 2; r++) {
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
#pragma unroll
    for (int k = 0; k < TK / 16; k++) {
      const uint32_t w[4] = {pack_bf16(s[2 * k][0], s[2 * k][1]), pack_bf16(s[2 * k][2], s[2 * k][3]),
                             pack_bf16(s[2 * k + 1][0], s[2 * k + 1][1]), pack_bf16(s[2 * k + 1][2], s[2 * k + 1][3])};
#pragma unroll
      for (int n = 0; n < D / 16; n++) {
        uint32_t b[4];
        ldmatrix_x4_trans(b, &sv[(k * 16 + (lane & 15)) * LD + n * 16 + (lane >> 4) * 8]);
        mma_m16n8k16_bf16(o[2 * n], w, b[0], b[1]);
        mma_m16n8k16_bf16(o[2 * n + 1], w, b[2], b[3]);
      }
    }
  }
#pragma unroll
  for (int r = 0; r < 2; r++) {
    l[r] = __fadd_rn(l[r], __shfl_xor_sync(~0u, l[r], 1));
    l[r] = __fadd_rn(l[r], __shfl_xor_sync(~0u, l[r], 2));
    if (!(r ? real1 : real0)) continue;
    float* part = a.parts + ((r ? row1 : row0) * a.splits + split) * (D + 2);
    if (tg == 0) {
      part[0] = m[r];
      part[1] = l[r];
    }
#pragma unroll
    for (int n = 0; n < D / 8; n++)
      *reinterpret_cast<float2*>(&part[2 + n * 8 + tg * 2]) = make_float2(o[n][2 * r], o[n][2 * r + 1]);
  }
}
#define PAGED_DECODE(D, NAME, FP8)                                                                              \
  extern "C" __global__ void __launch_bounds__(32) NAME##_d##D(const DecodeArgs a) { paged_decode<D, FP8>(a); } \
  CUDACPU_KERNEL(NAME##_d##D);
PAGED_DECODE(64, paged_decode, false)
PAGED_DECODE(96, paged_decode, false)
PAGED_DECODE(128, paged_decode, false)
PAGED_DECODE(256, paged_decode, false)
PAGED_DECODE(64, paged_decode_fp8, true)
PAGED_DECODE(96, paged_decode_fp8, true)
PAGED_DECODE(128, paged_decode_fp8, true)
PAGED_DECODE(256, paged_decode_fp8, true)

// Grid (heads, sequences), a thread an element of the head.
extern "C" __global__ void __launch_bounds__(256) paged_decode_combine(const DecodeCombineArgs a) {
  const int h = blockIdx.x, seq = blockIdx.y, D = a.head_size, p = a.contexts[seq] - 1;
  const size_t row = (size_t)seq * a.heads + h;
  const int first = decode_first(p, a.window, decode_tile(D)) / DECODE_SPLIT;
  const float scale = __fmul_rn(a.scale, DECODE_LOG2_E);
  float m = -INFINITY, l = 0.f, o = 0.f;
  for (int split = first; split <= p / DECODE_SPLIT; split++) {
    const float* part = a.parts + (row * a.splits + split) * (D + 2);
    const float x = fmaxf(m, part[0]), base = x == -INFINITY ? 0.f : __fmul_rn(x, scale);
    const float was = fast_exp2(fmaf(m, scale, -base)), is = fast_exp2(fmaf(part[0], scale, -base));
    m = x;
    l = fmaf(l, was, __fmul_rn(part[1], is));
    o = fmaf(o, was, __fmul_rn(part[2 + threadIdx.x], is));
  }
  a.out[row * D + threadIdx.x] = to_bf16(__fmul_rn(o, 1.f / l));
}
CUDACPU_KERNEL(paged_decode_combine);
