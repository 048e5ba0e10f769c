// collectives.h - __syncthreads, and the collective operations of a warp's lanes.
#pragma once
#include "fibers.h"

namespace cudacpu {
CC_RT void sync_threads(int line) {
  the_thread->line = line;
  the_thread->state = AT_BARRIER;
  CC_TSAN(char* b = &the_launch->barrier_tags[the_launch->barrier_generation & 1]; __tsan_release(b);)
  switch_to_scheduler(false);
  CC_TSAN(__tsan_acquire(b);)
}
// Waits until all lanes of `mask` have arrived. `complete` runs once, in the last lane to arrive; `read` then runs in
// every lane. If `order` is set, the collective also orders the lanes' memory accesses.
template <class A, class E>
CC_RT void collective(unsigned mask, int line, const uint32_t* in, int nin, bool order, A complete, E read) {
  unsigned bit = 1u << the_thread->lane;
  Collective *v = the_launch->collectives + the_thread->warp * COLLECTIVES_PER_WARP, *c = nullptr;
  (void)order;
  the_thread->line = line;
  if (!(mask & bit)) fail("lane not in its own mask", the_thread);
  for (int i = 0; i < COLLECTIVES_PER_WARP && !c; i++)
    if (v[i].used && !v[i].done && v[i].mask == mask && !(v[i].arrived & bit)) c = &v[i];
  for (int i = 0; i < COLLECTIVES_PER_WARP && !c; i++)
    if (!v[i].used) {
      c = &v[i];
      c->used = true;
      c->done = false;
      c->mask = mask;
      c->arrived = c->left = 0;
      c->line = line;
    }
  if (c->line != line) fail("lanes of a warp meet at different collectives", the_thread, c->line);
  for (int i = 0; i < nin; i++) c->in[the_thread->lane][i] = in[i];
  c->arrived |= bit;
  CC_TSAN(if (order) __tsan_release(c);)
  if (c->arrived == mask) {
    complete(*c);
    c->done = true;
    for (unsigned i = the_thread->warp * 32; i < the_launch->thread_count && i < the_thread->warp * 32 + 32; i++)
      if (the_launch->threads[i].collective == c) {
        the_launch->threads[i].collective = nullptr;
        the_launch->threads[i].state = READY;
      }
  } else {
    the_thread->collective = c;
    the_thread->state = AT_WARP;
    switch_to_scheduler(false);
  }
  CC_TSAN(if (order) __tsan_acquire(c);)
  read(*c);
  c->left |= bit;
  if (c->left == c->mask) c->used = false;
}
CC_RT void sync_warp(unsigned mask, int line) {
  collective(
      mask, line, nullptr, 0, true, [](Collective&) CC_NOSAN {}, [](Collective&) CC_NOSAN {});
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
  int s = src((int)the_thread->lane);
  if (!(mask >> s & 1)) {
    fail("shuffle reads a lane outside its mask", the_thread);
    s = the_thread->lane;
  }
  collective(
      mask, line, a.w, N, false, [](Collective&) CC_NOSAN {},
      [&](Collective& c) CC_NOSAN {
        for (int i = 0; i < N; i++) r.w[i] = c.in[s][i];
      });
  return r.v;
}
CC_RT unsigned ballot(unsigned mask, int p, int line) {
  uint32_t in = p != 0, r = 0;
  collective(
      mask, line, &in, 1, false, [](Collective&) CC_NOSAN {},
      [&](Collective& c) CC_NOSAN {
        for (int l = 0; l < 32; l++)
          if ((mask >> l & 1) && c.in[l][0]) r |= 1u << l;
      });
  return r;
}
}  // namespace cudacpu
