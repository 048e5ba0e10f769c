// Log-probabilities from logits: target, rank, entropy, a set of tokens, most probable tokens. Natural logarithms.
//
// logits: [rows][stride] f32, one row tile of the head's product; vocabulary columns of them are real. A thread block
// takes one row and 4096 columns, so a row's sums are fixed trees over columns at absolute positions; a second kernel
// adds the tiles up in order, in f64. (Milakov and Gimelshein, 2018, is the online softmax; here tiles are its steps.)
//
// Ranks may divide the vocabulary: each has the columns from `first` on, runs the first two kernels, and gathers from
// the others what both leave, in order of rank; then each has all of it. A rank without tokens leaves what adds nothing.
//
// target_logits: [ranks][rows], -inf where another rank has the target.
// parts: workspace, [rows][tiles] of {max, sum e^(x - max), sum e^(x - max) (x - max), number of x above the target's, and the
// first two again over the row's set of tokens, whose maximum is its own};
// top_logits, top_ids: [rows][tiles][top], each tile's best in order, ties by the smaller id.
#include "port.cuh"
constexpr int COLUMNS = 4096;  // a tile's
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
  const unsigned* members;  // [rows][words], a bit a column; or null
  long long stride;
  int first, vocabulary, ranks, top;
};
struct LogprobCombineArgs {
  float* logprobs;      // [rows], of the targets
  int* ranks_out;       // [rows], 1 + number of tokens more probable than the target
  float* entropies;     // [rows], nats
  float* sets;          // [rows], of the sets; -inf where there is none
  float* top_logprobs;  // [rows][top]
  int* top_out;         // [rows][top], -1 beyond the vocabulary
  const LogprobPart* parts;  // [ranks][rows][tiles], as are the lists
  const float* top_logits;
  const int* top_ids;
  const float* target_logits;
  int ranks, tiles, top;
};
struct Ranked {
  float logit;
  int id;  // -1: none
};
// Whether a comes before b among the most probable. NaN comes nowhere.
__device__ __forceinline__ bool before(Ranked a, Ranked b) {
  if (a.id < 0 || b.id < 0) return a.id >= 0;
  return a.logit > b.logit || (a.logit == b.logit && a.id < b.id);
}
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

// Grid (tiles, rows), block 256. Tiles are as many as the rank with most tokens has.
extern "C" __global__ void __launch_bounds__(256) logprobs_tile(const LogprobTileArgs a) {
  constexpr int THREADS = 256, EACH = COLUMNS / THREADS, WARPS = THREADS / 32;
  SHARED_ARRAY(float, part, 32);
  SHARED_ARRAY(Ranked, firsts, WARPS);
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  const float* row = a.logits + blockIdx.y * a.stride;
  const int column = blockIdx.x * COLUMNS + threadIdx.x;
  const float target = target_of(a.target_logits, a.ranks, gridDim.y, blockIdx.y);
  float x[EACH], largest = -INFINITY, above = 0.f;
#pragma unroll
  for (int e = 0; e < EACH; e++) {
    x[e] = column + e * THREADS < a.vocabulary ? row[column + e * THREADS] : -INFINITY;
    largest = fmaxf(largest, x[e]);
    above += x[e] > target ? 1.f : 0.f;  // at most 4096 in a tile: exact
  }
  largest = block_max(largest, part);
  const float base = largest == -INFINITY ? 0.f : largest;
  float sum = 0.f, weighted = 0.f;
#pragma unroll
  for (int e = 0; e < EACH; e++) {
    const float shifted = x[e] - base, weight = expf(shifted);
    sum += weight;
    weighted += weight == 0.f ? 0.f : weight * shifted;
  }
  sum = block_sum(sum, part);
  weighted = block_sum(weighted, part);
  above = block_sum(above, part);
  float set_max = -INFINITY, set_sum = 0.f;
  if (a.members) {
    const unsigned* members = a.members + (size_t)blockIdx.y * ((a.vocabulary + 31) / 32);
    bool in[EACH];
#pragma unroll
    for (int e = 0; e < EACH; e++) {
      const int id = column + e * THREADS;
      in[e] = id < a.vocabulary && (members[id >> 5] >> (id & 31) & 1);
      if (in[e]) set_max = fmaxf(set_max, x[e]);
    }
    set_max = block_max(set_max, part);
    const float set_base = set_max == -INFINITY ? 0.f : set_max;
#pragma unroll
    for (int e = 0; e < EACH; e++) set_sum += in[e] ? expf(x[e] - set_base) : 0.f;
    set_sum = block_sum(set_sum, part);
  }
  const size_t at = (size_t)blockIdx.y * gridDim.x + blockIdx.x;
  if (threadIdx.x == 0) a.parts[at] = {largest, sum, weighted, (int)above, set_max, set_sum};

  Ranked last = {INFINITY, -1};  // each round finds the first of those after the last
  for (int k = 0; k < a.top; k++) {
    Ranked best = {0.f, -1};
#pragma unroll
    for (int e = 0; e < EACH; e++) {
      const int at = column + e * THREADS;
      const Ranked here = {x[e], at < a.vocabulary && x[e] == x[e] ? a.first + at : -1};
      if ((last.id < 0 || before(last, here)) && before(here, best)) best = here;
    }
    best = warp_first(best);
    __syncthreads();  // the last round's have been read
    if (lane == 0) firsts[warp] = best;
    __syncthreads();
    best = firsts[lane & (WARPS - 1)];
    best = warp_first(best);
    if (threadIdx.x == 0) {
      a.top_logits[at * a.top + k] = best.logit;
      a.top_ids[at * a.top + k] = best.id;
    }
    if (best.id < 0) best = {-INFINITY, 0x7fffffff};  // nothing comes after the end
    last = best;
  }
}
CUDACPU_KERNEL(logprobs_tile);

// Grid (rows), block 32. Every lane adds up all tiles of all ranks; together they look through the tiles' best.
extern "C" __global__ void __launch_bounds__(32) logprobs_combine(const LogprobCombineArgs a) {
  const int row = blockIdx.x, lane = threadIdx.x, rows = gridDim.x;
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
  const double lse = largest + log(sum);
  if (lane == 0) {
    a.logprobs[row] = (float)(target_of(a.target_logits, a.ranks, rows, row) - lse);
    a.ranks_out[row] = above + 1;
    a.entropies[row] = (float)(log(sum) - weighted / sum);
    // Of one token it has the bits of that token's; rounding must not make a set more than certain.
    a.sets[row] = set_sum > 0. ? fminf((float)(set_max - lse + log(set_sum)), 0.f) : -INFINITY;
  }
  Ranked last = {INFINITY, -1};
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
    if (best.id < 0) best = {-INFINITY, 0x7fffffff};
    last = best;
  }
}
CUDACPU_KERNEL(logprobs_combine);
