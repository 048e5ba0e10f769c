// harness.h - code shared by the checks: exact buffers, reproducible values, and runs of a case in every thread order.
#pragma once
#include "../../port.cuh"
#include <cstring>
#include <functional>
#include <memory>

static uint64_t state;
static float random_float() {  // -1 to 1
  state = state * 6364136223846793005ull + 1442695040888963407ull;
  return ((int)(state >> 40) - (1 << 23)) / (float)(1 << 23);
}

// A buffer of exactly `n` elements, so that ASan detects an access beyond them.
template <class T>
struct Buffer {
  std::unique_ptr<T[]> p;
  size_t n;
  explicit Buffer(size_t n) : p(new T[n]()), n(n) {}
  operator T*() { return p.get(); }
};
static Buffer<bf16> random_bf16(size_t n, float spread) {
  Buffer<bf16> b(n);
  for (size_t i = 0; i < n; i++) b[i] = to_bf16(random_float() * spread);
  return b;
}
static Buffer<bf16> nan_bf16(size_t n) {
  Buffer<bf16> b(n);
  for (size_t i = 0; i < n; i++) b[i] = {0x7fff};
  return b;
}

// The outcome of a case: the shim's error, a digest of its outputs, and whether a NaN is among them.
struct Result {
  std::string error;
  uint64_t digest = 14695981039346656037ull;
  bool nan = false;
  void add(uint32_t bits) { digest = (digest ^ bits) * 1099511628211ull; }
  template <class A>
  void run(void (*kernel)(A), dim3 grid, unsigned block, size_t shared, A args) {
    if (error.empty()) error = cudacpu::launch(grid, block, shared, kernel, args);
  }
  void out(Buffer<bf16>& b) {
    for (size_t i = 0; i < b.n; i++) {
      add(b[i].x);
      nan |= to_float(b[i]) != to_float(b[i]);
    }
  }
  void out(Buffer<float>& b) {
    for (size_t i = 0; i < b.n; i++) {
      add(__float_as_uint(b[i]));
      nan |= b[i] != b[i];
    }
  }
  template <class T>
  void out(Buffer<T>& b) {
    for (size_t i = 0; i < b.n; i++) add((uint32_t)b[i]);
  }
};

// Runs a case in every thread order. An error, a NaN, or bits that depend on the order end the program.
static void check(const std::string& name, std::function<void(Result&)> work) {
  uint64_t first = 0;
  for (int order : {cudacpu::FORWARD, cudacpu::REVERSE, cudacpu::RANDOM}) {
    cudacpu::config.order = order;
    state = 42;
    Result r;
    work(r);
    if (order == cudacpu::FORWARD) first = r.digest;
    const char* verdict = !r.error.empty() ? r.error.c_str() : r.nan ? "NaN" : r.digest != first ? "bits differ" : "";
    if (*verdict) {
      printf("FAIL  %s order=%d %s\n", name.c_str(), order, verdict);
      exit(1);
    }
  }
  printf("done  %s\n", name.c_str());
}

// Returns the checks of the kernels in this build.
static std::vector<void (*)()>& checks() {
  static std::vector<void (*)()> list;
  return list;
}
#define KERNEL_CHECK(kernel)                                                          \
  static void check_##kernel();                                                       \
  static const bool registered_##kernel = (checks().push_back(check_##kernel), true); \
  static void check_##kernel()
