// The only translation unit of the CPU build: every kernel, and the C entry point that Rust calls.
#include "../embedding.cu"
#include "../fp8.cu"
#include "../kv_cache.cu"
#include "../logprobs.cu"
#include "../paged_attention.cu"
#include "../paged_decode.cu"
#include "../rank_sum.cu"
#include "../rms_norm.cu"
#include "../silu_mul.cu"
#include "../wrappers.cu"
#include <cstring>
extern "C" int cudacpu_launch(const char* name, const unsigned* grid, const unsigned* block, size_t smem, void** args,
                              const size_t* sizes, size_t nargs, int order, uint64_t seed, char* err, size_t err_len) {
  cudacpu::config.order = order;
  cudacpu::config.seed = seed;
  for (auto& e : cudacpu::registry())
    if (!strcmp(e.name, name)) {
      std::string m =
          e.call(dim3(grid[0], grid[1], grid[2]), dim3(block[0], block[1], block[2]), smem, args, sizes, nargs);
      if (m.empty()) return 0;
      snprintf(err, err_len, "%s", m.c_str());
      return 1;
    }
  snprintf(err, err_len, "no kernel named %s", name);
  return 2;
}
