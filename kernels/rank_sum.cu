// The sum of all ranks' partial results, in order of rank: out[i] = sum_r parts[r][i].
//
// parts: [ranks][n] bf16; out: [n] bf16; n % 8 == 0; all 16-byte aligned. Grid (n / 8 / 256, rounded up). Each element
// is one chain of f32 additions, rounded to bf16 once, so its bits depend only on its addends.
#include "port.cuh"
struct RankSumArgs {
  bf16* out;
  const bf16* parts;
  int n;
  int ranks;
};
extern "C" __global__ void __launch_bounds__(256) rank_sum(const RankSumArgs a) {
  const size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x, vectors = a.n / 8;
  if (i >= vectors) return;
  const uint4* parts = reinterpret_cast<const uint4*>(a.parts);
  float sums[8] = {};
  for (int r = 0; r < a.ranks; r++) {
    const uint4 v = parts[r * vectors + i];
    const uint32_t u[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
    for (int k = 0; k < 4; k++) {
      sums[2 * k] += bf_lo(u[k]);
      sums[2 * k + 1] += bf_hi(u[k]);
    }
  }
  reinterpret_cast<uint4*>(a.out)[i] = make_uint4(pack_bf16(sums[0], sums[1]), pack_bf16(sums[2], sums[3]),
                                                  pack_bf16(sums[4], sums[5]), pack_bf16(sums[6], sums[7]));
}
CUDACPU_KERNEL(rank_sum);
