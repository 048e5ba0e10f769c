// Per-token quantisation to FP8 (e4m3, largest value 448): out = e4m3(x / scale), scale = max|x| / 448 of the row.
//
// x: [rows][n] bf16; out: [rows][n] bytes; scales: [rows] f32; n % 8 == 0; rows 16-byte aligned. Grid (rows). A row of
// zeros has scale 0. The maximum does not depend on its order. The rounding is to nearest even, in integers where the
// hardware has no conversion (before sm_89, and on the CPU), so all give the same bytes.
#include "port.cuh"
struct Fp8Args {
  uint8_t* out;
  float* scales;
  const bf16* x;
  int n;
};
// |f| <= 448 up to rounding, or NaN.
__device__ __forceinline__ uint32_t e4m3(float f) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 890
  uint16_t pair;
  asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(pair) : "f"(0.f), "f"(f));
  return pair;
#else
  const uint32_t bits = __float_as_uint(f), sign = bits >> 24 & 0x80u, magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return 0x7f;          // NaN
  if (magnitude >= 0x43e00000u) return sign | 0x7e;  // 448 and above
  if (magnitude < 0x3c800000u)                       // below 2^-6, steps of 2^-9: let an addition round
    return sign | (__float_as_uint(__uint_as_float(magnitude) + 16384.f) - 0x46800000u);
  const uint32_t rounded = magnitude + 0x7ffffu + (magnitude >> 20 & 1);  // 3 of 23 mantissa bits stay
  const uint32_t byte = (rounded >> 20) - (120u << 3);                    // the exponent's bias goes from 127 to 7
  return sign | min(byte, 0x7eu);
#endif
}
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
