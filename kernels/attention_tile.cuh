// attention_tile.cuh - the steps of attention over a tile of keys. Prefill (paged_attention.cu) and decode
// (paged_decode.cu) both run this code, so decoding a token gives the same bits as prefilling it. The arithmetic uses
// intrinsics, so that no compiler contracts it differently in the two kernels.
//
// A warp multiplies 16 query rows by BLOCK_N keys at a time (FlashAttention-2), with mma.sync m16n8k16. A thread holds
// parts of two rows: scores s[BLOCK_N / 8][4] and weighted sums of values o[D / 8][4]. Of each four entries, 0 and 1
// belong to the first row, 2 and 3 to the second. For each row a thread also holds m, the largest score, and l, this
// thread's part of the sum of weights.
#pragma once
#include "port.cuh"

// ---------------------------------------------------------------- Tiles and splits
constexpr int SPLIT = 512;  // keys that share a softmax; splits start at multiples of SPLIT
constexpr float LOG2_E = 1.4426950408889634f;

// Returns the number of keys per tile.
__host__ __device__ constexpr int block_n(int head_size) { return head_size > 128 ? 32 : 64; }

// Returns the first key of the first tile that queries at `position` and later attend to.
__device__ __forceinline__ int first_tile(int position, int window, int keys) {
  return window ? max(0, position - window + 1) / keys * keys : 0;
}

// Sizes of a thread block's tiles. Rows are padded for ldmatrix, or swizzled in slabs of 64 columns for wgmma.
template <int HEAD_SIZE, bool FP8_CACHE, int WARPS, bool SWIZZLED_ROWS = false>
struct TileShape {
  static constexpr bool FP8 = FP8_CACHE, SWIZZLED = SWIZZLED_ROWS;
  static constexpr int D = HEAD_SIZE, BLOCK_M = WARPS * 16, BLOCK_N = block_n(D), THREADS = WARPS * 32;
  static constexpr int LD = SWIZZLED ? D : D + 8;         // elements from one row to the next
  static constexpr int TILE = BLOCK_N * LD;               // elements of a tile of keys or of values
  static constexpr int STAGES = FP8 ? 1 : 2;              // FP8: the next tile is loaded in packed form
  static constexpr bool Q_IN_SMEM = D > 128;              // the queries do not fit in registers
  static constexpr int Q_STEPS = Q_IN_SMEM ? 1 : D / 16;  // left operands of queries per thread
  static constexpr int SCALES = (2 * BLOCK_N + THREADS - 1) / THREADS;  // FP8: scales that a thread loads and shares
  static_assert(SPLIT % BLOCK_N == 0 && BLOCK_N % 16 == 0,
                "a tile must lie in one split, and a warp's 16 rows must end in the same tile");
};

// A thread block's dynamic shared memory.
struct SharedTiles {
  bf16* tiles;    // [STAGES][keys, values][BLOCK_N][LD]
  bf16* queries;  // [16][LD], this warp's, if Q_IN_SMEM
  char* packed;   // [keys, values][BLOCK_N][D] bytes, if FP8
  float* scales;  // [keys, values][BLOCK_N], if FP8

  // Returns the keys of a stage. The stage's values follow them.
  template <class Shape>
  __device__ __forceinline__ bf16* keys(int stage) const {
    return tiles + (Shape::FP8 ? 0 : stage * 2 * Shape::TILE);
  }
};

// ---------------------------------------------------------------- Positions
// A lane of a warp, and its part of an m16n8 fragment: rows row() and row() + 8, columns column() and column() + 1.
struct Lane {
  int index;
  __device__ __forceinline__ int row() const { return index >> 2; }
  __device__ __forceinline__ int column() const { return (index & 3) * 2; }
};

// A warp's 16 query rows. Row r is head `first + r * stride` of q and of out (int is enough: 2^31 heads would take 256
// GiB). Only rows [begin, end) are queries.
struct WarpRows {
  int first, stride, begin, end;
  __device__ __forceinline__ bool valid(int row) const { return row >= begin && row < end; }
  __device__ __forceinline__ long long head(int row) const { return first + row * stride; }
};

// A paged KV cache and the sequences in it, as the host passes them.
struct PagedKv {
  const void* keys;  // [blocks][block_size][kv_heads][D] bf16, or bytes of e4m3
  const void* values;
  const float* key_scales;  // [blocks][block_size][kv_heads], FP8 only
  const float* value_scales;
  const int* table;     // [sequences][table_width] blocks; sequences may share blocks
  const int* contexts;  // [sequences], number of keys
  int table_width, block_size, kv_heads;
};

