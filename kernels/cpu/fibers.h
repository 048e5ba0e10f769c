// fibers.h - a launch, and its CUDA threads as fibers.
//
// One CUDA thread is one fiber; the blocks of a grid run one after another on the calling OS thread.
// Under ASan/UBSan every access is checked. Under TSan each fiber is a "thread" and only __syncthreads,
// __syncwarp and mbarriers order memory, so a missing barrier is reported in any thread order.
// Shim code that fibers reach uses no std:: containers, because their instantiations would be instrumented.
#pragma once
#include "cuda_types.h"
#include "sanitizers.h"
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>

namespace cudacpu {
// ---------------------------------------------------------------- State
enum Order { FORWARD, REVERSE, RANDOM };
struct Config {
  int order = RANDOM;
  uint64_t seed = 1;
  bool strict = true;
  size_t stack = 128 << 10;
};
inline thread_local Config config;

// One instance of a warp collective: shuffle, vote, mma, ldmatrix, syncwarp.
struct Collective {
  unsigned mask, arrived, left;
  int line;
  bool used, done;
  uint32_t in[32][10], out[32][4];
};
enum ThreadState : uint8_t { DONE, READY, AT_BARRIER, AT_WARP };
struct Copy {
  void* dst;
  const void* src;
};
// A CUDA thread, run as a fiber.
struct Thread {
  dim3 tid, bid;
  unsigned index, lane, warp;
  int line;  // the line of the call in which the thread waits
  ThreadState state;
  Collective* collective;  // the collective that the thread waits for
  void *stack_pointer, *asan_stack, *tsan_fiber;
  char* stack;
  Copy copies[256];  // pending cp.async copies
  unsigned copy_count, group_ends[8], group_count;
};
// A barrier in shared memory that counts the copy engine's bytes.
struct Barrier {
  const void* at;
  unsigned parity, arrived;
  size_t expected;
};
// A pending fetch of the copy engine, 128 bytes per row.
struct Box {
  const void* barrier;
  char* dst;
  const char* src;
  size_t pitch;
  unsigned rows;
};
constexpr int COLLECTIVES_PER_WARP = 34, MAX_SHARED_ARRAYS = 32, MAX_BARRIERS = 8, MAX_BOXES = 64;
// A launch, and its running block.
struct Launch {
  dim3 grid, block;
  size_t dyn_bytes, stack;
  void* dyn;
  unsigned thread_count, barrier_generation, shared_count;
  Thread* threads;
  Collective* collectives;  // [warps][COLLECTIVES_PER_WARP]
  struct {
    const void* key;
    void* p;
  } shared_arrays[MAX_SHARED_ARRAYS];
  Barrier barriers[MAX_BARRIERS];
  Box boxes[MAX_BOXES];
  unsigned barrier_count, box_count;
  void (*body)(void*);
  void* arg;
  void *main_stack_pointer, *main_asan_stack, *main_tsan_fiber;
  const void* main_stack;
  size_t main_size;
  char barrier_tags[2], start, end;  // addresses by which TSan orders threads
  char err[300];
};
inline thread_local Launch* the_launch = nullptr;
inline thread_local Thread* the_thread = nullptr;

// ---------------------------------------------------------------- Switching fibers
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
#error "fiber switching is not implemented for this CPU"
#endif
// Switches back to the scheduler.
CC_RT void switch_to_scheduler(bool finished) {
  Thread* t = the_thread;
  (void)finished;
  CC_ASAN(__sanitizer_start_switch_fiber(finished ? nullptr : &t->asan_stack, the_launch->main_stack,
                                         the_launch->main_size);)
  CC_TSAN(__tsan_switch_to_fiber(the_launch->main_tsan_fiber, __tsan_switch_to_fiber_no_sync);)
  cudacpu_switch(&t->stack_pointer, the_launch->main_stack_pointer);
  CC_ASAN(__sanitizer_finish_switch_fiber(t->asan_stack, nullptr, nullptr);)
}
CC_RT void resume(Thread* t) {
  the_thread = t;
  CC_ASAN(__sanitizer_start_switch_fiber(&the_launch->main_asan_stack, t->stack, the_launch->stack);)
  CC_TSAN(__tsan_switch_to_fiber(t->tsan_fiber, __tsan_switch_to_fiber_no_sync);)
  cudacpu_switch(&the_launch->main_stack_pointer, t->stack_pointer);
  CC_ASAN(__sanitizer_finish_switch_fiber(the_launch->main_asan_stack, nullptr, nullptr);)
}
CC_RT void fiber_main() {
  CC_ASAN(__sanitizer_finish_switch_fiber(nullptr, &the_launch->main_stack, &the_launch->main_size);)
  CC_TSAN(__tsan_acquire(&the_launch->start);)
  the_launch->body(the_launch->arg);
  the_thread->state = DONE;
  switch_to_scheduler(true);
  abort();
}
// Ends the launch with an error. Keeps only the first error.
CC_RT void fail(const char* what, const Thread* t, int other = 0) {
  if (the_launch->err[0]) return;
  snprintf(the_launch->err, sizeof the_launch->err, "%s: block(%u,%u,%u) thread %u line %d%s%d", what, t->bid.x,
           t->bid.y, t->bid.z, t->index, t->line, other ? ", other line " : " #", other);
}
}  // namespace cudacpu
