// Attention of one query per sequence, the query of its last token, over a paged KV cache. The keys are divided into
// splits, whose results are then combined.
//
// q, out: [sequences][heads][D] bf16; cache and window as in paged_attention.cu. parts: workspace,
// [sequences][heads][splits][D + 2] f32: a split's largest score, its sum of weights, and its weighted sum of values.
//
// A warp processes one sequence, one KV head and one split of 512 keys. Its 16 rows are the query heads that share the
// KV head, so keys and values are read once for all of them. A second kernel merges the splits in order. Tiles and
// splits lie at the same positions as in paged_attention.cu and go through the same steps (attention_tile.cuh), so the
// bits are the same.
#include "attention_tile.cuh"
struct DecodeArgs {
  float* parts;
  const bf16* q;
  PagedKv cache;
  int heads, window, splits;
  float scale;
};
struct DecodeCombineArgs {
  bf16* out;
  const float* parts;
  const int* contexts;
  int heads, window, splits, head_size;
  float scale;
};
// Returns the first tile for the query at position p: the first tile of the warp that has p in prefill.
__device__ __forceinline__ int decode_first_tile(int p, int window, int keys) {
  return first_tile(p & ~15, window, keys);
}

// Writes a split's partial results for the thread's two rows.
template <class Shape>
__device__ __forceinline__ void write_part(const DecodeArgs& a, const SplitState<Shape::D>& split,
                                           const WarpRows& rows, Lane lane) {
  constexpr int D = Shape::D;
#pragma unroll
  for (int r = 0; r < 2; r++) {
    const float l = quad_sum(split.l[r]);
    const int row = lane.row() + r * 8;
    if (!rows.valid(row)) continue;
    float* part = a.parts + (rows.head(row) * a.splits + blockIdx.x) * (D + 2);
    if (lane.column() == 0) {
      part[0] = split.m[r];
      part[1] = l;
    }
#pragma unroll
    for (int n = 0; n < D / 8; n++) {
      float2* to = reinterpret_cast<float2*>(&part[2 + n * 8 + lane.column()]);
      *to = make_float2(split.o[n][2 * r], split.o[n][2 * r + 1]);
    }
  }
}

// Grid (splits, kv_heads, sequences), block 32.
template <int D, bool FP8>
__device__ __forceinline__ void paged_decode(const DecodeArgs& a) {
  using Shape = TileShape<D, FP8, 1>;
  constexpr int BLOCK_N = Shape::BLOCK_N;
  DYN_SHARED(bf16, tiles);
  bf16* queries = tiles + Shape::STAGES * 2 * Shape::TILE;
  char* packed = reinterpret_cast<char*>(queries + (Shape::Q_IN_SMEM ? 16 * Shape::LD : 0));
  const SharedTiles smem = {tiles, queries, packed, reinterpret_cast<float*>(packed + 2 * BLOCK_N * D)};

  const int split_index = blockIdx.x, kv_head = blockIdx.y, seq = blockIdx.z, group = a.heads / a.cache.kv_heads;
  const CachedHead kv(a.cache, seq, kv_head);
  const int p = kv.len - 1;
  const int begin = max(decode_first_tile(p, a.window, BLOCK_N), split_index * SPLIT);
  const int end = min((split_index + 1) * SPLIT, kv.len);
  if (begin >= end) return;
  const WarpRows rows = {seq * a.heads + kv_head * group, 1, 0, group};
  const Lane lane = {(int)threadIdx.x};
  const float scale = __fmul_rn(a.scale, LOG2_E);

  uint32_t qf[Shape::Q_STEPS][4];
  if constexpr (Shape::Q_IN_SMEM) copy_queries<Shape>(smem.queries, a.q, rows, lane.index);
  else load_queries<Shape>(qf, a.q, rows, lane);

  SplitState<D> split;
  split.reset();
  float scales[Shape::SCALES];
  load_tile<Shape>(kv, smem, begin, 0, scales);
  for (int t0 = begin, stage = 0; t0 < end; t0 += BLOCK_N, stage ^= 1) {
    wait_for_tile<Shape>(smem, scales);
    if constexpr (FP8) widen_tile<Shape>(smem);
    if (t0 + BLOCK_N < end) load_tile<Shape>(kv, smem, t0 + BLOCK_N, stage ^ 1, scales);
    if constexpr (FP8) __syncthreads();  // the tile is widened

    const bf16 *keys = smem.keys<Shape>(stage), *values = keys + Shape::TILE;
    float s[BLOCK_N / 8][4];
    compute_scores<Shape>(s, qf, smem.queries, keys, lane.index);
    if (t0 + BLOCK_N > p || (a.window && t0 <= p - a.window)) mask_scores(s, t0, lane, p, p, a.window);
    softmax_step(s, split, scale);
    accumulate_values<Shape>(split.o, s, values, lane.index);
  }
  write_part<Shape>(a, split, rows, lane);
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

// Merges the splits of a head. Grid (heads, sequences), one thread per element of the head.
extern "C" __global__ void __launch_bounds__(256) paged_decode_combine(const DecodeCombineArgs a) {
  const int h = blockIdx.x, seq = blockIdx.y, D = a.head_size, p = a.contexts[seq] - 1;
  const size_t row = (size_t)seq * a.heads + h;
  const int first = decode_first_tile(p, a.window, block_n(D)) / SPLIT;
  const float scale = __fmul_rn(a.scale, LOG2_E);
  float m = -INFINITY, l = 0.f, o = 0.f;
  for (int split = first; split <= p / SPLIT; split++) {
    const float* part = a.parts + (row * a.splits + split) * (D + 2);
    const MergeScales scales = merge_scales(m, part[0], scale);
    m = scales.m;
    l = merge(l, part[1], scales);
    o = merge(o, part[2 + threadIdx.x], scales);
  }
  a.out[row * D + threadIdx.x] = to_bf16(normalize(o, 1.f / l));
}
CUDACPU_KERNEL(paged_decode_combine);
