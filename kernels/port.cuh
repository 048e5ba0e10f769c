// port.cuh - the only header kernels include. GPU side here (nvcc, NVRTC); CPU side in cpu/cuda_cpu.h.
#pragma once
#if defined(__CUDACC__) || defined(__CUDACC_RTC__)
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
#if defined(PORT_NO_CUDA_HEADERS)  // NVRTC without any toolkit header
struct __nv_bfloat16 {
  uint16_t x;
};
struct __align__(4) __nv_bfloat162 {
  __nv_bfloat16 x, y;
};
__device__ __forceinline__ float __bfloat162float(__nv_bfloat16 b) { return __uint_as_float((uint32_t)b.x << 16); }
__device__ __forceinline__ __nv_bfloat16 __float2bfloat16(float f) {
  __nv_bfloat16 r;
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(r.x) : "f"(f));
  return r;
}
__device__ __forceinline__ __nv_bfloat162 __floats2bfloat162_rn(float a, float b) {
  union {
    uint32_t u;
    __nv_bfloat162 v;
  } r;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r.u) : "f"(b), "f"(a));
  return r.v;
}
#else
#include <cuda_bf16.h>
#endif
#define SHARED_ARRAY(T, name, n) __shared__ __align__(128) T name[n]
#define DYN_SHARED(T, name)                                      \
  extern __shared__ __align__(128) unsigned char dyn_smem_raw[]; \
  T* name = reinterpret_cast<T*>(dyn_smem_raw)
#define CUDACPU_KERNEL(k)
#define PORT_GPU 1
__device__ __forceinline__ uint32_t smem_addr(const void* p) { return (uint32_t)__cvta_generic_to_shared(p); }
__device__ __forceinline__ void mma_m16n8k16_bf16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9},{%0,%1,%2,%3};\n"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
__device__ __forceinline__ void ldmatrix_x4(uint32_t (&r)[4], const void* p) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3},[%4];\n"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(smem_addr(p))
               : "memory");
}
__device__ __forceinline__ void ldmatrix_x2_trans(uint32_t (&r)[2], const void* p) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0,%1},[%2];\n"
               : "=r"(r[0]), "=r"(r[1])
               : "r"(smem_addr(p))
               : "memory");
}
__device__ __forceinline__ void cp_async_16(void* dst, const void* src, bool pred = true) {
  int n = pred ? 16 : 0;
  asm volatile("cp.async.cg.shared.global [%0],[%1],16,%2;\n" ::"r"(smem_addr(dst)), "l"(src), "r"(n) : "memory");
}
__device__ __forceinline__ void cp_async_commit() { asm volatile("cp.async.commit_group;\n" ::: "memory"); }
template <int N>
__device__ __forceinline__ void cp_async_wait() {
  asm volatile("cp.async.wait_group %0;\n" ::"n"(N) : "memory");
}
#else
#include "cpu/cuda_cpu.h"
#endif
typedef __nv_bfloat16 bf16;
__device__ __forceinline__ uint32_t pack_bf16(float a, float b) {
  union {
    __nv_bfloat162 v;
    uint32_t u;
  } x = {__floats2bfloat162_rn(a, b)};
  return x.u;
}
__device__ __forceinline__ float bf_lo(uint32_t u) { return __uint_as_float(u << 16); }
__device__ __forceinline__ float bf_hi(uint32_t u) { return __uint_as_float(u & 0xffff0000u); }
