// scheduler.h - runs the blocks of a launch one after another, and the threads of a block in turn.
#pragma once
#include "shared_memory.h"
#include <string>
#include <utility>
#include <vector>
#include <sys/mman.h>

namespace cudacpu {
// ---------------------------------------------------------------- A block
CC_RT void start_block(dim3 bid) {
  Launch& l = *the_launch;
  const unsigned n = l.thread_count;
  l.barrier_generation = 0;
  l.shared_count = 0;
  l.barrier_count = l.box_count = 0;
  l.dyn = l.dyn_bytes ? allocate_poisoned(l.dyn_bytes) : nullptr;
  CC_TSAN(__tsan_release(&l.start);)
  for (unsigned i = 0; i < n; i++) {
    Thread& t = l.threads[i];
    t.bid = bid;
    t.state = READY;
    t.collective = nullptr;
    t.asan_stack = nullptr;
    t.copy_count = t.group_count = 0;
    CC_ASAN(__asan_unpoison_memory_region(t.stack, l.stack);)
    t.stack_pointer = init_stack(t.stack + l.stack, fiber_main);
  }
  for (int i = 0; i < (int)((n + 31) / 32) * COLLECTIVES_PER_WARP; i++) l.collectives[i].used = false;
}
// Frees a block's shared memory. Under TSan, a free() here would order this block before the next, so the memory waits
// in `freed_later` until the launch ends.
CC_RT void end_block(std::vector<void*>& freed_later) {
  Launch& l = *the_launch;
  (void)freed_later;
  for (unsigned i = 0; i < l.shared_count; i++) {
    CC_TSAN(freed_later.push_back(l.shared_arrays[i].p);)
    CC_NOT_TSAN(free(l.shared_arrays[i].p);)
  }
  CC_TSAN(if (l.dyn) freed_later.push_back(l.dyn);) CC_NOT_TSAN(free(l.dyn);)
}

// ---------------------------------------------------------------- Turns
// The threads that can run, and threads that wait.
struct Turn {
  unsigned ready[1024], ready_count, done_count;
  const Thread *at_barrier, *at_warp;  // the last of each kind
};
CC_RT void classify_threads(Turn& turn) {
  Launch& l = *the_launch;
  turn.ready_count = turn.done_count = 0;
  turn.at_barrier = turn.at_warp = nullptr;
  for (unsigned i = 0; i < l.thread_count; i++) {
    Thread& t = l.threads[i];
    if (t.state == READY) turn.ready[turn.ready_count++] = i;
    else if (t.state == DONE) turn.done_count++;
    else if (t.state == AT_WARP) turn.at_warp = &t;
    else {
      const Thread* other = turn.at_barrier;
      if (other && other->line != t.line && config.strict)
        fail("__syncthreads reached at different lines", &t, other->line);
      turn.at_barrier = &t;
    }
  }
}
// Releases the threads that wait at a __syncthreads. Called when no thread can run.
CC_RT void open_barrier(const Turn& turn) {
  Launch& l = *the_launch;
  if (turn.at_warp) fail("deadlock, warp collective waits for lanes that never arrive", turn.at_warp);
  else if (turn.done_count && config.strict)
    fail("threads exited before a __syncthreads of their block", turn.at_barrier);
  l.barrier_generation++;
  for (unsigned i = 0; i < l.thread_count; i++)
    if (l.threads[i].state == AT_BARRIER) l.threads[i].state = READY;
}
CC_RT void swap_threads(unsigned& a, unsigned& b) {
  const unsigned x = a;
  a = b;
  b = x;
}
CC_RT void order_threads(Turn& turn, uint64_t& rng) {
  const unsigned n = turn.ready_count;
  if (config.order == REVERSE)
    for (unsigned i = 0; i < n / 2; i++) swap_threads(turn.ready[i], turn.ready[n - 1 - i]);
  if (config.order == RANDOM)
    for (unsigned i = n; i > 1; i--) {
      rng = rng * 6364136223846793005ull + 1442695040888963407ull;
      swap_threads(turn.ready[i - 1], turn.ready[(rng >> 33) % i]);
    }
}
CC_RT void run_block(dim3 bid, uint64_t& rng, std::vector<void*>& freed_later) {
  Launch& l = *the_launch;
  start_block(bid);
  Turn turn;
  while (!l.err[0]) {
    classify_threads(turn);
    if (turn.done_count == l.thread_count) break;
    if (!turn.ready_count) {
      open_barrier(turn);
      continue;
    }
    order_threads(turn, rng);
    for (unsigned i = 0; i < turn.ready_count && !l.err[0]; i++) resume(&l.threads[turn.ready[i]]);
  }
  end_block(freed_later);
}

// ---------------------------------------------------------------- A launch
// The fibers' stacks, kept from one launch to the next. The OS limits the number of mappings, so the stacks are
// unmapped when the OS thread ends.
struct Stacks {
  static constexpr size_t GUARD = 4096;
  std::vector<std::pair<char*, size_t>> maps;
  void ensure(unsigned n, size_t bytes) {
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
CC_RT void create_threads(Launch& l) {
  const unsigned n = l.thread_count;
  const dim3 b = l.block;
  l.threads = (Thread*)calloc(n, sizeof(Thread));
  l.collectives = (Collective*)calloc((n + 31) / 32 * COLLECTIVES_PER_WARP, sizeof(Collective));
  stacks.ensure(n, l.stack);
  CC_TSAN(l.main_tsan_fiber = __tsan_get_current_fiber();)
  for (unsigned i = 0; i < n; i++) {
    Thread& t = l.threads[i];
    t.index = i;
    t.lane = i % 32;
    t.warp = i / 32;
    t.tid = dim3(i % b.x, i / b.x % b.y, i / b.x / b.y);
    t.stack = stacks[i];
    CC_TSAN(t.tsan_fiber = __tsan_create_fiber(0);)
  }
}
#if defined(CC_UNDER_TSAN)
// Orders the whole launch before everything that the caller does next.
CC_RT void join_fibers(Launch& l) {
  for (unsigned i = 0; i < l.thread_count; i++) {
    __tsan_switch_to_fiber(l.threads[i].tsan_fiber, __tsan_switch_to_fiber_no_sync);
    __tsan_release(&l.end);
    __tsan_switch_to_fiber(l.main_tsan_fiber, __tsan_switch_to_fiber_no_sync);
  }
  __tsan_acquire(&l.end);
  for (unsigned i = 0; i < l.thread_count; i++) __tsan_destroy_fiber(l.threads[i].tsan_fiber);
}
#endif
// Runs `body(arg)` in every thread. Returns the error; an empty string if there is none.
CC_RT std::string launch_raw(dim3 g, dim3 b, size_t smem, void (*body)(void*), void* arg) {
  const unsigned n = b.x * b.y * b.z;
  if (!n || n > 1024) return "block size must be from 1 to 1024 threads";
  Launch* l = (Launch*)calloc(1, sizeof(Launch));
  the_launch = l;
  l->grid = g;
  l->block = b;
  l->dyn_bytes = smem;
  l->body = body;
  l->arg = arg;
  l->thread_count = n;
  l->stack = config.stack;
  create_threads(*l);
  uint64_t rng = config.seed * 0x9E3779B97F4A7C15ull + 1;
  std::vector<void*> freed_later;
  for (unsigned z = 0; z < g.z; z++)
    for (unsigned y = 0; y < g.y; y++)
      for (unsigned x = 0; x < g.x; x++)
        if (!l->err[0]) run_block(dim3(x, y, z), rng, freed_later);
  CC_TSAN(join_fibers(*l); for (void* p : freed_later) free(p);)
  std::string error = l->err;
  free(l->threads);
  free(l->collectives);
  free(l);
  the_launch = nullptr;
  the_thread = nullptr;
  return error;
}
}  // namespace cudacpu
