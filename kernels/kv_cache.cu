// After the QKV product: optional RMSNorm of each query and key head (Qwen3), rotary embedding (RoPE, half-split as in
// Hugging Face checkpoints), and the write of keys and values to the paged cache. All in f32, rounded once.
//
// qkv: [tokens][heads + 2 kv_heads][D] bf16; queries: [tokens][heads][D]; keys, values: [slots][kv_heads][D];
// cos_sin: [positions][D] f32, D/2 cosines, then D/2 sines; slots: where each token lives, block * block size + offset,
// or -1 to write nothing. Grid (tokens); a warp takes a head, and a head's sum is a fixed tree of its lanes.
#include "port.cuh"
struct KvCacheArgs {
  bf16* queries;
  bf16* keys;
  bf16* values;
  const bf16* qkv;
  const float* cos_sin;
  const int* positions;
  const int* slots;
  const bf16* query_norm;  // [D], may be null
  const bf16* key_norm;    // [D], may be null
  int heads, kv_heads;
  float epsilon;
};
template <int D>
__device__ __forceinline__ void kv_cache(const KvCacheArgs& a) {
  constexpr int QUARTER = D / 4, EACH = (QUARTER + 31) / 32;  // pairs of bf16 in half a head; pairs a lane has of them
  const int token = blockIdx.x, lane = threadIdx.x & 31, all = a.heads + 2 * a.kv_heads;
  const long long slot = a.slots[token];
  const float2* cosines = reinterpret_cast<const float2*>(a.cos_sin + (size_t)a.positions[token] * D);
  const float2* sines = cosines + QUARTER;
  for (int head = threadIdx.x >> 5; head < all; head += blockDim.x >> 5) {
    const uint32_t* from = reinterpret_cast<const uint32_t*>(a.qkv + ((size_t)token * all + head) * D);
    const bool query = head < a.heads, key = !query && head < a.heads + a.kv_heads;
    if (!query && slot < 0) continue;
    bf16* row = query ? a.queries + ((size_t)token * a.heads + head) * D
                      : (key ? a.keys : a.values) + (slot * a.kv_heads + (head - a.heads) % a.kv_heads) * D;
    uint32_t* to = reinterpret_cast<uint32_t*>(row);
    if (!query && !key) {
      for (int i = lane; i < D / 2; i += 32) to[i] = from[i];
      continue;
    }
    float x[EACH][4], s = 0.f;
#pragma unroll
    for (int e = 0; e < EACH; e++) {
      const int i = lane + e * 32;
      const uint32_t lo = i < QUARTER ? from[i] : 0u, hi = i < QUARTER ? from[i + QUARTER] : 0u;
      x[e][0] = bf_lo(lo), x[e][1] = bf_hi(lo), x[e][2] = bf_lo(hi), x[e][3] = bf_hi(hi);
#pragma unroll
      for (int k = 0; k < 4; k++) s = fmaf(x[e][k], x[e][k], s);
    }
    const uint32_t* norm = reinterpret_cast<const uint32_t*>(query ? a.query_norm : a.key_norm);
    const float r = norm ? rsqrtf(warp_sum(s) / D + a.epsilon) : 1.f;
#pragma unroll
    for (int e = 0; e < EACH; e++) {
      const int i = lane + e * 32;
      if (i >= QUARTER) continue;
      if (norm) {
        const uint32_t lo = norm[i], hi = norm[i + QUARTER];
        x[e][0] *= r * bf_lo(lo), x[e][1] *= r * bf_hi(lo), x[e][2] *= r * bf_lo(hi), x[e][3] *= r * bf_hi(hi);
      }
      const float2 c = cosines[i], n = sines[i];
      to[i] = pack_bf16(x[e][0] * c.x - x[e][2] * n.x, x[e][1] * c.y - x[e][3] * n.y);
      to[i + QUARTER] = pack_bf16(x[e][2] * c.x + x[e][0] * n.x, x[e][3] * c.y + x[e][1] * n.y);
    }
  }
}
#define KV_CACHE(D)                                                                                        \
  extern "C" __global__ void __launch_bounds__(256) kv_cache_d##D(const KvCacheArgs a) { kv_cache<D>(a); } \
  CUDACPU_KERNEL(kv_cache_d##D);
KV_CACHE(64)
KV_CACHE(96)
KV_CACHE(128)
KV_CACHE(256)
