// Log-probabilities from logits: of the target and of a set of tokens, with the target's rank, the entropy, and the
// most probable tokens. Natural logarithms.
//
// logits: [rows][stride] f32, one row tile of the head's output; the first `vocabulary` columns are tokens, the others
// padding. A thread block processes 4096 columns of one row, so a row's sums are fixed trees over columns at absolute
// positions. The last kernel adds up the tiles in order, in f64. This is the online softmax (Milakov and Gimelshein,
// 2018), with tiles as its steps.
//
// Ranks may divide the vocabulary. Each rank has the columns from `first` on, runs the first two kernels, gathers both
// kernels' outputs from all ranks, in order of rank, and combines them. A rank without tokens adds nothing to any sum.
//
// target_logits: [ranks][rows], -inf where another rank has the target.
// parts: workspace, [rows][tiles] of {max, sum e^(x - max), sum e^(x - max) (x - max), number of logits above
// the target's, max and sum again over the tokens of the row's set}.
// top_logits, top_ids: [rows][tiles][top], each tile's most probable tokens in order; ties: smaller id first.
#include "port.cuh"
constexpr int COLUMNS = 4096;  // per tile
constexpr int TILE_THREADS = 256, THREAD_COLUMNS = COLUMNS / TILE_THREADS, TILE_WARPS = TILE_THREADS / 32;
struct LogprobPart {
  float max, sum, weighted;
  int above;
  float set_max, set_sum;
};
struct LogprobTargetArgs {
  float* out;  // [rows]
  const float* logits;
  const int* targets;
  long long stride;
  int rows, first, vocabulary;
};
struct LogprobTileArgs {
  LogprobPart* parts;
  float* top_logits;
  int* top_ids;
  const float* logits;
  const float* target_logits;
  const unsigned* members;  // [rows][words], one bit per column; may be null
  long long stride;
  int first, vocabulary, ranks, top;
};
struct LogprobCombineArgs {
  float* logprobs;      // [rows], of the targets
  int* ranks_out;       // [rows], 1 + number of tokens more probable than the target
  float* entropies;     // [rows], nats
  float* sets;          // [rows], of the sets; -inf if the set is empty
  float* top_logprobs;  // [rows][top]
  int* top_out;         // [rows][top], -1 beyond the vocabulary
  const LogprobPart* parts;  // [ranks][rows][tiles]
  const float* top_logits;   // [ranks][rows][tiles][top]
  const int* top_ids;        // [ranks][rows][tiles][top]
  const float* target_logits;
  int ranks, tiles, top;
};
struct Ranked {
  float logit;
  int id;  // -1: none
};
// Returns true if a precedes b in the list of most probable tokens. NaN precedes nothing.
__device__ __forceinline__ bool before(Ranked a, Ranked b) {
  if (a.id < 0 || b.id < 0) return a.id >= 0;
  return a.logit > b.logit || (a.logit == b.logit && a.id < b.id);
}
// Stand-ins for the token listed last: before the first round, and when no tokens are left.
__device__ __forceinline__ Ranked nothing_listed() { return {INFINITY, -1}; }
__device__ __forceinline__ Ranked end_of_list() { return {-INFINITY, 0x7fffffff}; }
// Returns the warp's token that precedes all others in the list.
__device__ __forceinline__ Ranked warp_first(Ranked a) {
#pragma unroll
  for (int d = 16; d > 0; d >>= 1) {
    const Ranked b = {__shfl_xor_sync(~0u, a.logit, d), __shfl_xor_sync(~0u, a.id, d)};
    if (before(b, a)) a = b;
  }
  return a;
}

__device__ __forceinline__ float target_of(const float* target_logits, int ranks, int rows, int row) {
  float target = -INFINITY;
  for (int r = 0; r < ranks; r++) target = fmaxf(target, target_logits[(size_t)r * rows + row]);
  return target;
}

