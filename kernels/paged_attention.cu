// Causal attention over a paged KV cache, for any mix of whole prompts, chunks and short suffixes of long cached
// prefixes.
//
// q, out: [tokens][heads][D] bf16. keys, values: [blocks][block_size][kv_heads][D] bf16, block_size a power of two.
// table: [sequences][table_width] blocks; sequences may share blocks. contexts: [sequences], number of keys. starts:
// [sequences + 1], first query row of each sequence. The last query of a sequence attends to all keys of the sequence,
// or to the last `window` keys if there is a window. tiles: [][2], sequence and position / BLOCK_M of each thread
// block's queries, made by the host.
//
// An FP8 cache (kv_cache.cu) has e4m3 bytes and a scale for each head of each slot, a power of two. Tiles are widened
// to bf16 in shared memory, which is exact; all later steps are the same.
//
// A thread block processes one head of BLOCK_M queries at consecutive positions, from a multiple of BLOCK_M on. Each
// warp has 16 of the queries. The block walks the keys tile by tile with the steps of attention_tile.cuh, and loads one
// tile ahead. On sm_90a the matrix products can also run on wgmma, with tiles copied by all threads or, one cache block
// at a time, by the copy engine (TMA).
//
// Reproducible bits: tiles of queries and keys lie at absolute positions, so the query at position P always walks the
// same tiles with the same neighbors, whatever else is in the batch and however its prompt was cut into chunks. Each
// split of 512 keys has its own softmax, and splits are merged in order. paged_decode.cu runs the same steps, so
// decoding a token gives the same bits as prefilling it.
#include "attention_tile.cuh"
struct AttentionArgs {
  bf16* out;
  const bf16* q;
  PagedKv cache;
  const int* starts;
  const int* tiles;
  int heads;
  int window;   // 0: none
  float scale;  // of the scores
};
struct AttentionTmaArgs {
  AttentionArgs attention;
  TensorMap keys, values;  // [slots][kv_heads][D]; a box: 64 columns, 1 head, min(block_size, 64) slots
};

// ---------------------------------------------------------------- Work
// A warp's queries, and the tiles of keys that it and its thread block walk.
struct PrefillWork {
  int seq, head;
  int position;      // of the warp's row 0
  int first, last;   // the warp's first and last tile
  int begin, end;    // the keys that the block walks
  bool has_queries;  // some row of the warp, or of the warps in its group, is a query
  WarpRows rows;
};

// GROUP_ROWS: queries of a group of warps that walk the same tiles together: 16 for one warp, or 64 for four.
template <class Shape, int GROUP_ROWS>
__device__ __forceinline__ PrefillWork prefill_work(const AttentionArgs& a) {
  PrefillWork work;
  work.head = blockIdx.x % a.heads;
  work.seq = a.tiles[blockIdx.x / a.heads * 2];
  const int block_position = a.tiles[blockIdx.x / a.heads * 2 + 1] * Shape::BLOCK_M;
  const int len = a.cache.contexts[work.seq], start = a.starts[work.seq];
  const int past = len - (a.starts[work.seq + 1] - start);  // keys before the first query

  const int position = block_position + (threadIdx.x >> 5) * 16, group = position & ~(GROUP_ROWS - 1);
  work.position = position;
  work.has_queries = group + GROUP_ROWS > past && group < len;
  work.first = first_tile(group, a.window, Shape::BLOCK_N);
  work.last = position / Shape::BLOCK_N * Shape::BLOCK_N;

  const int first_group = max(block_position, past & ~(GROUP_ROWS - 1));  // the first group with a query
  work.begin = first_tile(first_group, a.window, Shape::BLOCK_N);
  work.end = min(block_position + Shape::BLOCK_M, len);

  work.rows = {(start - past + position) * a.heads + work.head, a.heads, past - position, len - position};
  return work;
}

// ---------------------------------------------------------------- Hopper: copies by TMA, products by wgmma
// Starts copying the cache blocks that hold the tile at t0. One thread issues all copies.
template <class Shape>
__device__ __forceinline__ void load_boxes(const CachedHead& kv, const TensorMap* key_map, const TensorMap* value_map,
                                           const SharedTiles& smem, mbarrier* full, int t0, int stage) {
  constexpr int BLOCK_N = Shape::BLOCK_N;
  if (threadIdx.x != 0) return;
  const int rows = min(kv.cache.block_size, BLOCK_N), blocks = (min(t0 + BLOCK_N, kv.len) - t0 + rows - 1) / rows;
  mbarrier_expect(full + stage, blocks * rows * Shape::D * 4);
  for (int column = 0; column < Shape::D; column += 64)
    for (int t = t0; t < t0 + blocks * rows; t += rows) {
      const int slot = kv.slot(t);
      bf16* to = smem.keys<Shape>(stage) + column * BLOCK_N + (t - t0) * 64;
      tma_load(to, key_map, full + stage, column, kv.kv_head, slot);
      tma_load(to + Shape::TILE, value_map, full + stage, column, kv.kv_head, slot);
    }
}

