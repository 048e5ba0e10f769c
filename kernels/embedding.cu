// Token embeddings: out[row] = table[ids[row]].
//
// table: [count][n] bf16, the rows of ids from `first` on; ids: [rows]; out: [rows][n] bf16; n % 8 == 0; rows 16-byte
// aligned. Grid (rows). An id that is in the vocabulary but not in the table gives zeros: another rank has it. An id
// outside the vocabulary gives NaN. The host rejects such ids; NaN exposes one that slips through.
#include "port.cuh"
struct EmbeddingArgs {
  bf16* out;
  const bf16* table;
  const int* ids;
  int n;
  int first, count;
  int vocabulary;
};
extern "C" __global__ void __launch_bounds__(512) embedding(const EmbeddingArgs a) {
  const int id = a.ids[blockIdx.x], row_index = id - a.first;
  const bool is_local = id >= a.first && row_index < a.count;
  const uint4* row = reinterpret_cast<const uint4*>(a.table + (size_t)(is_local ? row_index : 0) * a.n);
  uint4* out = reinterpret_cast<uint4*>(a.out + (size_t)blockIdx.x * a.n);
  const uint32_t x = id >= 0 && id < a.vocabulary ? 0u : 0x7fff7fffu;
  for (int i = threadIdx.x; i < a.n / 8; i += blockDim.x) out[i] = is_local ? row[i] : make_uint4(x, x, x, x);
}
CUDACPU_KERNEL(embedding);
