// ptx.h - emulates the instructions that port.cuh wraps: mma, ldmatrix, wgmma, cp.async, TMA.
#pragma once
#include "collectives.h"
#include "copy_engine.h"

// ---------------------------------------------------------------- Tensor cores
CC_RT void mma_m16n8k16_bf16(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1, CC_LINE) {
  union U {
    float f[4];
    uint32_t u[4];
    U() {}
  } x;
  uint32_t in[10] = {a[0], a[1], a[2], a[3], b0, b1};
  for (int i = 0; i < 4; i++) {
    x.f[i] = d[i];
    in[6 + i] = x.u[i];
  }
  cudacpu::collective(
      ~0u, line, in, 10, false,
      [](cudacpu::Collective& c) CC_NOSAN {
        union W {
          uint32_t u;
          float f;
        };
        float A[16][16], B[16][8], D[16][8];
        for (int l = 0; l < 32; l++) {
          int g = l >> 2, t = (l & 3) * 2;
          const uint32_t* r = c.in[l];
          for (int h = 0; h < 2; h++) {
            W w[6];
            for (int i = 0; i < 6; i++) w[i].u = h ? r[i] & 0xffff0000u : r[i] << 16;
            A[g][t + h] = w[0].f;
            A[g + 8][t + h] = w[1].f;
            A[g][t + 8 + h] = w[2].f;
            A[g + 8][t + 8 + h] = w[3].f;
            B[t + h][g] = w[4].f;
            B[t + 8 + h][g] = w[5].f;
          }
        }
        for (int m = 0; m < 16; m++) {
          for (int n = 0; n < 8; n++) D[m][n] = 0;
          for (int k = 0; k < 16; k++)
            for (int n = 0; n < 8; n++) D[m][n] += A[m][k] * B[k][n];
        }
        for (int l = 0; l < 32; l++)
          for (int i = 0; i < 4; i++) {
            W w;
            w.u = c.in[l][6 + i];
            w.f += D[(l >> 2) + (i & 2) * 4][(l & 3) * 2 + (i & 1)];
            c.out[l][i] = w.u;
          }
      },
      [&](cudacpu::Collective& c) CC_NOSAN {
        for (int i = 0; i < 4; i++) x.u[i] = c.out[cudacpu::the_thread->lane][i];
      });
  for (int i = 0; i < 4; i++) d[i] = x.f[i];
}
template <int N>
CC_RT void collect_rows(const uint16_t** rows, const void* row, int line) {
  union U {
    uint64_t p;
    uint32_t w[2];
  } a;
  a.p = (uint64_t)row;
  if (a.p & 15) cudacpu::fail("ldmatrix row not 16-byte aligned", cudacpu::the_thread);
  cudacpu::collective(
      ~0u, line, a.w, 2, false, [](cudacpu::Collective&) CC_NOSAN {},
      [&](cudacpu::Collective& c) CC_NOSAN {
        for (int j = 0; j < 8 * N; j++) {
          U b;
          b.w[0] = c.in[j][0];
          b.w[1] = c.in[j][1];
          rows[j] = (const uint16_t*)b.p;
        }
      });
}
template <int N, bool TR>
inline void ldmatrix_lanes(uint32_t (&r)[N], const void* row, int line) {
  const uint16_t* rows[8 * N];
  collect_rows<N>(rows, row, line);
  int g = cudacpu::the_thread->lane >> 2,
      t = (cudacpu::the_thread->lane & 3) * 2;  // this lane does the reads below, so that ASan and TSan check them
  for (int j = 0; j < N; j++)
    r[j] = TR ? rows[8 * j + t][g] | (uint32_t)rows[8 * j + t + 1][g] << 16
              : rows[8 * j + g][t] | (uint32_t)rows[8 * j + g][t + 1] << 16;
}
inline void ldmatrix_x4(uint32_t (&r)[4], const void* row, CC_LINE) { ldmatrix_lanes<4, false>(r, row, line); }
inline void ldmatrix_x4_trans(uint32_t (&r)[4], const void* row, CC_LINE) { ldmatrix_lanes<4, true>(r, row, line); }

