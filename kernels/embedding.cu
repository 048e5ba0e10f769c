// Token embeddings: out[row] = table[ids[row]].
//
// table: [vocabulary][n] bf16; ids: [rows]; out: [rows][n] bf16; n % 8 == 0; rows 16-byte aligned. Grid (rows). An id
// outside the vocabulary gives a row of NaN: the host refuses such ids, and one that slips through cannot pass for
// text.
#include "port.cuh"
struct EmbeddingArgs {
  bf16* out;
  const bf16* table;
  const int* ids;
  int n;
  int vocabulary;
};
extern "C" __global__ void __launch_bounds__(512) embedding(const EmbeddingArgs a) {
  const int id = a.ids[blockIdx.x];
  const bool known = id >= 0 && id < a.vocabulary;
  const uint4* row = reinterpret_cast<const uint4*>(a.table + (size_t)(known ? id : 0) * a.n);
  uint4* out = reinterpret_cast<uint4*>(a.out + (size_t)blockIdx.x * a.n);
  const uint32_t nan = 0x7fff7fffu;
  for (int i = threadIdx.x; i < a.n / 8; i += blockDim.x) out[i] = known ? row[i] : make_uint4(nan, nan, nan, nan);
}
CUDACPU_KERNEL(embedding);