// Grid (rows / 256, rounded up), block 256.
extern "C" __global__ void __launch_bounds__(256) logprobs_target(const LogprobTargetArgs a) {
  const int row = blockIdx.x * 256 + threadIdx.x;
  if (row >= a.rows) return;
  const int at = a.targets[row] - a.first;
  a.out[row] = at >= 0 && at < a.vocabulary ? a.logits[row * a.stride + at] : -INFINITY;
}
CUDACPU_KERNEL(logprobs_target);

// Sums of e^(x - largest), and of e^(x - largest) (x - largest), over a tile.
struct TileSums {
  float sum, weighted;
};
__device__ __forceinline__ TileSums sum_tile(const float (&x)[THREAD_COLUMNS], float largest, float* buffer) {
  const float base = largest == -INFINITY ? 0.f : largest;
  float sum = 0.f, weighted = 0.f;
#pragma unroll
  for (int e = 0; e < THREAD_COLUMNS; e++) {
    const float shifted = x[e] - base, weight = expf(shifted);
    sum += weight;
    weighted += weight == 0.f ? 0.f : weight * shifted;
  }
  sum = block_sum(sum, buffer);
  weighted = block_sum(weighted, buffer);
  return {sum, weighted};
}

// The largest logit among the tile's tokens in the row's set, and the sum of e^(x - max) over them.
struct SetSums {
  float max, sum;
};
__device__ __forceinline__ SetSums sum_set(const float (&x)[THREAD_COLUMNS], const unsigned* members, int column,
                                           int vocabulary, float* buffer) {
  bool in[THREAD_COLUMNS];
  float max = -INFINITY, sum = 0.f;
#pragma unroll
  for (int e = 0; e < THREAD_COLUMNS; e++) {
    const int id = column + e * TILE_THREADS;
    in[e] = id < vocabulary && (members[id >> 5] >> (id & 31) & 1);
    if (in[e]) max = fmaxf(max, x[e]);
  }
  max = block_max(max, buffer);
  const float base = max == -INFINITY ? 0.f : max;
#pragma unroll
  for (int e = 0; e < THREAD_COLUMNS; e++) sum += in[e] ? expf(x[e] - base) : 0.f;
  return {max, block_sum(sum, buffer)};
}

// Lists a tile's most probable tokens in order: each round finds the first token after the one listed last.
__device__ __forceinline__ void list_top(const LogprobTileArgs& a, const float (&x)[THREAD_COLUMNS], int column,
                                         size_t part, Ranked* firsts) {
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  Ranked last = nothing_listed();
  for (int k = 0; k < a.top; k++) {
    Ranked best = {0.f, -1};
#pragma unroll
    for (int e = 0; e < THREAD_COLUMNS; e++) {
      const int at = column + e * TILE_THREADS;
      const Ranked here = {x[e], at < a.vocabulary && x[e] == x[e] ? a.first + at : -1};
      if ((last.id < 0 || before(last, here)) && before(here, best)) best = here;
    }
    best = warp_first(best);
    __syncthreads();  // the previous firsts have been read
    if (lane == 0) firsts[warp] = best;
    __syncthreads();
    best = firsts[lane & (TILE_WARPS - 1)];
    best = warp_first(best);
    if (threadIdx.x == 0) {
      a.top_logits[part * a.top + k] = best.logit;
      a.top_ids[part * a.top + k] = best.id;
    }
    last = best.id < 0 ? end_of_list() : best;
  }
}

// Grid (tiles, rows), block 256. Every rank launches as many tiles as the rank with the most tokens.
extern "C" __global__ void __launch_bounds__(256) logprobs_tile(const LogprobTileArgs a) {
  SHARED_ARRAY(float, buffer, 32);
  SHARED_ARRAY(Ranked, firsts, TILE_WARPS);
  const float* row = a.logits + blockIdx.y * a.stride;
  const int column = blockIdx.x * COLUMNS + threadIdx.x;
  const float target = target_of(a.target_logits, a.ranks, gridDim.y, blockIdx.y);
  float x[THREAD_COLUMNS], largest = -INFINITY, above = 0.f;
#pragma unroll
  for (int e = 0; e < THREAD_COLUMNS; e++) {
    x[e] = column + e * TILE_THREADS < a.vocabulary ? row[column + e * TILE_THREADS] : -INFINITY;
    largest = fmaxf(largest, x[e]);
    above += x[e] > target ? 1.f : 0.f;  // exact: at most 4096 per tile
  }
  largest = block_max(largest, buffer);
  const TileSums sums = sum_tile(x, largest, buffer);
  above = block_sum(above, buffer);
  SetSums set = {-INFINITY, 0.f};
  if (a.members) {
    const unsigned* members = a.members + (size_t)blockIdx.y * ((a.vocabulary + 31) / 32);
    set = sum_set(x, members, column, a.vocabulary, buffer);
  }
  const size_t part = (size_t)blockIdx.y * gridDim.x + blockIdx.x;
  if (threadIdx.x == 0) a.parts[part] = {largest, sums.sum, sums.weighted, (int)above, set.max, set.sum};
  list_top(a, x, column, part, firsts);
}
CUDACPU_KERNEL(logprobs_tile);