// One KV head of one sequence.
struct CachedHead {
  const PagedKv& cache;
  const int* table;
  int kv_head, shift, len;
  __device__ __forceinline__ CachedHead(const PagedKv& cache, int seq, int kv_head)
      : cache(cache), table(cache.table + (size_t)seq * cache.table_width), kv_head(kv_head),
        shift(__ffs(cache.block_size) - 1), len(cache.contexts[seq]) {}

  // Returns the cache slot of position t: block x block_size + offset.
  __device__ __forceinline__ int slot(int t) const {
    return (table[t >> shift] << shift) + (t & (cache.block_size - 1));
  }
  // Returns the index of position t's head among all cached heads.
  __device__ __forceinline__ long long index(int t) const {
    return (long long)slot(t) * cache.kv_heads + kv_head;
  }
};

// ---------------------------------------------------------------- Queries
// Starts copying a warp's queries to shared memory. The wait for the first tile completes the copy.
template <class Shape>
__device__ __forceinline__ void copy_queries(bf16* to, const bf16* q, const WarpRows& rows, int lane) {
  constexpr int CHUNKS = Shape::D / 8;
  for (int i = lane; i < 16 * CHUNKS; i += 32) {
    const int row = i / CHUNKS, c = i % CHUNKS;
    const bool valid = rows.valid(row);
    cp_async_16(&to[row * Shape::LD + c * 8], q + (valid ? rows.head(row) * Shape::D + c * 8 : 0), valid);
  }
}

// Loads a thread's queries as left operands.
template <class Shape>
__device__ __forceinline__ void load_queries(uint32_t (&qf)[Shape::Q_STEPS][4], const bf16* q, const WarpRows& rows,
                                             Lane lane) {
  const bool valid0 = rows.valid(lane.row()), valid1 = rows.valid(lane.row() + 8);
  const uint32_t* q0 = reinterpret_cast<const uint32_t*>(q + rows.head(lane.row()) * Shape::D + lane.column());
  const uint32_t* q1 = reinterpret_cast<const uint32_t*>(q + rows.head(lane.row() + 8) * Shape::D + lane.column());
#pragma unroll
  for (int k = 0; k < Shape::Q_STEPS; k++) {
    qf[k][0] = valid0 ? q0[k * 8] : 0u;
    qf[k][1] = valid1 ? q1[k * 8] : 0u;
    qf[k][2] = valid0 ? q0[k * 8 + 4] : 0u;
    qf[k][3] = valid1 ? q1[k * 8 + 4] : 0u;
  }
}

// ---------------------------------------------------------------- Loading a tile
// Returns the offset of a chunk of 8 elements in a stage, which has BLOCK_N rows of keys, then BLOCK_N rows of values.
template <class Shape>
__device__ __forceinline__ int tile_offset(int row, int chunk) {
  constexpr int BLOCK_N = Shape::BLOCK_N;
  if constexpr (Shape::SWIZZLED)
    return row / BLOCK_N * Shape::TILE + chunk / 8 * BLOCK_N * 64 + row % BLOCK_N * 64 + (chunk % 8 ^ row % 8) * 8;
  else return row * Shape::LD + chunk * 8;
}

// Starts copying the keys and values of the tile at position t0 into a stage, 16 bytes at a time. FP8: copies them to
// `packed` and loads the scales. Rows beyond the end of the sequence become zeros.
template <class Shape>
__device__ __forceinline__ void load_tile(const CachedHead& kv, const SharedTiles& smem, int t0, int stage,
                                          float (&scales)[Shape::SCALES]) {
  constexpr int BLOCK_N = Shape::BLOCK_N;
  constexpr int BYTES = Shape::FP8 ? Shape::D : 2 * Shape::D, CHUNKS = BYTES / 16;  // per row
  for (int i = threadIdx.x; i < 2 * BLOCK_N * CHUNKS; i += Shape::THREADS) {
    const int row = i / CHUNKS, chunk = i % CHUNKS, t = t0 + row % BLOCK_N;
    const bool valid = t < kv.len;
    const void* from = row < BLOCK_N ? kv.cache.keys : kv.cache.values;
    bf16* wide = smem.keys<Shape>(stage) + tile_offset<Shape>(row, chunk);
    char* to = Shape::FP8 ? smem.packed + i * 16 : reinterpret_cast<char*>(wide);
    cp_async_16(to, static_cast<const char*>(from) + (valid ? kv.index(t) * BYTES + chunk * 16 : 0), valid);
  }
  if constexpr (Shape::FP8)
    for (int e = 0; e < Shape::SCALES; e++) {
      const int i = threadIdx.x + e * Shape::THREADS, t = t0 + i % BLOCK_N;
      if (i >= 2 * BLOCK_N) continue;
      scales[e] = t < kv.len ? (i < BLOCK_N ? kv.cache.key_scales : kv.cache.value_scales)[kv.index(t)] : 0.f;
    }
  cp_async_commit();
}

