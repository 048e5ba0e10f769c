// RMSNorm (Zhang and Sennrich, 2019): out = x / sqrt(mean(x^2) + eps) * w, in bf16 with f32 sums.
//
// x, out: [rows][n] bf16; w: [n] bf16; n % 8 == 0; rows 16-byte aligned. Grid (rows), any block up to 1024 threads.
// A row is one block's: each thread sums its strided vectors in order, then lanes and warps add up as a fixed tree. So
// a row's bits depend on its values and the block size alone.
#include "port.cuh"
extern "C" __global__ void rms_norm_bf16(bf16* out, const bf16* x, const bf16* w, int n, float eps) {
  SHARED_ARRAY(float, part, 32);
  const int row = blockIdx.x, lane = threadIdx.x & 31, warp = threadIdx.x >> 5, nwarp = (blockDim.x + 31) >> 5;
  const uint4* xr = reinterpret_cast<const uint4*>(x + (size_t)row * n);
  const uint4* wr = reinterpret_cast<const uint4*>(w);
  uint4* o = reinterpret_cast<uint4*>(out + (size_t)row * n);
  const int nv = n / 8;
  float s = 0.f;
  for (int i = threadIdx.x; i < nv; i += blockDim.x) {
    uint4 v = xr[i];
    const uint32_t u[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
    for (int k = 0; k < 4; k++) {
      float a = bf_lo(u[k]), b = bf_hi(u[k]);
      s += a * a + b * b;
    }
  }
#pragma unroll
  for (int d = 16; d > 0; d >>= 1) s += __shfl_xor_sync(0xffffffffu, s, d);
  if (lane == 0) part[warp] = s;
  __syncthreads();
  if (warp == 0) {
    s = lane < nwarp ? part[lane] : 0.f;
#pragma unroll
    for (int d = 16; d > 0; d >>= 1) s += __shfl_xor_sync(0xffffffffu, s, d);
    if (lane == 0) part[0] = s;
  }
  __syncthreads();
  const float r = rsqrtf(part[0] / n + eps);
  for (int i = threadIdx.x; i < n / 8; i += blockDim.x) {
    uint4 v = xr[i], g = wr[i];
    uint32_t u[4] = {v.x, v.y, v.z, v.w};
    const uint32_t q[4] = {g.x, g.y, g.z, g.w};
#pragma unroll
    for (int k = 0; k < 4; k++) u[k] = pack_bf16(bf_lo(u[k]) * r * bf_lo(q[k]), bf_hi(u[k]) * r * bf_hi(q[k]));
    o[i] = make_uint4(u[0], u[1], u[2], u[3]);
  }
}
CUDACPU_KERNEL(rms_norm_bf16);
