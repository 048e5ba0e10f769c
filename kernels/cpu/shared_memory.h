// shared_memory.h - shared arrays, allocated on the heap for each block, of exact size and filled with 0xff.
#pragma once
#include "fibers.h"

namespace cudacpu {
CC_RT void* allocate_poisoned(size_t n) {
  void* p = nullptr;
  if (posix_memalign(&p, 1024, n)) abort();
  for (size_t i = 0; i < n; i++) ((volatile unsigned char*)p)[i] = 0xff;
  return p;
}
CC_RT void* shared_alloc(const void* key, size_t bytes) {
  Launch& l = *the_launch;
  unsigned i = 0;
  while (i < l.shared_count && l.shared_arrays[i].key != key) i++;
  if (i == MAX_SHARED_ARRAYS) abort();
  if (i == l.shared_count) {
    // TSan counts the allocation as a write, so the scheduler does it and releases it to the fibers through `start`.
    CC_TSAN(__tsan_switch_to_fiber(l.main_tsan_fiber, __tsan_switch_to_fiber_no_sync);)
    l.shared_arrays[i].key = key;
    l.shared_arrays[i].p = allocate_poisoned(bytes);
    l.shared_count++;
    CC_TSAN(__tsan_release(&l.start); __tsan_switch_to_fiber(the_thread->tsan_fiber, __tsan_switch_to_fiber_no_sync);)
  }
  CC_TSAN(__tsan_acquire(&l.start);)
  return l.shared_arrays[i].p;
}
}  // namespace cudacpu