// Waits until every thread's copies have arrived, and shares the scales.
template <class Shape>
__device__ __forceinline__ void wait_for_tile(const SharedTiles& smem, const float (&scales)[Shape::SCALES]) {
  cp_async_wait<0>();
  if constexpr (Shape::SWIZZLED) fence_async_proxy();
  if constexpr (Shape::FP8)
    for (int e = 0; e < Shape::SCALES; e++)
      if (threadIdx.x + e * Shape::THREADS < 2 * Shape::BLOCK_N)
        smem.scales[threadIdx.x + e * Shape::THREADS] = scales[e];
  __syncthreads();  // the tile has arrived, and no thread still reads the previous one
}

// Widens to bf16 the FP8 bytes that this thread copied. Exact, because scales are powers of two.
template <class Shape>
__device__ __forceinline__ void widen_tile(const SharedTiles& smem) {
  constexpr int CHUNKS = Shape::D / 16;
  for (int i = threadIdx.x; i < 2 * Shape::BLOCK_N * CHUNKS; i += Shape::THREADS) {
    const uint4 v = reinterpret_cast<const uint4*>(smem.packed)[i];
    const uint32_t u[4] = {v.x, v.y, v.z, v.w};
    const int row = i / CHUNKS;
    const float scale = smem.scales[row];
    uint32_t y[8];
#pragma unroll
    for (int k = 0; k < 8; k++) {
      const uint32_t pair = u[k / 2] >> k % 2 * 16;
      y[k] = pack_bf16(from_e4m3(pair) * scale, from_e4m3(pair >> 8) * scale);
    }
    uint4* to = reinterpret_cast<uint4*>(smem.tiles + row * Shape::LD + i % CHUNKS * 16);
    to[0] = make_uint4(y[0], y[1], y[2], y[3]);
    to[1] = make_uint4(y[4], y[5], y[6], y[7]);
  }
}

// ---------------------------------------------------------------- Scores
template <int N>
__device__ __forceinline__ void set_zero(float (&fragments)[N][4]) {
#pragma unroll
  for (int n = 0; n < N; n++) fragments[n][0] = fragments[n][1] = fragments[n][2] = fragments[n][3] = 0.f;
}

// Computes s = queries x keys. The queries are in qf or in shared memory.
template <class Shape>
__device__ __forceinline__ void compute_scores(float (&s)[Shape::BLOCK_N / 8][4],
                                               const uint32_t (&qf)[Shape::Q_STEPS][4], const bf16* queries,
                                               const bf16* keys, int lane) {
  constexpr int LD = Shape::LD;
  set_zero(s);
#pragma unroll
  for (int k = 0; k < Shape::D / 32; k++) {
    uint32_t q[2][4];
#pragma unroll
    for (int i = 0; i < 2; i++) {
      if constexpr (Shape::Q_IN_SMEM)
        ldmatrix_x4(q[i], &queries[(lane & 15) * LD + k * 32 + i * 16 + (lane >> 4) * 8]);
      else
        for (int j = 0; j < 4; j++) q[i][j] = qf[2 * k + i][j];
    }
#pragma unroll
    for (int n = 0; n < Shape::BLOCK_N / 8; n++) {
      uint32_t b[4];
      ldmatrix_x4(b, &keys[(n * 8 + (lane & 7)) * LD + k * 32 + (lane >> 3) * 8]);
      mma_m16n8k16_bf16(s[n], q[0], b[0], b[1]);
      mma_m16n8k16_bf16(s[n], q[1], b[2], b[3]);
    }
  }
}

// Masks the keys of the tile at t0 that come after a query or before its window. The thread's two rows are at positions
// p0 and p1.
template <int N>
__device__ __forceinline__ void mask_scores(float (&s)[N][4], int t0, Lane lane, int p0, int p1, int window) {
#pragma unroll
  for (int n = 0; n < N; n++)
#pragma unroll
    for (int j = 0; j < 4; j++) {
      const int t = t0 + n * 8 + lane.column() + (j & 1), p = j < 2 ? p0 : p1;
      if (t > p || (window && t <= p - window)) s[n][j] = -INFINITY;
    }
}

// ---------------------------------------------------------------- Online softmax
// The softmax state of the thread's two rows in one split.
template <int D>
struct SplitState {
  float m[2], l[2], o[D / 8][4];
  __device__ __forceinline__ void reset() {
#pragma unroll
    for (int r = 0; r < 2; r++) {
      m[r] = -INFINITY;
      l[r] = 0.f;
    }
    set_zero(o);
  }
};