// Waits for the boxes of a stage, and zeroes the values beyond the sequence's end: their weight is 0, but they may be
// NaN.
template <class Shape>
__device__ __forceinline__ void wait_for_boxes(const SharedTiles& smem, mbarrier* full, int t0, int stage, int parity,
                                               int len) {
  constexpr int BLOCK_N = Shape::BLOCK_N, CHUNKS = Shape::D / 8;
  mbarrier_wait(full + stage, parity);
  __syncthreads();  // no thread still reads the previous tile
  if (t0 + BLOCK_N > len) {
    for (int i = threadIdx.x; i < (t0 + BLOCK_N - len) * CHUNKS; i += Shape::THREADS) {
      const int row = len - t0 + i / CHUNKS, c = i % CHUNKS;
      bf16* to = smem.keys<Shape>(stage) + Shape::TILE + c / 8 * BLOCK_N * 64 + row * 64 + c % 8 * 8;
      *reinterpret_cast<uint4*>(to) = make_uint4(0, 0, 0, 0);
    }
    fence_async_proxy();
    __syncthreads();  // the values are zero
  }
}

// Like compute_scores, but on wgmma, which reads the queries from registers and the keys from shared memory.
template <class Shape>
__device__ __forceinline__ void compute_scores_wgmma(float (&s)[Shape::BLOCK_N / 8][4],
                                                     uint32_t (&qf)[Shape::Q_STEPS][4], const bf16* keys) {
  set_zero(s);
  wgmma_fence_registers(qf);
  wgmma_fence_registers(s);
  wgmma_fence();
#pragma unroll
  for (int k = 0; k < Shape::D / 16; k++)
    wgmma_k16<false>(s, qf[k], wgmma_descriptor_of(keys + k / 4 * Shape::BLOCK_N * 64 + k % 4 * 16, 16, 1024));
  wgmma_commit_and_wait();
  wgmma_fence_registers(s);
}

// Like accumulate_values, but on wgmma, which reads the values from shared memory.
template <class Shape>
__device__ __forceinline__ void accumulate_values_wgmma(float (&o)[Shape::D / 8][4],
                                                        const float (&s)[Shape::BLOCK_N / 8][4], const bf16* values) {
  constexpr int BLOCK_N = Shape::BLOCK_N;
  uint32_t w[BLOCK_N / 16][4];
#pragma unroll
  for (int k = 0; k < BLOCK_N / 16; k++) pack_weights(w[k], s, k);
  wgmma_fence_registers(w);
  wgmma_fence_registers(o);
  wgmma_fence();
#pragma unroll
  for (int k = 0; k < BLOCK_N / 16; k++)
    wgmma_k16<true>(o, w[k], wgmma_descriptor_of(values + k * 16 * 64, BLOCK_N * 128, 1024));
  wgmma_commit_and_wait();
  wgmma_fence_registers(o);
}

// ---------------------------------------------------------------- Splits and the output
// The merged splits of the thread's two rows: the largest score and the sum of weights. The weighted sums of values lie
// in shared memory, [D / 8][THREADS].
struct MergedSplits {
  float m[2], l[2];
  float4* o;
};

// Merges a split and resets it.
template <class Shape>
__device__ __forceinline__ void merge_split(MergedSplits& merged, SplitState<Shape::D>& split, float scale) {
  MergeScales scales[2];
#pragma unroll
  for (int r = 0; r < 2; r++) {
    scales[r] = merge_scales(merged.m[r], split.m[r], scale);
    merged.m[r] = scales[r].m;
    merged.l[r] = merge(merged.l[r], quad_sum(split.l[r]), scales[r]);
  }
#pragma unroll
  for (int n = 0; n < Shape::D / 8; n++) {
    float4 v = merged.o[n * Shape::THREADS];
    v.x = merge(v.x, split.o[n][0], scales[0]);
    v.y = merge(v.y, split.o[n][1], scales[0]);
    v.z = merge(v.z, split.o[n][2], scales[1]);
    v.w = merge(v.w, split.o[n][3], scales[1]);
    merged.o[n * Shape::THREADS] = v;
  }
  split.reset();
}

template <class Shape>
__device__ __forceinline__ void write_output(bf16* out, const MergedSplits& merged, const WarpRows& rows,
                                             Lane lane) {
  const float inverse0 = 1.f / merged.l[0], inverse1 = 1.f / merged.l[1];
  const bool valid0 = rows.valid(lane.row()), valid1 = rows.valid(lane.row() + 8);
  uint32_t* out0 = reinterpret_cast<uint32_t*>(out + rows.head(lane.row()) * Shape::D + lane.column());
  uint32_t* out1 = reinterpret_cast<uint32_t*>(out + rows.head(lane.row() + 8) * Shape::D + lane.column());
#pragma unroll
  for (int n = 0; n < Shape::D / 8; n++) {
    const float4 v = merged.o[n * Shape::THREADS];
    if (valid0) out0[n * 4] = pack_bf16(normalize(v.x, inverse0), normalize(v.y, inverse0));
    if (valid1) out1[n * 4] = pack_bf16(normalize(v.z, inverse1), normalize(v.w, inverse1));
  }
}

