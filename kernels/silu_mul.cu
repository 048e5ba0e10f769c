// The gate of a Llama MLP: out = silu(gate) * up, where silu(g) = g / (1 + e^-g).
//
// gate_up: [rows][2][n] bf16, the gate before the up half; out: [rows][n] bf16; n % 8 == 0; rows 16-byte aligned.
// Grid (rows). Each element is computed independently.
#include "port.cuh"
struct SiluMulArgs {
  bf16* out;
  const bf16* gate_up;
  int n;
};
__device__ __forceinline__ float silu_mul_one(float g, float u) { return g / (1.f + __expf(-g)) * u; }
extern "C" __global__ void __launch_bounds__(512) silu_mul(const SiluMulArgs a) {
  const size_t row = blockIdx.x;
  const uint4* gate = reinterpret_cast<const uint4*>(a.gate_up + row * 2 * a.n);
  const uint4* up = reinterpret_cast<const uint4*>(a.gate_up + (row * 2 + 1) * a.n);
  uint4* out = reinterpret_cast<uint4*>(a.out + row * a.n);
  for (int i = threadIdx.x; i < a.n / 8; i += blockDim.x) {
    const uint4 v = gate[i], w = up[i];
    const uint32_t g[4] = {v.x, v.y, v.z, v.w}, u[4] = {w.x, w.y, w.z, w.w};
    uint32_t y[4];
#pragma unroll
    for (int k = 0; k < 4; k++)
      y[k] = pack_bf16(silu_mul_one(bf_lo(g[k]), bf_lo(u[k])), silu_mul_one(bf_hi(g[k]), bf_hi(u[k])));
    out[i] = make_uint4(y[0], y[1], y[2], y[3]);
  }
}
CUDACPU_KERNEL(silu_mul);
