// One kernel for each instruction that port.cuh wraps and the CPU shim emulates, so that tests can compare a GPU with
// the shim.
//
// x: each thread's inputs, as 32-bit words; out: each thread's results. Only tests launch these kernels.
#include "port.cuh"
struct WrapperArgs {
  uint32_t* out;
  const uint32_t* x;
  const bf16* tile;
};

// One warp. x [32][10]: a, b and d of each lane; out [32][4]: d + a b.
extern "C" __global__ void __launch_bounds__(32) wrapper_mma(const WrapperArgs w) {
  const uint32_t* x = w.x + threadIdx.x * 10;
  const uint32_t a[4] = {x[0], x[1], x[2], x[3]};
  float d[4];
  for (int i = 0; i < 4; i++) d[i] = __uint_as_float(x[6 + i]);
  mma_m16n8k16_bf16(d, a, x[4], x[5]);
  for (int i = 0; i < 4; i++) w.out[threadIdx.x * 4 + i] = __float_as_uint(d[i]);
}
CUDACPU_KERNEL(wrapper_mma);

// One warp. Lane i copies row i of tile [32][8], or zeros if x[i] is 0; out [32][8]: ldmatrix's results, plain, then
// transposed.
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

// Four warps. x [128]: floats; out [128][9]: x exchanged over distances 1 to 16, then the warp's sum and maximum, then
// the block's.
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

// Any block. x [threads]: floats; out [threads][6]: x as bf16; x packed with -x; x as e4m3; the lowest byte of x, read
// as e4m3; and two functions that the hardware approximates, 2^x and 1 / sqrt(|x|).
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

// One warp on sm_90a. out [16][32]: the words of a box as they lie in shared memory: 16 slots from `slot` on, head 1,
// 64 columns from column 64 on.
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

// Four warps on sm_90a. x [128][4 + 24 * 4]: a and d of each thread; tile [64][128]: b; out [128][24][4]: d plus a
// product. The first 8 accumulators add a b^T, where b is columns 80 to 95 of all 64 rows. The others add a b, where b
// is rows 32 to 47 of all columns.
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