// ---------------------------------------------------------------- The kernel
template <int D, bool FP8, bool WGMMA, bool TMA = false>
__device__ __forceinline__ void paged_attention(const AttentionArgs& a, const TensorMap* key_map = nullptr,
                                                const TensorMap* value_map = nullptr) {
  using Shape = TileShape<D, FP8, (D > 128 ? 4 : 8), WGMMA>;
  constexpr int BLOCK_N = Shape::BLOCK_N, THREADS = Shape::THREADS;
  static_assert(!WGMMA || (!FP8 && D % 64 == 0 && D <= 128), "");
  static_assert(WGMMA || !TMA, "TMA swizzles tiles, and only wgmma reads swizzled tiles");
  DYN_SHARED(bf16, tiles);
  float4* merged_o = reinterpret_cast<float4*>(tiles + Shape::STAGES * 2 * Shape::TILE);
  bf16* queries = reinterpret_cast<bf16*>(merged_o + D / 8 * THREADS);  // of all warps
  char* packed = reinterpret_cast<char*>(queries + (Shape::Q_IN_SMEM ? Shape::BLOCK_M * Shape::LD : 0));
  const SharedTiles smem = {tiles, queries + (threadIdx.x >> 5) * 16 * Shape::LD, packed,
                            reinterpret_cast<float*>(packed + 2 * BLOCK_N * D)};
  mbarrier* full = reinterpret_cast<mbarrier*>(queries);  // [STAGES], if TMA

  const PrefillWork work = prefill_work<Shape, WGMMA ? 64 : 16>(a);
  const CachedHead kv(a.cache, work.seq, work.head / (a.heads / a.cache.kv_heads));
  const Lane lane = {(int)threadIdx.x & 31};
  const float scale = __fmul_rn(a.scale, LOG2_E);

  uint32_t qf[Shape::Q_STEPS][4];
  if constexpr (Shape::Q_IN_SMEM) copy_queries<Shape>(smem.queries, a.q, work.rows, lane.index);
  else load_queries<Shape>(qf, a.q, work.rows, lane);

  SplitState<D> split;
  split.reset();
  MergedSplits merged = {{-INFINITY, -INFINITY}, {0.f, 0.f}, merged_o + threadIdx.x};
#pragma unroll
  for (int n = 0; n < D / 8; n++) merged.o[n * THREADS] = make_float4(0.f, 0.f, 0.f, 0.f);

  float scales[Shape::SCALES];
  const auto load = [&](int t0, int stage) {
    if constexpr (TMA) load_boxes<Shape>(kv, key_map, value_map, smem, full, t0, stage);
    else load_tile<Shape>(kv, smem, t0, stage, scales);
  };
  if constexpr (TMA) {
    if (threadIdx.x < Shape::STAGES) mbarrier_init(full + threadIdx.x);
    __syncthreads();  // barriers are initialized
  }
  load(work.begin, 0);
  for (int t0 = work.begin, stage = 0; t0 < work.end; t0 += BLOCK_N, stage ^= 1) {
    if constexpr (TMA)
      wait_for_boxes<Shape>(smem, full, t0, stage, (t0 - work.begin) / BLOCK_N / Shape::STAGES & 1, kv.len);
    else wait_for_tile<Shape>(smem, scales);
    if constexpr (FP8) widen_tile<Shape>(smem);
    if (t0 + BLOCK_N < work.end) load(t0 + BLOCK_N, stage ^ 1);
    if constexpr (FP8) __syncthreads();  // the tile is widened
    if (!work.has_queries || t0 < work.first || t0 > work.last) continue;

    const bf16 *keys = smem.keys<Shape>(stage), *values = keys + Shape::TILE;
    float s[BLOCK_N / 8][4];
    if constexpr (WGMMA) compute_scores_wgmma<Shape>(s, qf, keys);
    else compute_scores<Shape>(s, qf, smem.queries, keys, lane.index);
    if (t0 == work.last || (a.window && t0 <= work.position + 15 - a.window))
      mask_scores(s, t0, lane, work.position + lane.row(), work.position + lane.row() + 8, a.window);
    softmax_step(s, split, scale);
    if constexpr (WGMMA) accumulate_values_wgmma<Shape>(split.o, s, values);
    else accumulate_values<Shape>(split.o, s, values, lane.index);
    if (t0 == work.last || (t0 + BLOCK_N) % SPLIT == 0) merge_split<Shape>(merged, split, scale);
  }
  write_output<Shape>(a.out, merged, work.rows, lane);
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
