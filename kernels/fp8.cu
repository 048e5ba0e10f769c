// Per-token quantisation to FP8 (e4m3, largest value 448): out = e4m3(x / scale), scale = max|x| / 448 of the row.
//
// x: [rows][n] bf16; out: [rows][n] bytes; scales: [rows] f32; n % 8 == 0; rows 16-byte aligned. Grid (rows). A row of
// zeros has scale 0. The maximum does not depend on its order.
#include "port.cuh"
struct Fp8Args {
  uint8_t* out;
  float* scales;
  const bf16* x;
  int n;
};
extern "C" __global__ void __launch_bounds__(512) fp8_quantize(const Fp8Args a) {
  SHARED_ARRAY(float, part, 32);
  const uint4* x = reinterpret_cast<const uint4*>(a.x + (size_t)blockIdx.x * a.n);
  uint2* out = reinterpret_cast<uint2*>(a.out + (size_t)blockIdx.x * a.n);
  float largest = 0.f;
  for (int i = threadIdx.x; i < a.n / 8; i += blockDim.x) {
    const uint4 v = x[i];
    const uint32_t u[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
    for (int k = 0; k < 4; k++) largest = fmaxf(largest, fmaxf(fabsf(bf_lo(u[k])), fabsf(bf_hi(u[k]))));
  }
  largest = block_max(largest, part);
  if (threadIdx.x == 0) a.scales[blockIdx.x] = largest / 448.f;
  const float inverse = largest > 0.f ? 448.f / largest : 0.f;
  for (int i = threadIdx.x; i < a.n / 8; i += blockDim.x) {
    const uint4 v = x[i];
    const uint32_t u[4] = {v.x, v.y, v.z, v.w};
    uint32_t y[4];
#pragma unroll
    for (int k = 0; k < 4; k++) y[k] = e4m3(bf_lo(u[k]) * inverse) | e4m3(bf_hi(u[k]) * inverse) << 8;
    out[i] = make_uint2(y[0] | y[1] << 16, y[2] | y[3] << 16);
  }
}
CUDACPU_KERNEL(fp8_quantize);
