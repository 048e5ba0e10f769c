// port.cuh - the GPU features that the kernels use, for nvcc and NVRTC. cpu/cuda_cpu.h emulates them in C++.
//
// This file includes no toolkit header, so NVRTC can compile the kernels on a machine without a CUDA toolkit.
#pragma once
#if defined(__CUDACC__) || defined(__CUDACC_RTC__)
// ---------------------------------------------------------------- Integers
#ifdef __CUDACC_RTC__
typedef unsigned char uint8_t;
typedef unsigned short uint16_t;
typedef int int32_t;
typedef unsigned int uint32_t;
typedef long long int64_t;
typedef unsigned long long uint64_t;
#ifndef INFINITY
#define INFINITY __int_as_float(0x7f800000)
#endif
#else
#include <stdint.h>
#endif

// ---------------------------------------------------------------- Shared memory
// SHARED_ARRAY has a fixed size, DYN_SHARED a size set at launch. CUDACPU_KERNEL registers a kernel with the CPU shim.
#define SHARED_ARRAY(T, name, n) __shared__ __align__(128) T name[n]
#define DYN_SHARED(T, name)                                       \
  extern __shared__ __align__(1024) unsigned char dyn_smem_raw[]; \
  T* name = reinterpret_cast<T*>(dyn_smem_raw)
#define CUDACPU_KERNEL(k)

// ---------------------------------------------------------------- Numbers
struct bf16 {
  uint16_t x;
};
__device__ __forceinline__ bf16 to_bf16(float f) {
  bf16 r;
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(r.x) : "f"(f));
  return r;
}
__device__ __forceinline__ uint32_t pack_bf16(float lo, float hi) {
  uint32_t u;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(u) : "f"(hi), "f"(lo));
  return u;
}
__device__ __forceinline__ float fast_exp2(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// ---------------------------------------------------------------- Tensor cores and asynchronous copies
__device__ __forceinline__ uint32_t smem_addr(const void* p) { return (uint32_t)__cvta_generic_to_shared(p); }
__device__ __forceinline__ void mma_m16n8k16_bf16(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9},{%0,%1,%2,%3};\n"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
__device__ __forceinline__ void ldmatrix_x4(uint32_t (&r)[4], const void* p) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3},[%4];\n"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(smem_addr(p))
               : "memory");
}
__device__ __forceinline__ void ldmatrix_x4_trans(uint32_t (&r)[4], const void* p) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3},[%4];\n"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(smem_addr(p))
               : "memory");
}
__device__ __forceinline__ void cp_async_16(void* dst, const void* src, bool valid = true) {  // zeros if not valid
  int n = valid ? 16 : 0;
  asm volatile("cp.async.cg.shared.global [%0],[%1],16,%2;\n" ::"r"(smem_addr(dst)), "l"(src), "r"(n) : "memory");
}
__device__ __forceinline__ void cp_async_commit() { asm volatile("cp.async.commit_group;\n" ::: "memory"); }
template <int N>
__device__ __forceinline__ void cp_async_wait() {
  asm volatile("cp.async.wait_group %0;\n" ::"n"(N) : "memory");
}

