// Each instruction that port.cuh wraps and the CPU shim emulates, alone, so that a test can compare a GPU with the shim.
//
// x: what each thread starts from, 32-bit words; out: what it ends with. Part of no server: only tests launch these.
#include "port.cuh"
struct WrapperArgs {
  uint32_t* out;
  const uint32_t* x;
  const bf16* tile;
};

// A warp: x [32][10] is a, b and d of each lane, out [32][4] is d + a b.
extern "C" __global__ void __launch_bounds__(32) wrapper_mma(const WrapperArgs w) {
  const uint32_t* x = w.x + threadIdx.x * 10;
  const uint32_t a[4] = {x[0], x[1], x[2], x[3]};
  float d[4];
  for (int i = 0; i < 4; i++) d[i] = __uint_as_float(x[6 + i]);
  mma_m16n8k16_bf16(d, a, x[4], x[5]);
  for (int i = 0; i < 4; i++) w.out[threadIdx.x * 4 + i] = __float_as_uint(d[i]);
}
CUDACPU_KERNEL(wrapper_mma);

// A warp: lane i copies row i of tile [32][8], or zeros if x [32] is 0; out [32][8] is ldmatrix of all, then transposed.
extern "C" __global__ void __launch_bounds__(32) wrapper_ldmatrix(const WrapperArgs w) {
  SHARED_ARRAY(bf16, rows, 32 * 8);
  cp_async_16(rows + threadIdx.x * 8, w.tile + threadIdx.x * 8, w.x[threadIdx.x] != 0);
  cp_async_commit();
  cp_async_wait<0>();
  __syncthreads();
  uint32_t plain[4], transposed[4];
  ldmatrix_x4(plain, rows + threadIdx.x * 8);
  ldmatrix_x4_trans(transposed, rows + threadIdx.x * 8);
  for (int i = 0; i < 4; i++) {
    w.out[threadIdx.x * 8 + i] = plain[i];
    w.out[threadIdx.x * 8 + 4 + i] = transposed[i];
  }
}
CUDACPU_KERNEL(wrapper_ldmatrix);

// Four warps: x [128] floats; out [128][9]: exchanged over each distance, then sums and maxima of warps and of all.
extern "C" __global__ void __launch_bounds__(128) wrapper_reduce(const WrapperArgs w) {
  SHARED_ARRAY(float, buffer, 32);
  const float v = __uint_as_float(w.x[threadIdx.x]);
  uint32_t* out = w.out + threadIdx.x * 9;
  for (int i = 0; i < 5; i++) out[i] = __float_as_uint(__shfl_xor_sync(~0u, v, 1 << i));
  out[5] = __float_as_uint(warp_sum(v));
  out[6] = __float_as_uint(warp_max(v));
  out[7] = __float_as_uint(block_sum(v, buffer));
  out[8] = __float_as_uint(block_max(v, buffer));
}
CUDACPU_KERNEL(wrapper_reduce);

// Any block: x [threads] floats; out [threads][6]: as bf16, below its negative, as e4m3, back from its lowest byte, then
// what hardware approximates: 2^x and 1 / sqrt(|x|).
extern "C" __global__ void __launch_bounds__(1024) wrapper_convert(const WrapperArgs w) {
  const uint32_t bits = w.x[blockIdx.x * blockDim.x + threadIdx.x];
  const float v = __uint_as_float(bits);
  uint32_t* out = w.out + (blockIdx.x * blockDim.x + threadIdx.x) * 6;
  out[0] = to_bf16(v).x;
  out[1] = pack_bf16(v, -v);
  out[2] = e4m3(v);
  out[3] = __float_as_uint(from_e4m3(bits & 0xffu));
  out[4] = __float_as_uint(fast_exp2(v));
  out[5] = __float_as_uint(rsqrtf(fabsf(v)));
}
CUDACPU_KERNEL(wrapper_convert);

// A warp on sm_90a: out [16][32] is a box of 16 rows, 64 columns from column 64 on, of head 1, from slot `slot` on, as it lies.
struct WrapperTmaArgs {
  uint32_t* out;
  int slot;
  TensorMap map;
};
extern "C" __global__ void __launch_bounds__(32) wrapper_tma_wgmma(const __grid_constant__ WrapperTmaArgs w) {
  DYN_SHARED(uint32_t, box);
  mbarrier* full = reinterpret_cast<mbarrier*>(box + 16 * 32);
  if (threadIdx.x == 0) {
    mbarrier_init(full);
    mbarrier_expect(full, 16 * 128);
    tma_load(box, &w.map, full, 64, 1, w.slot);
  }
  __syncthreads();
  mbarrier_wait(full, 0);
  for (int i = threadIdx.x; i < 16 * 32; i += 32) w.out[i] = box[i];
}
CUDACPU_KERNEL(wrapper_tma_wgmma);

// Four warps on sm_90a: x [128][4 + 24 * 4] is a and d of each thread, tile [64][128] is b; out [128][24][4]: to the first
// 8 accumulators a b^T was added, b 64 rows of columns 80 to 95; to the others a b, b rows 32 to 47 of all columns.
extern "C" __global__ void __launch_bounds__(128) wrapper_wgmma(const WrapperArgs w) {
  constexpr int ROWS = 64, COLUMNS = 128;
  DYN_SHARED(bf16, tile);
  for (int i = threadIdx.x; i < ROWS * COLUMNS / 8; i += blockDim.x) {
    const int row = i / (COLUMNS / 8), c = i % (COLUMNS / 8);
    cp_async_16(tile + c / 8 * ROWS * 64 + row * 64 + (c % 8 ^ row % 8) * 8, w.tile + i * 8);
  }
  cp_async_commit();
  cp_async_wait<0>();
  fence_async_proxy();
  __syncthreads();
  const uint32_t* x = w.x + threadIdx.x * 100;
  uint32_t a[1][4] = {{x[0], x[1], x[2], x[3]}};
  float s[8][4], o[16][4];
#pragma unroll
  for (int i = 0; i < 96; i++) (i < 32 ? s[i / 4] : o[i / 4 - 8])[i % 4] = __uint_as_float(x[4 + i]);
  wgmma_fence_registers(a);
  wgmma_fence_registers(s);
  wgmma_fence_registers(o);
  wgmma_fence();
  wgmma_k16<false>(s, a[0], wgmma_descriptor_of(tile + ROWS * 64 + 16, 16, 1024));
  wgmma_k16<true>(o, a[0], wgmma_descriptor_of(tile + 32 * 64, ROWS * 128, 1024));
  wgmma_commit_and_wait();
  wgmma_fence_registers(s);
  wgmma_fence_registers(o);
#pragma unroll
  for (int i = 0; i < 96; i++) w.out[threadIdx.x * 96 + i] = __float_as_uint((i < 32 ? s[i / 4] : o[i / 4 - 8])[i % 4]);
}
CUDACPU_KERNEL(wrapper_wgmma);