// ---------------------------------------------------------------- Hopper's tensor cores (wgmma)
// Each of the four warps has 16 rows, so each warp can compute its part without the others.
struct wgmma_descriptor {
  uintptr_t p;
  uint32_t columns, rows;
};
inline wgmma_descriptor wgmma_descriptor_of(const void* p, uint32_t columns, uint32_t rows) {
  return {(uintptr_t)p, columns, rows};
}
inline void fence_async_proxy() {}
template <class V, int N>
void wgmma_fence_registers(V (&)[N][4]) {}
inline void wgmma_fence() {}
inline void wgmma_commit_and_wait() {}
template <bool TRANSPOSED, int N>
inline void wgmma_k16(float (&d)[N][4], const uint32_t (&a)[4], wgmma_descriptor b, CC_LINE) {
  const int g = cudacpu::the_thread->lane >> 2, tg = cudacpu::the_thread->lane & 3;
  auto at = [&](int n, int k) -> uint32_t {
    const int row = TRANSPOSED ? k : n, column = TRANSPOSED ? n : k;
    const uintptr_t u = b.p + row / 8 * b.rows + row % 8 * 128 + column / 64 * b.columns + column % 64 * 2;
    return *(const uint16_t*)(u ^ (u >> 7 & 7) << 4);
  };
  for (int n = 0; n < N; n++) {
    const uint32_t b0 = at(n * 8 + g, tg * 2) | at(n * 8 + g, tg * 2 + 1) << 16;
    const uint32_t b1 = at(n * 8 + g, tg * 2 + 8) | at(n * 8 + g, tg * 2 + 9) << 16;
    mma_m16n8k16_bf16(d[n], a, b0, b1, line);
  }
}

// ---------------------------------------------------------------- Asynchronous copies
// cp.async copies only at the wait, so that a kernel that forgets to wait reads the 0xff fill (NaN).
inline void cp_async_16(void* dst, const void* src, bool pred = true) {
  auto& t = *cudacpu::the_thread;
  if (((uintptr_t)dst | (uintptr_t)src) & 15) cudacpu::fail("cp.async address not 16-byte aligned", &t);
  if (t.copy_count == sizeof t.copies / sizeof *t.copies) abort();
  t.copies[t.copy_count++] = {dst, pred ? src : nullptr};
}
inline void cp_async_commit() {
  auto& t = *cudacpu::the_thread;
  if (t.group_count == 8) abort();
  t.group_ends[t.group_count++] = t.copy_count;
}
template <int N>
inline void cp_async_wait() {
  auto& t = *cudacpu::the_thread;
  if ((int)t.group_count <= N) return;
  unsigned k = t.group_count - N, n = t.group_ends[k - 1];
  for (unsigned i = 0; i < n; i++) {
    const uint4* src = (const uint4*)t.copies[i].src;
    *(uint4*)t.copies[i].dst = src ? *src : uint4{0, 0, 0, 0};
  }
  for (unsigned i = n; i < t.copy_count; i++) t.copies[i - n] = t.copies[i];
  for (unsigned i = k; i < t.group_count; i++) t.group_ends[i - k] = t.group_ends[i] - n;
  t.copy_count -= n;
  t.group_count -= k;
}

// ---------------------------------------------------------------- Hopper's copy engine (TMA)
// Boxes are copied only at the wait for their barrier, so that a kernel that forgets to wait reads the 0xff fill.
struct alignas(128) TensorMap {
  uint64_t base, columns, heads, slots, rows;
};
typedef uint64_t mbarrier;
inline void mbarrier_init(mbarrier* b) { cudacpu::barrier_init(b); }
inline void mbarrier_expect(mbarrier* b, uint32_t bytes) {
  CC_TSAN(__tsan_release(b);)
  cudacpu::barrier_expect(b, bytes);
}
inline void mbarrier_wait(mbarrier* b, uint32_t parity, CC_LINE) {
  for (int spins = 0; !cudacpu::phase_is_over(b, parity); spins++) {
    if (!cudacpu::all_boxes_are_queued(b)) {
      cudacpu::yield_to_others(spins, line);
      continue;
    }
    for (cudacpu::Box box; cudacpu::take_box(b, box);)
      for (unsigned i = 0; i < box.rows * 8; i++) {
        const uintptr_t to = (uintptr_t)box.dst + i * 16;
        *(uint4*)(to ^ (to >> 7 & 7) << 4) = *(const uint4*)(box.src + i / 8 * box.pitch + i % 8 * 16);
      }
    cudacpu::end_phase(b);
    CC_TSAN(__tsan_release(b);)
  }
  CC_TSAN(__tsan_acquire(b);)
}
inline void tma_load(void* dst, const TensorMap* map, mbarrier* b, int x, int y, int z) {
  if ((uintptr_t)dst & 1023) cudacpu::fail("TMA destination not 1024-byte aligned", cudacpu::the_thread);
  if (x < 0 || y < 0 || z < 0 || x + 64 > (int64_t)map->columns || y >= (int64_t)map->heads ||
      z + map->rows > map->slots)
    return cudacpu::fail("TMA box outside its tensor", cudacpu::the_thread);
  const size_t pitch = map->columns * map->heads * 2;
  const char* src = (const char*)map->base + z * pitch + (y * map->columns + x) * 2;
  cudacpu::push_box({b, (char*)dst, src, pitch, (unsigned)map->rows});
}
