// RMSNorm (Zhang and Sennrich, 2019), with the residual sum in the same pass: out = x / sqrt(mean(x^2) + eps) * w.
//
// x, out, residual: [rows][n] bf16; weight: [n] bf16; n % 8 == 0; rows 16-byte aligned. Grid (rows). With a residual,
// the kernel first computes residual += x, then normalizes that sum, rounded to bf16. One block computes a row, and the
// block's size depends only on n: each thread sums its vectors in order, then a fixed tree adds up lanes and warps.
#include "port.cuh"
struct RmsNormArgs {
  bf16* out;
  const bf16* x;
  bf16* residual;  // may be null
  const bf16* weight;
  int n;
  float epsilon;
};
extern "C" __global__ void __launch_bounds__(512) rms_norm(const RmsNormArgs a) {
  SHARED_ARRAY(float, buffer, 32);
  const size_t row = (size_t)blockIdx.x * a.n;
  const uint4* x = reinterpret_cast<const uint4*>(a.x + row);
  uint4* residual = a.residual ? reinterpret_cast<uint4*>(a.residual + row) : nullptr;
  const uint4* weight = reinterpret_cast<const uint4*>(a.weight);
  uint4* out = reinterpret_cast<uint4*>(a.out + row);
  const int vectors = a.n / 8;
  float s = 0.f;
  for (int i = threadIdx.x; i < vectors; i += blockDim.x) {
    const uint4 v = x[i];
    uint32_t u[4] = {v.x, v.y, v.z, v.w};
    if (residual) {
      const uint4 old = residual[i];
      const uint32_t r[4] = {old.x, old.y, old.z, old.w};
#pragma unroll
      for (int k = 0; k < 4; k++) u[k] = pack_bf16(bf_lo(r[k]) + bf_lo(u[k]), bf_hi(r[k]) + bf_hi(u[k]));
      residual[i] = make_uint4(u[0], u[1], u[2], u[3]);
    }
#pragma unroll
    for (int k = 0; k < 4; k++) {
      s = fmaf(bf_lo(u[k]), bf_lo(u[k]), s);
      s = fmaf(bf_hi(u[k]), bf_hi(u[k]), s);
    }
  }
  const float r = rsqrtf(block_sum(s, buffer) / a.n + a.epsilon);
  for (int i = threadIdx.x; i < vectors; i += blockDim.x) {  // each thread reads the sums that it wrote
    const uint4 v = residual ? residual[i] : x[i], w = weight[i];
    const uint32_t u[4] = {v.x, v.y, v.z, v.w}, g[4] = {w.x, w.y, w.z, w.w};
    uint32_t y[4];
#pragma unroll
    for (int k = 0; k < 4; k++) y[k] = pack_bf16(bf_lo(u[k]) * r * bf_lo(g[k]), bf_hi(u[k]) * r * bf_hi(g[k]));
    out[i] = make_uint4(y[0], y[1], y[2], y[3]);
  }
}
CUDACPU_KERNEL(rms_norm);
