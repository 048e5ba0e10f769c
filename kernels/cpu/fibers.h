// fibers.h - threads of a CUDA block as fibers: barriers, warp collectives, shared memory, launches.
//
// One CUDA thread is one fiber; the blocks of a grid run one after another on the calling OS thread.
// Under ASan/UBSan every access is checked. Under TSan each fiber is a "thread" and only __syncthreads,
// __syncwarp and atomics order memory, so a missing barrier is reported whatever the order was.
// Code reached from fibers in here uses no std:: containers: their instantiations would be instrumented.
#pragma once
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>
#include <sys/mman.h>
#ifndef __has_feature
#define __has_feature(x) 0
#endif
#if defined(__SANITIZE_ADDRESS__) || __has_feature(address_sanitizer)
#define CC_ASAN(...) __VA_ARGS__
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#else
#define CC_ASAN(...)
#endif
#if defined(__SANITIZE_THREAD__) || __has_feature(thread_sanitizer)
#define CC_TSAN(...) __VA_ARGS__
#define CC_NOT_TSAN(...)
#include <sanitizer/tsan_interface.h>
#else
#define CC_TSAN(...)
#define CC_NOT_TSAN(...) __VA_ARGS__
#endif
#define CC_NOSAN __attribute__((no_sanitize("thread")))
#define CC_RT inline __attribute__((noinline, no_sanitize("thread")))  // shim internals