// ---------------------------------------------------------------- Hopper's tensor cores (wgmma)
// Four warps together multiply by a tile in shared memory. The instructions below trap on every GPU except sm_90a.
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define SM90_ASM(...) asm volatile(__VA_ARGS__)
#else
#define SM90_ASM(...) asm volatile("trap;")
#endif
// Describes a tile in shared memory, aligned to 1024 bytes: rows of 128 bytes, swizzled in units of 16 bytes. Groups of
// 8 rows are `rows` bytes apart, slabs of 64 columns `columns` bytes. The pointer may lie inside the tile.
typedef uint64_t wgmma_descriptor;
__device__ __forceinline__ wgmma_descriptor wgmma_descriptor_of(const void* p, uint32_t columns, uint32_t rows) {
  return (uint64_t)((smem_addr(p) & 0x3ffffu) >> 4) | (uint64_t)(columns >> 4) << 16 | (uint64_t)(rows >> 4) << 32 |
         1ull << 62;
}
// Makes this thread's writes to shared memory visible to wgmma and TMA.
__device__ __forceinline__ void fence_async_proxy() { SM90_ASM("fence.proxy.async.shared::cta;\n" ::: "memory"); }
// Keeps the compiler from moving code that writes or reads these registers across this point. Call it before
// wgmma_fence and after wgmma_commit_and_wait.
template <int N>
__device__ __forceinline__ void wgmma_fence_registers(float (&d)[N][4]) {
#pragma unroll
  for (int i = 0; i < N; i++) asm volatile("" : "+f"(d[i][0]), "+f"(d[i][1]), "+f"(d[i][2]), "+f"(d[i][3])::"memory");
}
template <int N>
__device__ __forceinline__ void wgmma_fence_registers(uint32_t (&a)[N][4]) {
#pragma unroll
  for (int i = 0; i < N; i++) asm volatile("" : "+r"(a[i][0]), "+r"(a[i][1]), "+r"(a[i][2]), "+r"(a[i][3])::"memory");
}
__device__ __forceinline__ void wgmma_fence() { SM90_ASM("wgmma.fence.sync.aligned;\n" ::: "memory"); }
__device__ __forceinline__ void wgmma_commit_and_wait() {
  SM90_ASM("wgmma.commit_group.sync.aligned;\n wgmma.wait_group.sync.aligned 0;\n" ::: "memory");
}
// Computes d += a b for this warp's 16 rows, 16 deep, in the layout of m16n8k16. b is [columns of d][16], or
// [16][columns of d] if TRANSPOSED.
template <bool TRANSPOSED>
__device__ __forceinline__ void wgmma_k16(float (&d)[8][4], const uint32_t (&a)[4], wgmma_descriptor b) {
  SM90_ASM(
      "{.reg .pred p; setp.ne.b32 p, 1, 0; wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 "
      "{%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%"
      "30,%31},{%32,%33,%34,%35},%36,p,1,1,%37;}\n"
      : "+f"(d[0][0]), "+f"(d[0][1]), "+f"(d[0][2]), "+f"(d[0][3]), "+f"(d[1][0]), "+f"(d[1][1]), "+f"(d[1][2]),
        "+f"(d[1][3]), "+f"(d[2][0]), "+f"(d[2][1]), "+f"(d[2][2]), "+f"(d[2][3]), "+f"(d[3][0]), "+f"(d[3][1]),
        "+f"(d[3][2]), "+f"(d[3][3]), "+f"(d[4][0]), "+f"(d[4][1]), "+f"(d[4][2]), "+f"(d[4][3]), "+f"(d[5][0]),
        "+f"(d[5][1]), "+f"(d[5][2]), "+f"(d[5][3]), "+f"(d[6][0]), "+f"(d[6][1]), "+f"(d[6][2]), "+f"(d[6][3]),
        "+f"(d[7][0]), "+f"(d[7][1]), "+f"(d[7][2]), "+f"(d[7][3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "n"(TRANSPOSED ? 1 : 0));
}
template <bool TRANSPOSED>
__device__ __forceinline__ void wgmma_k16(float (&d)[16][4], const uint32_t (&a)[4], wgmma_descriptor b) {
  SM90_ASM(
      "{.reg .pred p; setp.ne.b32 p, 1, 0; wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 "
      "{%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%"
      "30,%31,%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%"
      "58,%59,%60,%61,%62,%63},{%64,%65,%66,%67},%68,p,1,1,%69;}\n"
      : "+f"(d[0][0]), "+f"(d[0][1]), "+f"(d[0][2]), "+f"(d[0][3]), "+f"(d[1][0]), "+f"(d[1][1]), "+f"(d[1][2]),
        "+f"(d[1][3]), "+f"(d[2][0]), "+f"(d[2][1]), "+f"(d[2][2]), "+f"(d[2][3]), "+f"(d[3][0]), "+f"(d[3][1]),
        "+f"(d[3][2]), "+f"(d[3][3]), "+f"(d[4][0]), "+f"(d[4][1]), "+f"(d[4][2]), "+f"(d[4][3]), "+f"(d[5][0]),
        "+f"(d[5][1]), "+f"(d[5][2]), "+f"(d[5][3]), "+f"(d[6][0]), "+f"(d[6][1]), "+f"(d[6][2]), "+f"(d[6][3]),
        "+f"(d[7][0]), "+f"(d[7][1]), "+f"(d[7][2]), "+f"(d[7][3]), "+f"(d[8][0]), "+f"(d[8][1]), "+f"(d[8][2]),
        "+f"(d[8][3]), "+f"(d[9][0]), "+f"(d[9][1]), "+f"(d[9][2]), "+f"(d[9][3]), "+f"(d[10][0]), "+f"(d[10][1]),
        "+f"(d[10][2]), "+f"(d[10][3]), "+f"(d[11][0]), "+f"(d[11][1]), "+f"(d[11][2]), "+f"(d[11][3]), "+f"(d[12][0]),
        "+f"(d[12][1]), "+f"(d[12][2]), "+f"(d[12][3]), "+f"(d[13][0]), "+f"(d[13][1]), "+f"(d[13][2]), "+f"(d[13][3]),
        "+f"(d[14][0]), "+f"(d[14][1]), "+f"(d[14][2]), "+f"(d[14][3]), "+f"(d[15][0]), "+f"(d[15][1]), "+f"(d[15][2]),
        "+f"(d[15][3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "n"(TRANSPOSED ? 1 : 0));
}

// ---------------------------------------------------------------- Hopper's copy engine (TMA)
// The copy engine copies boxes of a tensor that the host has described (cuTensorMapEncodeTiled), and swizzles them for
// wgmma. A barrier in shared memory counts the bytes that arrive.
struct __align__(128) TensorMap {
  uint64_t opaque[16];
};
typedef uint64_t mbarrier;
// Initializes a barrier. A phase ends after one arrival and the bytes that it expects.
__device__ __forceinline__ void mbarrier_init(mbarrier* b) {
  SM90_ASM("mbarrier.init.shared::cta.b64 [%0],1;\n fence.mbarrier_init.release.cluster;\n" ::"r"(smem_addr(b))
            : "memory");
}
__device__ __forceinline__ void mbarrier_expect(mbarrier* b, uint32_t bytes) {
  SM90_ASM("mbarrier.arrive.expect_tx.shared::cta.b64 _,[%0],%1;\n" ::"r"(smem_addr(b)), "r"(bytes) : "memory");
}
// Waits for the end of the phase of this parity.
__device__ __forceinline__ void mbarrier_wait(mbarrier* b, uint32_t parity) {
  SM90_ASM(
      "{\n.reg .pred over;\nagain: mbarrier.try_wait.parity.shared::cta.b64 over,[%0],%1;\n@over bra done;\nbra "
      "again;\ndone:\n}\n" ::"r"(smem_addr(b)),
      "r"(parity)
      : "memory");
}
__device__ __forceinline__ void tma_load(void* dst, const TensorMap* map, mbarrier* b, int x, int y, int z) {
  SM90_ASM(
      "cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes [%0],[%1,{%3,%4,%5}],[%2];\n" ::"r"(
          smem_addr(dst)),
      "l"(map), "r"(smem_addr(b)), "r"(x), "r"(y), "r"(z)
      : "memory");
}
#else
#include "cpu/cuda_cpu.h"
#endif
__device__ __forceinline__ float bf_lo(uint32_t u) { return __uint_as_float(u << 16); }
__device__ __forceinline__ float bf_hi(uint32_t u) { return __uint_as_float(u & 0xffff0000u); }

// ---------------------------------------------------------------- FP8 (e4m3)
// Rounds to nearest, ties to even, and saturates at 448. Where the hardware has no conversion (before sm_89, and on the
// CPU), software gives the same bytes.
__device__ __forceinline__ uint32_t e4m3(float f) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 890
  uint16_t pair;
  asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(pair) : "f"(0.f), "f"(f));
  return pair;
#else
  const uint32_t bits = __float_as_uint(f), sign = bits >> 24 & 0x80u, magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return 0x7f;          // NaN
  if (magnitude >= 0x43e00000u) return sign | 0x7e;  // 448 and above
  if (magnitude < 0x3c800000u)                       // below 2^-6, steps of 2^-9: an addition rounds
    return sign | (__float_as_uint(__uint_as_float(magnitude) + 16384.f) - 0x46800000u);
  const uint32_t rounded = magnitude + 0x7ffffu + (magnitude >> 20 & 1);  // keep 3 of 23 mantissa bits
  const uint32_t byte = (rounded >> 20) - (120u << 3);                    // the exponent's bias changes from 127 to 7
  return sign | min(byte, 0x7eu);
#endif
}
__device__ __forceinline__ float from_e4m3(uint32_t byte) {  // never NaN: 0x7f gives 480
  return __uint_as_float((byte & 0x80u) << 24 | (byte & 0x7fu) << 20) * 1.329227995784916e36f;  // 2^120
}

// ---------------------------------------------------------------- Reductions
// Each reduction is a fixed tree. Every thread gets the result.
__device__ __forceinline__ float warp_sum(float v) {
#pragma unroll
  for (int d = 16; d > 0; d >>= 1) v += __shfl_xor_sync(~0u, v, d);
  return v;
}
__device__ __forceinline__ float warp_max(float v) {
#pragma unroll
  for (int d = 16; d > 0; d >>= 1) v = fmaxf(v, __shfl_xor_sync(~0u, v, d));
  return v;
}
// Returns the value of warp i to lane i, or `empty` if there is no such warp. `buffer`: 32 floats of shared memory. The
// block must consist of whole warps.
__device__ __forceinline__ float gather_warps(float v, float* buffer, float empty) {
  const int lane = threadIdx.x & 31;
  __syncthreads();  // the previous reduction has been read
  if (lane == 0) buffer[threadIdx.x >> 5] = v;
  __syncthreads();  // every warp has written
  return lane < (int)(blockDim.x >> 5) ? buffer[lane] : empty;
}
__device__ __forceinline__ float block_sum(float v, float* buffer) {
  return warp_sum(gather_warps(warp_sum(v), buffer, 0.f));
}
__device__ __forceinline__ float block_max(float v, float* buffer) {
  return warp_max(gather_warps(warp_max(v), buffer, -INFINITY));
}