// Reductions over the four lanes that share a row.
__device__ __forceinline__ float quad_max(float x) {
  x = fmaxf(x, __shfl_xor_sync(~0u, x, 1));
  return fmaxf(x, __shfl_xor_sync(~0u, x, 2));
}
__device__ __forceinline__ float quad_sum(float x) {
  x = __fadd_rn(x, __shfl_xor_sync(~0u, x, 1));
  return __fadd_rn(x, __shfl_xor_sync(~0u, x, 2));
}

// A score's weight is 2^(scale * score - base). `base` makes the largest weight 1; `scale` includes log2 e.
__device__ __forceinline__ float weight_base(float m, float scale) {
  return m == -INFINITY ? 0.f : __fmul_rn(m, scale);
}
__device__ __forceinline__ float weight_of(float score, float scale, float base) {
  return fast_exp2(fmaf(score, scale, -base));
}

// Turns a tile's scores into weights, and rescales the sums to the new largest score.
template <int D, int N>
__device__ __forceinline__ void softmax_step(float (&s)[N][4], SplitState<D>& state, float scale) {
#pragma unroll
  for (int r = 0; r < 2; r++) {
    float x = state.m[r];
#pragma unroll
    for (int n = 0; n < N; n++) x = fmaxf(x, fmaxf(s[n][2 * r], s[n][2 * r + 1]));
    x = quad_max(x);
    const float base = weight_base(x, scale);
    const float rescale = weight_of(state.m[r], scale, base);
    state.m[r] = x;
    state.l[r] = __fmul_rn(state.l[r], rescale);
#pragma unroll
    for (int n = 0; n < N; n++) {
      s[n][2 * r] = weight_of(s[n][2 * r], scale, base);
      s[n][2 * r + 1] = weight_of(s[n][2 * r + 1], scale, base);
      state.l[r] = __fadd_rn(state.l[r], __fadd_rn(s[n][2 * r], s[n][2 * r + 1]));
    }
#pragma unroll
    for (int n = 0; n < D / 8; n++) {
      state.o[n][2 * r] = __fmul_rn(state.o[n][2 * r], rescale);
      state.o[n][2 * r + 1] = __fmul_rn(state.o[n][2 * r + 1], rescale);
    }
  }
}

// ---------------------------------------------------------------- Values
// Packs the weights of 16 keys into a left operand.
template <int N>
__device__ __forceinline__ void pack_weights(uint32_t (&w)[4], const float (&s)[N][4], int k) {
#pragma unroll
  for (int j = 0; j < 4; j++) w[j] = pack_bf16(s[2 * k + j / 2][j % 2 * 2], s[2 * k + j / 2][j % 2 * 2 + 1]);
}

// Computes o += weights x values.
template <class Shape>
__device__ __forceinline__ void accumulate_values(float (&o)[Shape::D / 8][4],
                                                  const float (&s)[Shape::BLOCK_N / 8][4], const bf16* values,
                                                  int lane) {
#pragma unroll
  for (int k = 0; k < Shape::BLOCK_N / 16; k++) {
    uint32_t w[4];
    pack_weights(w, s, k);
#pragma unroll
    for (int n = 0; n < Shape::D / 16; n++) {
      uint32_t b[4];
      ldmatrix_x4_trans(b, &values[(k * 16 + (lane & 15)) * Shape::LD + n * 16 + (lane >> 4) * 8]);
      mma_m16n8k16_bf16(o[2 * n], w, b[0], b[1]);
      mma_m16n8k16_bf16(o[2 * n + 1], w, b[2], b[3]);
    }
  }
}

// ---------------------------------------------------------------- Merging splits, and the result
// Factors that rescale the old and the new sums. m is the largest score of both.
struct MergeScales {
  float m, old_scale, new_scale;
};
__device__ __forceinline__ MergeScales merge_scales(float old_m, float new_m, float scale) {
  const float m = fmaxf(old_m, new_m), base = weight_base(m, scale);
  return {m, weight_of(old_m, scale, base), weight_of(new_m, scale, base)};
}
__device__ __forceinline__ float merge(float old_sum, float new_sum, const MergeScales& scales) {
  return fmaf(old_sum, scales.old_scale, __fmul_rn(new_sum, scales.new_scale));
}

// Returns an element of the output: the weighted sum of values, times 1 / the sum of weights.
__device__ __forceinline__ float normalize(float o, float inverse_l) { return __fmul_rn(o, inverse_l); }
