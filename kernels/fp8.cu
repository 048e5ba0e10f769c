// Per-token quantization to FP8 (e4m3, largest value 448): out = e4m3(x / scale), where scale = max|x| / 448 of the
// row. A second kernel applies these scales and the weights' scales to a matrix product, if the library that computes
// the product does not.
//
// x: [rows][n] bf16; out: [rows][n] bytes; scales: [rows] f32; n % 8 == 0; rows 16-byte aligned. Grid (rows). A row of
// zeros has scale 0. The maximum does not depend on the order of the values. No scale exceeds limit / 448; values
// beyond the limit saturate at 448.
#include "port.cuh"
struct Fp8Args {
  uint8_t* out;
  float* scales;
  const bf16* x;
  int n;
  float limit;
};
extern "C" __global__ void __launch_bounds__(512) fp8_quantize(const Fp8Args a) {
  SHARED_ARRAY(float, buffer, 32);
  const uint4* x = reinterpret_cast<const uint4*>(a.x + (size_t)blockIdx.x * a.n);
  uint2* out = reinterpret_cast<uint2*>(a.out + (size_t)blockIdx.x * a.n);
  float largest = 0.f;
  for (int i = threadIdx.x; i < a.n / 8; i += blockDim.x) {
    const uint4 v = x[i];
    const uint32_t u[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
    for (int k = 0; k < 4; k++) largest = fmaxf(largest, fmaxf(fabsf(bf_lo(u[k])), fabsf(bf_hi(u[k]))));
  }
  largest = fminf(block_max(largest, buffer), a.limit);
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

// x[row][i] = x[row][i] * (rows[row] * columns[i]) + bias[i], in place.
//
// x: [rows][n] bf16; n % 8 == 0; bias may be null.
struct Fp8ScaleArgs {
  bf16* x;
  const float* rows;
  const float* columns;
  const bf16* bias;
  int n;
};
extern "C" __global__ void __launch_bounds__(512) fp8_scale(const Fp8ScaleArgs a) {
  uint4* x = reinterpret_cast<uint4*>(a.x + (size_t)blockIdx.x * a.n);
  const float4* columns = reinterpret_cast<const float4*>(a.columns);
  const uint4* bias = reinterpret_cast<const uint4*>(a.bias);
  const float row = a.rows[blockIdx.x];
  for (int i = threadIdx.x; i < a.n / 8; i += blockDim.x) {
    const uint4 v = x[i], b = bias ? bias[i] : make_uint4(0, 0, 0, 0);
    const float4 c0 = columns[2 * i], c1 = columns[2 * i + 1];
    const float c[8] = {c0.x, c0.y, c0.z, c0.w, c1.x, c1.y, c1.z, c1.w};
    const uint32_t u[4] = {v.x, v.y, v.z, v.w}, w[4] = {b.x, b.y, b.z, b.w};
    uint32_t y[4];
#pragma unroll
    for (int k = 0; k < 4; k++)
      y[k] = pack_bf16(fmaf(bf_lo(u[k]), row * c[2 * k], bf_lo(w[k])), fmaf(bf_hi(u[k]), row * c[2 * k + 1], bf_hi(w[k])));
    x[i] = make_uint4(y[0], y[1], y[2], y[3]);
  }
}
CUDACPU_KERNEL(fp8_scale);
