// After the QKV product: optional RMSNorm of each query and key head (Qwen3), rotary embedding (RoPE, half-split as in
// Hugging Face checkpoints), and the write of keys and values to the paged cache. All in f32, rounded once.
//
// qkv: [tokens][heads + 2 kv_heads][D] bf16; queries: [tokens][heads][D]; keys, values: [slots][kv_heads][D];
// cos_sin: [positions][D] f32, D/2 cosines, then D/2 sines; slots: where each token lives, block * block size + offset,
// or -1 to write nothing. Grid (tokens); a warp takes a head, and a head's sum is a fixed tree of its lanes.
//
// An FP8 cache has bytes of e4m3 and a scale for each head of each slot, [slots][kv_heads] f32: the least power of two
// that brings the head below 448. So a byte times its scale is a bf16, exactly. A NaN or infinity makes the scale NaN.
#include "port.cuh"
struct KvCacheArgs {
  bf16* queries;
  void* keys;
  void* values;
  float* key_scales;    // FP8 only
  float* value_scales;  // FP8 only
  const bf16* qkv;
  const float* cos_sin;
  const int* positions;
  const int* slots;
  const bf16* query_norm;  // [D], may be null
  const bf16* key_norm;    // [D], may be null
  int heads, kv_heads;
  float epsilon;
};
// The least power of two s, at least 2^-126, with largest / s <= 448 = 1.75 * 2^8; and 1 / s.
__device__ __forceinline__ float2 power_of_two_scale(float largest) {
  const uint32_t exponent = max((__float_as_uint(largest) + 0x1fffffu) >> 23, 9u) - 8;
  return make_float2(__uint_as_float(exponent << 23), __uint_as_float((254 - exponent) << 23));
}
template <int D, bool FP8>
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
    float x[EACH][4], s = 0.f;
#pragma unroll
    for (int e = 0; e < EACH; e++) {
      const int i = lane + e * 32;
      const uint32_t lo = i < QUARTER ? from[i] : 0u, hi = i < QUARTER ? from[i + QUARTER] : 0u;
      x[e][0] = bf_lo(lo), x[e][1] = bf_hi(lo), x[e][2] = bf_lo(hi), x[e][3] = bf_hi(hi);
#pragma unroll
      for (int k = 0; k < 4; k++) s = fmaf(x[e][k], x[e][k], s);
    }
    const uint32_t* norm = reinterpret_cast<const uint32_t*>(query ? a.query_norm : key ? a.key_norm : nullptr);
    const float r = norm ? rsqrtf(warp_sum(s) / D + a.epsilon) : 1.f;
#pragma unroll
    for (int e = 0; e < EACH; e++) {
      const int i = lane + e * 32;
      if (i >= QUARTER || !(query || key)) continue;
      if (norm) {
        const uint32_t lo = norm[i], hi = norm[i + QUARTER];
        x[e][0] *= r * bf_lo(lo), x[e][1] *= r * bf_hi(lo), x[e][2] *= r * bf_lo(hi), x[e][3] *= r * bf_hi(hi);
      }
      const float2 c = cosines[i], n = sines[i];
      const float x0 = x[e][0], x1 = x[e][1];
      x[e][0] = x0 * c.x - x[e][2] * n.x, x[e][1] = x1 * c.y - x[e][3] * n.y;
      x[e][2] = x[e][2] * c.x + x0 * n.x, x[e][3] = x[e][3] * c.y + x1 * n.y;
    }
    const size_t place = slot * a.kv_heads + (head - a.heads) % a.kv_heads;
    void* cache = key ? a.keys : a.values;
    if (!FP8 || query) {
      bf16* row = query ? a.queries + ((size_t)token * a.heads + head) * D : static_cast<bf16*>(cache) + place * D;
      uint32_t* to = reinterpret_cast<uint32_t*>(row);
#pragma unroll
      for (int e = 0; e < EACH; e++) {
        const int i = lane + e * 32;
        if (i < QUARTER) to[i] = pack_bf16(x[e][0], x[e][1]), to[i + QUARTER] = pack_bf16(x[e][2], x[e][3]);
      }
      continue;
    }
    float largest = 0.f, poison = 0.f;  // 0 or NaN
#pragma unroll
    for (int e = 0; e < EACH; e++)
#pragma unroll
      for (int k = 0; k < 4; k++) largest = fmaxf(largest, fabsf(x[e][k])), poison += x[e][k] * 0.f;
    const float2 scale = power_of_two_scale(warp_max(largest));
    poison = warp_sum(poison);
    if (lane == 0) (key ? a.key_scales : a.value_scales)[place] = scale.x + poison;
    uint16_t* to = reinterpret_cast<uint16_t*>(static_cast<uint8_t*>(cache) + place * D);
#pragma unroll
    for (int e = 0; e < EACH; e++) {
      const int i = lane + e * 32;
      if (i >= QUARTER) continue;
      to[i] = e4m3(x[e][0] * scale.y) | e4m3(x[e][1] * scale.y) << 8;
      to[i + QUARTER] = e4m3(x[e][2] * scale.y) | e4m3(x[e][3] * scale.y) << 8;
    }
  }
}
#define KV_CACHE(D, NAME, FP8)                                                                                \
  extern "C" __global__ void __launch_bounds__(256) NAME##_d##D(const KvCacheArgs a) { kv_cache<D, FP8>(a); } \
  CUDACPU_KERNEL(NAME##_d##D);
KV_CACHE(64, kv_cache, false)
KV_CACHE(96, kv_cache, false)
KV_CACHE(128, kv_cache, false)
KV_CACHE(256, kv_cache, false)
KV_CACHE(64, kv_cache_fp8, true)
KV_CACHE(96, kv_cache_fp8, true)
KV_CACHE(128, kv_cache_fp8, true)
KV_CACHE(256, kv_cache_fp8, true)
