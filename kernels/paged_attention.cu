// Attention over a paged KV cache: decode (one query a sequence) and causal prefill, online softmax (FlashAttention).
//
// q, out: [tokens][H][D] bf16. kc, vc: [blocks][16][KVH][D] bf16. bt: block table [sequences][max_blocks]. ctx: keys
// each sequence has. qstart: [sequences + 1], first query row of each sequence; its last query sees all its keys. Every
// query walks its keys in tiles at absolute positions, so its bits do not depend on the batch or on how a prompt was
// cut.
#include "port.cuh"
constexpr int BS = 16;

// ---- decode: one query token per sequence. grid (H, seqs), block 128: 4 warps take tokens in turn, then merge.
template <int D>
__device__ void decode_body(bf16* out, const bf16* q, const bf16* kc, const bf16* vc, const int* bt, const int* ctx,
                            int max_blocks, int H, int KVH, float scale) {
  constexpr int E = D / 32;  // dims per lane
  SHARED_ARRAY(float, sm, 4);
  SHARED_ARRAY(float, sl, 4);
  SHARED_ARRAY(float, so, 4 * D);
  const int h = blockIdx.x, seq = blockIdx.y, kvh = h / (H / KVH), lane = threadIdx.x & 31, warp = threadIdx.x >> 5,
            len = ctx[seq];
  float qv[E], o[E], m = -INFINITY, l = 0.f;
#pragma unroll
  for (int e = 0; e < E; e++) {
    qv[e] = __bfloat162float(q[((size_t)seq * H + h) * D + lane * E + e]) * scale;
    o[e] = 0.f;
  }
  for (int t = warp; t < len; t += 4) {
    const size_t base = (((size_t)bt[seq * max_blocks + t / BS] * BS + t % BS) * KVH + kvh) * D + lane * E;
    float s = 0.f;
#pragma unroll
    for (int e = 0; e < E; e++) s += qv[e] * __bfloat162float(kc[base + e]);
#pragma unroll
    for (int d = 16; d > 0; d >>= 1) s += __shfl_xor_sync(0xffffffffu, s, d);
    const float mn = fmaxf(m, s), c = __expf(m - mn), p = __expf(s - mn);
    l = l * c + p;
    m = mn;
#pragma unroll
    for (int e = 0; e < E; e++) o[e] = o[e] * c + p * __bfloat162float(vc[base + e]);
  }
  if (lane == 0) {
    sm[warp] = m;
    sl[warp] = l;
  }
#pragma unroll
  for (int e = 0; e < E; e++) so[warp * D + lane * E + e] = o[e];
  __syncthreads();
  for (int d = threadIdx.x; d < D; d += 128) {
    float M = fmaxf(fmaxf(sm[0], sm[1]), fmaxf(sm[2], sm[3])), den = 0.f, num = 0.f;
    for (int w = 0; w < 4; w++) {
      const float c = sm[w] == -INFINITY ? 0.f : __expf(sm[w] - M);
      den += sl[w] * c;
      num += so[w * D + d] * c;
    }
    out[((size_t)seq * H + h) * D + d] = __float2bfloat16(den > 0.f ? num / den : 0.f);
  }
}
extern "C" __global__ void __launch_bounds__(128)
    paged_decode_d64(bf16* out, const bf16* q, const bf16* kc, const bf16* vc, const int* bt, const int* ctx,
                     int max_blocks, int H, int KVH, float scale) {
  decode_body<64>(out, q, kc, vc, bt, ctx, max_blocks, H, KVH, scale);
}
CUDACPU_KERNEL(paged_decode_d64);