// A row's parts, added up over all ranks and tiles in order.
struct RowSums {
  double lse, sum, weighted, set_sum;
  float set_max;
  int above;
};
__device__ __forceinline__ RowSums add_parts(const LogprobCombineArgs& a, int row, int rows) {
  const auto part = [&](int r, int t) { return a.parts[((size_t)r * rows + row) * a.tiles + t]; };
  float largest = -INFINITY, set_max = -INFINITY;
  for (int r = 0; r < a.ranks; r++)
    for (int t = 0; t < a.tiles; t++) {
      largest = fmaxf(largest, part(r, t).max);
      set_max = fmaxf(set_max, part(r, t).set_max);
    }
  double sum = 0., weighted = 0., set_sum = 0.;
  int above = 0;
  for (int r = 0; r < a.ranks; r++)
    for (int t = 0; t < a.tiles; t++) {
      const LogprobPart p = part(r, t);
      above += p.above;
      if (p.set_sum > 0.f) set_sum += exp((double)p.set_max - set_max) * p.set_sum;
      if (p.max == -INFINITY && p.sum == 0.f) continue;
      const double shift = (double)p.max - largest, scale = exp(shift);
      sum += scale * p.sum;
      weighted += scale * (p.weighted + shift * p.sum);
    }
  return {largest + log(sum), sum, weighted, set_sum, set_max, above};
}

// Grid (rows), block 32. Every lane adds up all tiles of all ranks; the lanes share the search of the tiles' lists.
extern "C" __global__ void __launch_bounds__(32) logprobs_combine(const LogprobCombineArgs a) {
  const int row = blockIdx.x, lane = threadIdx.x, rows = gridDim.x;
  const RowSums sums = add_parts(a, row, rows);
  const double lse = sums.lse;
  if (lane == 0) {
    a.logprobs[row] = (float)(target_of(a.target_logits, a.ranks, rows, row) - lse);
    a.ranks_out[row] = sums.above + 1;
    a.entropies[row] = (float)(log(sums.sum) - sums.weighted / sums.sum);
    // A set of one token has the bits of that token's log-probability. Rounding must not push a set above ln 1 = 0.
    a.sets[row] = sums.set_sum > 0. ? fminf((float)(sums.set_max - lse + log(sums.set_sum)), 0.f) : -INFINITY;
  }
  Ranked last = nothing_listed();
  for (int k = 0; k < a.top; k++) {
    Ranked best = {0.f, -1};
    for (int r = 0; r < a.ranks; r++) {
      const size_t from = ((size_t)r * rows + row) * a.tiles * a.top;
      for (int i = lane; i < a.tiles * a.top; i += 32) {
        const Ranked here = {a.top_logits[from + i], a.top_ids[from + i]};
        if ((last.id < 0 || before(last, here)) && before(here, best)) best = here;
      }
    }
    best = warp_first(best);
    if (lane == 0) {
      a.top_logprobs[(size_t)row * a.top + k] = best.id < 0 ? -INFINITY : (float)(best.logit - lse);
      a.top_out[(size_t)row * a.top + k] = best.id;
    }
    last = best.id < 0 ? end_of_list() : best;
  }
}
CUDACPU_KERNEL(logprobs_combine);
