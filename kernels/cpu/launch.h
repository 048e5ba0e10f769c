// launch.h - launches a kernel by its typed function, or by name with void** arguments like cuLaunchKernel.
#pragma once
#include "scheduler.h"
#include <tuple>
#include <type_traits>

namespace cudacpu {
template <class... A>
std::string launch(dim3 g, dim3 b, size_t smem, void (*k)(A...), std::common_type_t<A>... a) {
  auto pack = std::make_pair(k, std::tuple<A...>(a...));
  return launch_raw(
      g, b, smem,
      [](void* p) {
        auto* q = (decltype(pack)*)p;
        std::apply(q->first, q->second);
      },
      &pack);
}
struct Entry {
  const char* name;
  std::string (*call)(dim3, dim3, size_t, void**, const size_t*, size_t);
};
inline std::vector<Entry>& registry() {
  static std::vector<Entry> r;
  return r;
}
template <auto K>
struct Caller;
template <class... A, void (*K)(A...)>
struct Caller<K> {
  template <size_t... I>
  static std::string invoke(dim3 g, dim3 b, size_t s, void** p, std::index_sequence<I...>) {
    return launch(g, b, s, K, *(std::remove_cv_t<A>*)p[I]...);
  }
  static std::string call(dim3 g, dim3 b, size_t s, void** p, const size_t* sz, size_t n) {
    constexpr size_t want[] = {sizeof(A)...};
    if (n != sizeof...(A)) return "wrong number of kernel arguments";
    for (size_t i = 0; i < n; i++)
      if (sz[i] != want[i]) return "kernel argument " + std::to_string(i) + " has the wrong size";
    return invoke(g, b, s, p, std::index_sequence_for<A...>{});
  }
};
#define CUDACPU_KERNEL(k) \
  static const bool cudacpu_reg_##k = (cudacpu::registry().push_back({#k, &cudacpu::Caller<&k>::call}), true)
}  // namespace cudacpu