// ---- prefill: causal, mma.sync tensor cores. grid (ceil(max_q/64), H, seqs), block 128: 16 query rows per warp.
template <int D>
__device__ void prefill_body(bf16* out, const bf16* q, const bf16* kc, const bf16* vc, const int* bt, const int* ctx,
                             const int* qstart, int max_blocks, int H, int KVH, float scale_log2) {
  constexpr int TK = 32, LD = D + 8, V8 = D / 8;
  SHARED_ARRAY(bf16, sK, TK * LD);
  SHARED_ARRAY(bf16, sV, TK * LD);
  const int h = blockIdx.y, seq = blockIdx.z, kvh = h / (H / KVH), lane = threadIdx.x & 31, warp = threadIdx.x >> 5,
            g = lane >> 2, tg = lane & 3;
  const int q0 = qstart[seq], nq = qstart[seq + 1] - q0, len = ctx[seq], past = len - nq, tile = blockIdx.x * 64;
  if (tile >= nq) return;  // whole block leaves
  const int r0 = tile + warp * 16 + g, r1 = r0 + 8;
  uint32_t qf[D / 16][4];
#pragma unroll
  for (int k = 0; k < D / 16; k++) {
    const uint32_t* p0 = reinterpret_cast<const uint32_t*>(q + ((size_t)(q0 + r0) * H + h) * D + k * 16) + tg;
    const uint32_t* p1 = reinterpret_cast<const uint32_t*>(q + ((size_t)(q0 + r1) * H + h) * D + k * 16) + tg;
    qf[k][0] = r0 < nq ? p0[0] : 0u;
    qf[k][1] = r1 < nq ? p1[0] : 0u;
    qf[k][2] = r0 < nq ? p0[4] : 0u;
    qf[k][3] = r1 < nq ? p1[4] : 0u;
  }
  float o[D / 8][4], m0 = -INFINITY, m1 = -INFINITY, l0 = 0.f, l1 = 0.f;
#pragma unroll
  for (int n = 0; n < D / 8; n++) { o[n][0] = o[n][1] = o[n][2] = o[n][3] = 0.f; }
  const int last = min(past + tile + 64, len);
  for (int t0 = 0; t0 < last; t0 += TK) {
    __syncthreads();  // everyone is done with the previous tile
    for (int i = threadIdx.x; i < TK * V8; i += 128) {
      const int t = t0 + i / V8, c = i % V8;
      const bool ok = t < len;
      const size_t src = ok ? (((size_t)bt[seq * max_blocks + t / BS] * BS + t % BS) * KVH + kvh) * D + c * 8 : 0;
      cp_async_16(&sK[(i / V8) * LD + c * 8], kc + src, ok);
      cp_async_16(&sV[(i / V8) * LD + c * 8], vc + src, ok);
    }
    cp_async_commit();
    cp_async_wait<0>();
    __syncthreads();
    float s[TK / 8][4];
#pragma unroll
    for (int n = 0; n < TK / 8; n++) {
      s[n][0] = s[n][1] = s[n][2] = s[n][3] = 0.f;
#pragma unroll
      for (int k = 0; k < D / 16; k++) {
        const uint32_t* p = reinterpret_cast<const uint32_t*>(&sK[(n * 8 + g) * LD + k * 16]) + tg;
        const uint32_t b[2] = {p[0], p[4]};
        mma_m16n8k16_bf16(s[n], qf[k], b);
      }
    }
    float x0 = m0, x1 = m1;
#pragma unroll
    for (int n = 0; n < TK / 8; n++)
#pragma unroll
      for (int j = 0; j < 4; j++) {
        const int t = t0 + n * 8 + tg * 2 + (j & 1), r = j < 2 ? r0 : r1;
        s[n][j] = t <= past + r ? s[n][j] * scale_log2 : -INFINITY;
        if (j < 2) x0 = fmaxf(x0, s[n][j]);
        else x1 = fmaxf(x1, s[n][j]);
      }
    x0 = fmaxf(x0, __shfl_xor_sync(~0u, x0, 1));
    x0 = fmaxf(x0, __shfl_xor_sync(~0u, x0, 2));
    x1 = fmaxf(x1, __shfl_xor_sync(~0u, x1, 1));
    x1 = fmaxf(x1, __shfl_xor_sync(~0u, x1, 2));
    const float c0 = exp2f(m0 - x0), c1 = exp2f(m1 - x1);
    m0 = x0;
    m1 = x1;
    l0 *= c0;
    l1 *= c1;
#pragma unroll
    for (int n = 0; n < TK / 8; n++) {
      s[n][0] = exp2f(s[n][0] - m0);
      s[n][1] = exp2f(s[n][1] - m0);
      s[n][2] = exp2f(s[n][2] - m1);
      s[n][3] = exp2f(s[n][3] - m1);
      l0 += s[n][0] + s[n][1];
      l1 += s[n][2] + s[n][3];
    }
#pragma unroll
    for (int n = 0; n < D / 8; n++) {
      o[n][0] *= c0;
      o[n][1] *= c0;
      o[n][2] *= c1;
      o[n][3] *= c1;
    }
#pragma unroll
    for (int k = 0; k < TK / 16; k++) {
      const uint32_t p[4] = {pack_bf16(s[2 * k][0], s[2 * k][1]), pack_bf16(s[2 * k][2], s[2 * k][3]),
                             pack_bf16(s[2 * k + 1][0], s[2 * k + 1][1]), pack_bf16(s[2 * k + 1][2], s[2 * k + 1][3])};
#pragma unroll
      for (int n = 0; n < D / 8; n++) {
        uint32_t b[2];
        ldmatrix_x2_trans(b, &sV[(k * 16 + (lane & 15)) * LD + n * 8]);
        mma_m16n8k16_bf16(o[n], p, b);
      }
    }
  }
  l0 += __shfl_xor_sync(~0u, l0, 1);
  l0 += __shfl_xor_sync(~0u, l0, 2);
  l1 += __shfl_xor_sync(~0u, l1, 1);
  l1 += __shfl_xor_sync(~0u, l1, 2);
#pragma unroll
  for (int n = 0; n < D / 8; n++) {
    uint32_t* p0 = reinterpret_cast<uint32_t*>(out + ((size_t)(q0 + r0) * H + h) * D + n * 8) + tg;
    uint32_t* p1 = reinterpret_cast<uint32_t*>(out + ((size_t)(q0 + r1) * H + h) * D + n * 8) + tg;
    if (r0 < nq) *p0 = pack_bf16(o[n][0] / l0, o[n][1] / l0);
    if (r1 < nq) *p1 = pack_bf16(o[n][2] / l1, o[n][3] / l1);
  }
}
extern "C" __global__ void __launch_bounds__(128)
    paged_prefill_d64(bf16* out, const bf16* q, const bf16* kc, const bf16* vc, const int* bt, const int* ctx,
                      const int* qstart, int max_blocks, int H, int KVH, float scale_log2) {
  prefill_body<64>(out, q, kc, vc, bt, ctx, qstart, max_blocks, H, KVH, scale_log2);
}
CUDACPU_KERNEL(paged_prefill_d64);