// ------------------------------------------------------------------ keywords and vector types
#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __align__(n) alignas(n)
#define __constant__ static const
#define __grid_constant__
struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned a = 1, unsigned b = 1, unsigned c = 1) : x(a), y(b), z(c) {}
};
struct alignas(8) float2 {
  float x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
struct alignas(8) int2 {
  int x, y;
};
struct alignas(16) int4 {
  int x, y, z, w;
};
struct alignas(8) uint2 {
  unsigned x, y;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
inline float2 make_float2(float a, float b) { return {a, b}; }
inline float4 make_float4(float a, float b, float c, float d) { return {a, b, c, d}; }
inline uint2 make_uint2(unsigned a, unsigned b) { return {a, b}; }
inline uint4 make_uint4(unsigned a, unsigned b, unsigned c, unsigned d) { return {a, b, c, d}; }

namespace cudacpu {
// ------------------------------------------------------------------ state
enum Order { FORWARD, REVERSE, RANDOM };
struct Config {
  int order = RANDOM;
  uint64_t seed = 1;
  bool strict = true;
  size_t stack = 128 << 10;
};
inline thread_local Config config;

struct Coll {  // one instance of a warp collective (shuffle, vote, mma, ldmatrix, syncwarp)
  unsigned mask, arrived, left;
  int line;
  bool used, done;
  uint32_t in[32][10], out[32][4];
};
enum State : uint8_t { DONE, READY, AT_BARRIER, AT_WARP };
struct Copy {
  void* dst;
  const void* src;
};
struct Thread {
  dim3 tid, bid;
  unsigned lin, lane, warp;
  int line;
  State st;
  Coll* coll;
  void *sp, *fake, *tsan;
  char* stack;
  Copy cp[256];
  unsigned ncp, cpg[8], ncpg;
};
struct Barrier {  // in shared memory, whose bytes the copy engine counts
  const void* at;
  unsigned parity, arrived;
  size_t expected;
};
struct Box {  // what the copy engine was told to fetch, 128 bytes a row
  const void* barrier;
  char* dst;
  const char* src;
  size_t pitch;
  unsigned rows;
};
constexpr int NCOLL = 34, NSH = 32, NBARRIERS = 8, NBOXES = 64;
struct Launch {
  dim3 grid, block;
  size_t dyn_bytes, stack;
  void* dyn;
  unsigned n, bar_gen, nsh;
  Thread* th;
  Coll* coll;
  struct {
    const void* key;
    void* p;
  } sh[NSH];
  Barrier barriers[NBARRIERS];
  Box boxes[NBOXES];
  unsigned nbarriers, nboxes;
  void (*body)(void*);
  void* arg;
  void *main_sp, *main_fake, *main_tsan;
  const void* main_stack;
  size_t main_size;
  char bar[2], start, end;
  char err[300];
};
inline thread_local Launch* L = nullptr;
inline thread_local Thread* T = nullptr;

// ------------------------------------------------------------------ fiber switch
extern "C" void cudacpu_switch(void** save_sp, void* load_sp);
#if defined(__x86_64__)
asm(".text\n.weak cudacpu_switch\n.type cudacpu_switch,@function\ncudacpu_switch:\n"
    "push %rbp\npush %rbx\npush %r12\npush %r13\npush %r14\npush %r15\n"
    "mov %rsp,(%rdi)\nmov %rsi,%rsp\n"
    "pop %r15\npop %r14\npop %r13\npop %r12\npop %rbx\npop %rbp\nret\n.size cudacpu_switch,.-cudacpu_switch\n");
CC_RT void* init_stack(char* top, void (*entry)()) {
  void** s = (void**)((uintptr_t)top & ~(uintptr_t)15);
  *--s = nullptr;
  *--s = (void*)entry;
  for (int i = 0; i < 6; i++) *--s = nullptr;
  return s;
}
#else
#error "fiber switch missing for this CPU"
#endif
CC_RT void to_main(bool last) {
  Thread* t = T;
  (void)last;
  CC_ASAN(__sanitizer_start_switch_fiber(last ? nullptr : &t->fake, L->main_stack, L->main_size);)
  CC_TSAN(__tsan_switch_to_fiber(L->main_tsan, __tsan_switch_to_fiber_no_sync);)
  cudacpu_switch(&t->sp, L->main_sp);
  CC_ASAN(__sanitizer_finish_switch_fiber(t->fake, nullptr, nullptr);)
}
CC_RT void resume(Thread* t) {
  T = t;
  CC_ASAN(__sanitizer_start_switch_fiber(&L->main_fake, t->stack, L->stack);)
  CC_TSAN(__tsan_switch_to_fiber(t->tsan, __tsan_switch_to_fiber_no_sync);)
  cudacpu_switch(&L->main_sp, t->sp);
  CC_ASAN(__sanitizer_finish_switch_fiber(L->main_fake, nullptr, nullptr);)
}
CC_RT void fiber_main() {
  CC_ASAN(__sanitizer_finish_switch_fiber(nullptr, &L->main_stack, &L->main_size);)
  CC_TSAN(__tsan_acquire(&L->start);)
  L->body(L->arg);
  T->st = DONE;
  to_main(true);
  abort();
}
CC_RT void fail(const char* what, const Thread* t, int other = 0) {
  if (L->err[0]) return;
  snprintf(L->err, sizeof L->err, "%s: block(%u,%u,%u) thread %u line %d%s%d", what, t->bid.x, t->bid.y, t->bid.z,
           t->lin, t->line, other ? ", other line " : " #", other);
}

// ------------------------------------------------------------------ barrier, warp collectives
CC_RT void sync_threads(int line) {
  T->line = line;
  T->st = AT_BARRIER;
  CC_TSAN(char* b = &L->bar[L->bar_gen & 1]; __tsan_release(b);)
  to_main(false);
  CC_TSAN(__tsan_acquire(b);)
}
// `all` runs once, in the last lane to arrive; `each` runs in every lane afterwards.
template <class A, class E>
CC_RT void collective(unsigned mask, int line, const uint32_t* in, int nin, bool order, A all, E each) {
  unsigned bit = 1u << T->lane;
  Coll *v = L->coll + T->warp * NCOLL, *c = nullptr;
  (void)order;
  T->line = line;
  if (!(mask & bit)) fail("lane not in its own mask", T);
  for (int i = 0; i < NCOLL && !c; i++)
    if (v[i].used && !v[i].done && v[i].mask == mask && !(v[i].arrived & bit)) c = &v[i];
  for (int i = 0; i < NCOLL && !c; i++)
    if (!v[i].used) {
      c = &v[i];
      c->used = true;
      c->done = false;
      c->mask = mask;
      c->arrived = c->left = 0;
      c->line = line;
    }
  if (c->line != line) fail("lanes of a warp meet at different collectives", T, c->line);
  for (int i = 0; i < nin; i++) c->in[T->lane][i] = in[i];
  c->arrived |= bit;
  CC_TSAN(if (order) __tsan_release(c);)
  if (c->arrived == mask) {
    all(*c);
    c->done = true;
    for (unsigned i = T->warp * 32; i < L->n && i < T->warp * 32 + 32; i++)
      if (L->th[i].coll == c) {
        L->th[i].coll = nullptr;
        L->th[i].st = READY;
      }
  } else {
    T->coll = c;
    T->st = AT_WARP;
    to_main(false);
  }
  CC_TSAN(if (order) __tsan_acquire(c);)
  each(*c);
  c->left |= bit;
  if (c->left == c->mask) c->used = false;
}
CC_RT void sync_warp(unsigned mask, int line) {
  collective(
      mask, line, nullptr, 0, true, [](Coll&) CC_NOSAN {}, [](Coll&) CC_NOSAN {});
}
template <class V, class S>
CC_RT V shuffle(unsigned mask, V v, int line, S src) {
  static_assert(sizeof(V) % 4 == 0 && sizeof(V) <= 16);
  constexpr int N = sizeof(V) / 4;
  union U {
    V v;
    uint32_t w[N];
    U() {}
  } a, r;
  a.v = v;
  int s = src((int)T->lane);
  if (!(mask >> s & 1)) {
    fail("shuffle reads a lane outside its mask", T);
    s = T->lane;
  }
  collective(
      mask, line, a.w, N, false, [](Coll&) CC_NOSAN {},
      [&](Coll& c) CC_NOSAN {
        for (int i = 0; i < N; i++) r.w[i] = c.in[s][i];
      });
  return r.v;
}
CC_RT unsigned ballot(unsigned mask, int p, int line) {
  uint32_t in = p != 0, r = 0;
  collective(
      mask, line, &in, 1, false, [](Coll&) CC_NOSAN {},
      [&](Coll& c) CC_NOSAN {
        for (int l = 0; l < 32; l++)
          if ((mask >> l & 1) && c.in[l][0]) r |= 1u << l;
      });
  return r;
}

// ------------------------------------------------------------------ barriers of the copy engine
CC_RT Barrier& barrier_at(const void* at) {
  for (unsigned i = 0; i < L->nbarriers; i++)
    if (L->barriers[i].at == at) return L->barriers[i];
  fail("a barrier that was not initialised", T);
  if (L->nbarriers == NBARRIERS) abort();
  return L->barriers[L->nbarriers++] = {at, 0, 0, 0};
}
CC_RT void barrier_init(const void* at) {
  if (L->nbarriers == NBARRIERS) abort();
  L->barriers[L->nbarriers++] = {at, 0, 0, 0};
}
CC_RT void barrier_expect(const void* at, size_t bytes) {
  Barrier& b = barrier_at(at);
  if (b.arrived++) fail("a barrier's phase has two arrivals", T);
  b.expected += bytes;
}
CC_RT void push_box(Box box) {
  barrier_at(box.barrier);
  if (L->nboxes == NBOXES) abort();
  L->boxes[L->nboxes++] = box;
}
CC_RT bool take_box(const void* at, Box& box) {
  for (unsigned i = 0; i < L->nboxes; i++)
    if (L->boxes[i].barrier == at) {
      box = L->boxes[i];
      L->boxes[i] = L->boxes[--L->nboxes];
      return true;
    }
  return false;
}
CC_RT bool phase_is_over(const void* at, unsigned parity) { return barrier_at(at).parity != parity; }
CC_RT bool all_boxes_are_queued(const void* at) {
  Barrier& b = barrier_at(at);
  size_t bytes = 0;
  for (unsigned i = 0; i < L->nboxes; i++)
    if (L->boxes[i].barrier == at) bytes += L->boxes[i].rows * 128;
  return b.arrived && bytes == b.expected;
}
CC_RT void end_phase(const void* at) {
  Barrier& b = barrier_at(at);
  b.parity ^= 1;
  b.arrived = 0;
  b.expected = 0;
}
CC_RT void let_others_run(int spins, int line) {
  T->line = line;
  if (spins > 1 << 14) fail("a barrier whose bytes never come", T);
  to_main(false);
}

// ------------------------------------------------------------------ shared memory: heap, exact size, 0xff-filled,
// fresh per block
CC_RT void* fresh(size_t n) {
  void* p = nullptr;
  if (posix_memalign(&p, 1024, n)) abort();
  for (size_t i = 0; i < n; i++) ((volatile unsigned char*)p)[i] = 0xff;
  return p;
}
CC_RT void* shared_alloc(const void* key, size_t bytes) {
  unsigned i = 0;
  while (i < L->nsh && L->sh[i].key != key) i++;
  if (i == NSH) abort();
  if (i == L->nsh) {  // TSan books the allocation as a write: do it as the scheduler, and hand it to the fibers through
                      // `start`
    CC_TSAN(__tsan_switch_to_fiber(L->main_tsan, __tsan_switch_to_fiber_no_sync);)
    L->sh[i].key = key;
    L->sh[i].p = fresh(bytes);
    L->nsh++;
    CC_TSAN(__tsan_release(&L->start); __tsan_switch_to_fiber(T->tsan, __tsan_switch_to_fiber_no_sync);)
  }
  CC_TSAN(__tsan_acquire(&L->start);)
  return L->sh[i].p;
}

// ------------------------------------------------------------------ scheduler
CC_RT void run_block(dim3 bid, uint64_t& rng, std::vector<void*>& keep) {
  Launch& l = *L;
  unsigned n = l.n, ord[1024];
  (void)keep;
  l.bar_gen = 0;
  l.nsh = 0;
  l.nbarriers = l.nboxes = 0;
  l.dyn = l.dyn_bytes ? fresh(l.dyn_bytes) : nullptr;
  CC_TSAN(__tsan_release(&l.start);)
  for (unsigned i = 0; i < n; i++) {
    Thread& t = l.th[i];
    t.bid = bid;
    t.st = READY;
    t.coll = nullptr;
    t.fake = nullptr;
    t.ncp = t.ncpg = 0;
    CC_ASAN(__asan_unpoison_memory_region(t.stack, l.stack);)
    t.sp = init_stack(t.stack + l.stack, fiber_main);
  }
  for (int i = 0; i < (int)((n + 31) / 32) * NCOLL; i++) l.coll[i].used = false;
  while (!l.err[0]) {
    unsigned m = 0, done = 0, bar = 0;
    Thread *b = nullptr, *w = nullptr;
    for (unsigned i = 0; i < n; i++) {
      Thread& t = l.th[i];
      if (t.st == READY) ord[m++] = i;
      else if (t.st == DONE) done++;
      else if (t.st == AT_WARP) w = &t;
      else {
        if (b && b->line != t.line && config.strict) fail("__syncthreads reached at different lines", &t, b->line);
        b = &t;
        bar++;
      }
    }
    if (done == n) break;
    if (!m) {
      if (w) fail("deadlock, warp collective waits for lanes that never come", w);
      else if (done && config.strict) fail("threads exited before a __syncthreads of their block", b);
      l.bar_gen++;
      for (unsigned i = 0; i < n; i++)
        if (l.th[i].st == AT_BARRIER) l.th[i].st = READY;
      continue;
    }
    if (config.order == REVERSE)
      for (unsigned i = 0; i < m / 2; i++) {
        unsigned x = ord[i];
        ord[i] = ord[m - 1 - i];
        ord[m - 1 - i] = x;
      }
    if (config.order == RANDOM)
      for (unsigned i = m; i > 1; i--) {
        rng = rng * 6364136223846793005ull + 1442695040888963407ull;
        unsigned j = (rng >> 33) % i, x = ord[i - 1];
        ord[i - 1] = ord[j];
        ord[j] = x;
      }
    for (unsigned i = 0; i < m && !l.err[0]; i++) resume(&l.th[ord[i]]);
  }
  // under TSan a free() here would order this block before the next: keep until the launch ends
  for (unsigned i = 0; i < l.nsh; i++) { CC_TSAN(keep.push_back(l.sh[i].p);) CC_NOT_TSAN(free(l.sh[i].p);) }
  CC_TSAN(if (l.dyn) keep.push_back(l.dyn);) CC_NOT_TSAN(free(l.dyn);)
}
// A thread's stacks, from one launch to the next; a system has only so many maps, so they end with the thread.
struct Stacks {
  static constexpr size_t GUARD = 4096;
  std::vector<std::pair<char*, size_t>> maps;
  void reach(unsigned n, size_t bytes) {
    while (maps.size() < n) {
      const size_t all = bytes + GUARD;
      void* p = mmap(nullptr, all, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
      if (p == MAP_FAILED) abort();
      mprotect(p, GUARD, PROT_NONE);
      maps.push_back({(char*)p, all});
    }
  }
  char* operator[](unsigned i) { return maps[i].first + GUARD; }
  ~Stacks() {
    for (auto& map : maps) munmap(map.first, map.second);
  }
};
inline thread_local Stacks stacks;
CC_RT std::string launch_raw(dim3 g, dim3 b, size_t smem, void (*body)(void*), void* arg) {
  unsigned n = b.x * b.y * b.z;
  if (!n || n > 1024) return "bad block size";
  Launch* l = (Launch*)calloc(1, sizeof(Launch));
  L = l;
  l->grid = g;
  l->block = b;
  l->dyn_bytes = smem;
  l->body = body;
  l->arg = arg;
  l->n = n;
  l->stack = config.stack;
  l->th = (Thread*)calloc(n, sizeof(Thread));
  l->coll = (Coll*)calloc((n + 31) / 32 * NCOLL, sizeof(Coll));
  stacks.reach(n, l->stack);
  CC_TSAN(l->main_tsan = __tsan_get_current_fiber();)
  for (unsigned i = 0; i < n; i++) {
    Thread& t = l->th[i];
    t.lin = i;
    t.lane = i % 32;
    t.warp = i / 32;
    t.tid = dim3(i % b.x, i / b.x % b.y, i / b.x / b.y);
    t.stack = stacks[i];
    CC_TSAN(t.tsan = __tsan_create_fiber(0);)
  }
  uint64_t rng = config.seed * 0x9E3779B97F4A7C15ull + 1;
  std::vector<void*> keep;
  for (unsigned z = 0; z < g.z; z++)
    for (unsigned y = 0; y < g.y; y++)
      for (unsigned x = 0; x < g.x; x++)
        if (!l->err[0]) run_block(dim3(x, y, z), rng, keep);
  CC_TSAN(for (unsigned i = 0; i < n; i++) {
    __tsan_switch_to_fiber(l->th[i].tsan, __tsan_switch_to_fiber_no_sync);
    __tsan_release(&l->end);
    __tsan_switch_to_fiber(l->main_tsan, __tsan_switch_to_fiber_no_sync);
  } __tsan_acquire(&l->end);
          for (unsigned i = 0; i < n; i++) __tsan_destroy_fiber(l->th[i].tsan); for (void* p
                                                                                     : keep) free(p);)
  std::string e = l->err;
  free(l->th);
  free(l->coll);
  free(l);
  L = nullptr;
  T = nullptr;
  return e;
}

// ------------------------------------------------------------------ launching: typed, and like cuLaunchKernel (void**
// params)
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
  static std::string go(dim3 g, dim3 b, size_t s, void** p, std::index_sequence<I...>) {
    return launch(g, b, s, K, *(std::remove_cv_t<A>*)p[I]...);
  }
  static std::string call(dim3 g, dim3 b, size_t s, void** p, const size_t* sz, size_t n) {
    constexpr size_t want[] = {sizeof(A)...};
    if (n != sizeof...(A)) return "wrong number of kernel arguments";
    for (size_t i = 0; i < n; i++)
      if (sz[i] != want[i]) return "kernel argument " + std::to_string(i) + " has the wrong size";
    return go(g, b, s, p, std::index_sequence_for<A...>{});
  }
};
#define CUDACPU_KERNEL(k) \
  static const bool cudacpu_reg_##k = (cudacpu::registry().push_back({#k, &cudacpu::Caller<&k>::call}), true)
}  // namespace cudacpu
