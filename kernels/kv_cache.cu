// The steps after the QKV projection: optional RMSNorm of each query and key head (Qwen3), rotary embedding (RoPE,
// half-split as in Hugging Face checkpoints), and the write of keys and values to the paged cache. All arithmetic is in
// f32, rounded once.
//
// qkv: [tokens][heads + 2 kv_heads][D] bf16; queries: [tokens][heads][D]; keys, values: [slots][kv_heads][D];
// cos_sin: [positions][D] f32, D/2 cosines, then D/2 sines; slots: each token's cache slot, block * block size +
// offset, or -1 to cache nothing. Grid (tokens). A warp processes one head at a time; a head's sum of squares
// is a fixed tree over the lanes.
//
// An FP8 cache has e4m3 bytes and, for each head of each slot, a scale ([slots][kv_heads] f32): the smallest power of
// two that brings the head to at most 448. A byte times its scale is therefore exactly a bf16. A NaN or infinity makes
// the scale NaN.
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
// Returns the smallest power of two s >= 2^-126 with largest / s <= 448 = 1.75 * 2^8, and 1 / s.
__device__ __forceinline__ float2 power_of_two_scale(float largest) {
  const uint32_t exponent = max((__float_as_uint(largest) + 0x1fffffu) >> 23, 9u) - 8;
  return make_float2(__uint_as_float(exponent << 23), __uint_as_float((254 - exponent) << 23));
}
// A lane's part of a head: for each i = lane + 32 e below D / 4, bf16 pairs i and D / 4 + i, rotated together.
template <int D>
struct HeadPairs {
  static constexpr int QUARTER = D / 4, PER_LANE = (QUARTER + 31) / 32;
  float x[PER_LANE][4];
};

// Loads this lane's part of a head, and returns its sum of squares.
template <int D>
__device__ __forceinline__ float load_head(HeadPairs<D>& head, const bf16* from, int lane) {
  const uint32_t* pairs = reinterpret_cast<const uint32_t*>(from);
  float s = 0.f;
#pragma unroll
  for (int e = 0; e < head.PER_LANE; e++) {
    const int i = lane + e * 32;
    const uint32_t lo = i < head.QUARTER ? pairs[i] : 0u, hi = i < head.QUARTER ? pairs[i + head.QUARTER] : 0u;
    float(&x)[4] = head.x[e];
    x[0] = bf_lo(lo), x[1] = bf_hi(lo), x[2] = bf_lo(hi), x[3] = bf_hi(hi);
#pragma unroll
    for (int k = 0; k < 4; k++) s = fmaf(x[k], x[k], s);
  }
  return s;
}

// Multiplies a head by `scale` and its norm's weights if there is a norm, then rotates it by its position's angles.
template <int D>
__device__ __forceinline__ void norm_and_rotate(HeadPairs<D>& head, const bf16* weights, float scale,
                                                const float* cos_sin, int lane) {
  const uint32_t* norm = reinterpret_cast<const uint32_t*>(weights);
  const float2* cosines = reinterpret_cast<const float2*>(cos_sin);
  const float2* sines = cosines + head.QUARTER;
#pragma unroll
  for (int e = 0; e < head.PER_LANE; e++) {
    const int i = lane + e * 32;
    if (i >= head.QUARTER) continue;
    float(&x)[4] = head.x[e];
    if (norm) {
      const uint32_t lo = norm[i], hi = norm[i + head.QUARTER];
      x[0] *= scale * bf_lo(lo), x[1] *= scale * bf_hi(lo), x[2] *= scale * bf_lo(hi), x[3] *= scale * bf_hi(hi);
    }
    const float2 c = cosines[i], n = sines[i];
    const float x0 = x[0], x1 = x[1];
    x[0] = x0 * c.x - x[2] * n.x, x[1] = x1 * c.y - x[3] * n.y;
    x[2] = x[2] * c.x + x0 * n.x, x[3] = x[3] * c.y + x1 * n.y;
  }
}

template <int D>
__device__ __forceinline__ void store_bf16(const HeadPairs<D>& head, bf16* row, int lane) {
  uint32_t* to = reinterpret_cast<uint32_t*>(row);
#pragma unroll
  for (int e = 0; e < head.PER_LANE; e++) {
    const int i = lane + e * 32;
    const float(&x)[4] = head.x[e];
    if (i < head.QUARTER) to[i] = pack_bf16(x[0], x[1]), to[i + head.QUARTER] = pack_bf16(x[2], x[3]);
  }
}

// Stores a head as e4m3 bytes, and its scale.
template <int D>
__device__ __forceinline__ void store_fp8(const HeadPairs<D>& head, uint8_t* row, float* scale_out, int lane) {
  float largest = 0.f, poison = 0.f;  // poison: 0 or NaN
#pragma unroll
  for (int e = 0; e < head.PER_LANE; e++)
#pragma unroll
    for (int k = 0; k < 4; k++) largest = fmaxf(largest, fabsf(head.x[e][k])), poison += head.x[e][k] * 0.f;
  const float2 scale = power_of_two_scale(warp_max(largest));
  poison = warp_sum(poison);
  if (lane == 0) *scale_out = scale.x + poison;
  uint16_t* to = reinterpret_cast<uint16_t*>(row);
#pragma unroll
  for (int e = 0; e < head.PER_LANE; e++) {
    const int i = lane + e * 32;
    if (i >= head.QUARTER) continue;
    const float(&x)[4] = head.x[e];
    to[i] = e4m3(x[0] * scale.y) | e4m3(x[1] * scale.y) << 8;
    to[i + head.QUARTER] = e4m3(x[2] * scale.y) | e4m3(x[3] * scale.y) << 8;
  }
}

template <int D, bool FP8>
__device__ __forceinline__ void kv_cache(const KvCacheArgs& a) {
  const int token = blockIdx.x, lane = threadIdx.x & 31, all_heads = a.heads + 2 * a.kv_heads;
  const long long slot = a.slots[token];
  const float* cos_sin = a.cos_sin + (size_t)a.positions[token] * D;
  for (int head = threadIdx.x >> 5; head < all_heads; head += blockDim.x >> 5) {
    const bool query = head < a.heads, key = !query && head < a.heads + a.kv_heads;
    if (!query && slot < 0) continue;
    HeadPairs<D> pairs;
    const float s = load_head(pairs, a.qkv + ((size_t)token * all_heads + head) * D, lane);
    const bf16* norm = query ? a.query_norm : key ? a.key_norm : nullptr;
    const float scale = norm ? rsqrtf(warp_sum(s) / D + a.epsilon) : 1.f;
    if (query || key) norm_and_rotate(pairs, norm, scale, cos_sin, lane);

    const size_t index = slot * a.kv_heads + (head - a.heads) % a.kv_heads;  // of the cached head
    void* cache = key ? a.keys : a.values;
    if (!FP8 || query) {
      bf16* row = query ? a.queries + ((size_t)token * a.heads + head) * D : static_cast<bf16*>(cache) + index * D;
      store_bf16(pairs, row, lane);
    } else
      store_fp8(pairs, static_cast<uint8_t*>(cache) + index * D, (key ? a.key_scales : a.value_scales) + index, lane);
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
