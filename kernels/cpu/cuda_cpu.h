// cuda_cpu.h - compiles a .cu file as plain C++17 and runs it on the CPU, for tests. It maps CUDA's names to fibers.h;
// ptx.h emulates the instructions that port.cuh wraps.
#pragma once
#include "collectives.h"
#include "launch.h"
#include <cmath>

// ---------------------------------------------------------------- Threads, shared memory, barriers
#define threadIdx (cudacpu::the_thread->tid)
#define blockIdx (cudacpu::the_thread->bid)
#define blockDim (cudacpu::the_launch->block)
#define gridDim (cudacpu::the_launch->grid)
#define CC_LINE int line = __builtin_LINE()
#define SHARED_ARRAY(T_, name, n)   \
  static const char name##_key = 0; \
  auto& name = *(T_(*)[n])cudacpu::shared_alloc(&name##_key, sizeof(T_) * (n))
#define DYN_SHARED(T_, name) T_* name = (T_*)cudacpu::the_launch->dyn
inline void __syncthreads(CC_LINE) { cudacpu::sync_threads(line); }
inline void __syncwarp(unsigned m = ~0u, CC_LINE) { cudacpu::sync_warp(m, line); }

// ---------------------------------------------------------------- Warps
template <class V>
V __shfl_sync(unsigned m, V v, int s, int w = 32, CC_LINE) {
  return cudacpu::shuffle(m, v, line, [=](int l) CC_NOSAN { return (l & ~(w - 1)) | (s & (w - 1)); });
}
template <class V>
V __shfl_xor_sync(unsigned m, V v, int s, int w = 32, CC_LINE) {
  return cudacpu::shuffle(m, v, line, [=](int l) CC_NOSAN {
    int t = l ^ s;
    return (t & ~(w - 1)) > (l & ~(w - 1)) ? l : t;
  });
}
template <class V>
V __shfl_down_sync(unsigned m, V v, int s, int w = 32, CC_LINE) {
  return cudacpu::shuffle(m, v, line, [=](int l) CC_NOSAN { return (l & (w - 1)) + s < w ? l + s : l; });
}
template <class V>
V __shfl_up_sync(unsigned m, V v, int s, int w = 32, CC_LINE) {
  return cudacpu::shuffle(m, v, line, [=](int l) CC_NOSAN { return (l & (w - 1)) >= s ? l - s : l; });
}
inline unsigned __ballot_sync(unsigned m, int p, CC_LINE) { return cudacpu::ballot(m, p, line); }
inline int __any_sync(unsigned m, int p, CC_LINE) { return cudacpu::ballot(m, p, line) != 0; }
inline int __all_sync(unsigned m, int p, CC_LINE) { return cudacpu::ballot(m, p, line) == m; }

// ---------------------------------------------------------------- Atomics
inline int atomicAdd(int* p, int v) { return __atomic_fetch_add(p, v, __ATOMIC_RELAXED); }
inline unsigned atomicAdd(unsigned* p, unsigned v) { return __atomic_fetch_add(p, v, __ATOMIC_RELAXED); }
inline int atomicMax(int* p, int v) {
  int o = __atomic_load_n(p, __ATOMIC_RELAXED);
  while (o < v && !__atomic_compare_exchange_n(p, &o, v, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {}
  return o;
}
inline float atomicAdd(float* p, float v) {
  float o, n;
  __atomic_load(p, &o, __ATOMIC_RELAXED);
  do n = o + v;
  while (!__atomic_compare_exchange(p, &o, &n, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
  return o;
}
inline int atomicCAS(int* p, int c, int v) {
  __atomic_compare_exchange_n(p, &c, v, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
  return c;
}
inline void __threadfence() { __atomic_signal_fence(__ATOMIC_SEQ_CST); }

// ---------------------------------------------------------------- Numbers
inline int __ffs(int x) { return __builtin_ffs(x); }
inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }
inline float __expf(float x) { return std::exp(x); }
inline float __fdividef(float a, float b) { return a / b; }
template <class V>
V __ldg(const V* p) {
  return *p;
}
template <class V>
V min(V a, V b) {
  return b < a ? b : a;
}
template <class V>
V max(V a, V b) {
  return a < b ? b : a;
}
inline float __uint_as_float(unsigned u) {
  float f;
  __builtin_memcpy(&f, &u, 4);
  return f;
}
inline unsigned __float_as_uint(float f) {
  unsigned u;
  __builtin_memcpy(&u, &f, 4);
  return u;
}
struct bf16 {
  uint16_t x;
};
inline float to_float(bf16 b) { return __uint_as_float((unsigned)b.x << 16); }
inline bf16 to_bf16(float f) {
  unsigned u = __float_as_uint(f);
  if ((u & 0x7fffffff) > 0x7f800000) return {0x7fff};
  return {(uint16_t)((u + 0x7fff + ((u >> 16) & 1)) >> 16)};
}
inline uint32_t pack_bf16(float lo, float hi) { return to_bf16(lo).x | (uint32_t)to_bf16(hi).x << 16; }
inline float fast_exp2(float x) { return std::exp2(x); }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fadd_rn(float a, float b) { return a + b; }

#include "ptx.h"
