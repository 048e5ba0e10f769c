// copy_engine.h - the barriers and the queued boxes of the copy engine (TMA).
#pragma once
#include "fibers.h"

namespace cudacpu {
CC_RT Barrier& barrier_at(const void* at) {
  for (unsigned i = 0; i < the_launch->barrier_count; i++)
    if (the_launch->barriers[i].at == at) return the_launch->barriers[i];
  fail("barrier not initialized", the_thread);
  if (the_launch->barrier_count == MAX_BARRIERS) abort();
  return the_launch->barriers[the_launch->barrier_count++] = {at, 0, 0, 0};
}
CC_RT void barrier_init(const void* at) {
  if (the_launch->barrier_count == MAX_BARRIERS) abort();
  the_launch->barriers[the_launch->barrier_count++] = {at, 0, 0, 0};
}
CC_RT void barrier_expect(const void* at, size_t bytes) {
  Barrier& b = barrier_at(at);
  if (b.arrived++) fail("two arrivals in one phase of a barrier", the_thread);
  b.expected += bytes;
}
CC_RT void push_box(Box box) {
  barrier_at(box.barrier);
  if (the_launch->box_count == MAX_BOXES) abort();
  the_launch->boxes[the_launch->box_count++] = box;
}
CC_RT bool take_box(const void* at, Box& box) {
  for (unsigned i = 0; i < the_launch->box_count; i++)
    if (the_launch->boxes[i].barrier == at) {
      box = the_launch->boxes[i];
      the_launch->boxes[i] = the_launch->boxes[--the_launch->box_count];
      return true;
    }
  return false;
}
CC_RT bool phase_is_over(const void* at, unsigned parity) { return barrier_at(at).parity != parity; }
CC_RT bool all_boxes_are_queued(const void* at) {
  Barrier& b = barrier_at(at);
  size_t bytes = 0;
  for (unsigned i = 0; i < the_launch->box_count; i++)
    if (the_launch->boxes[i].barrier == at) bytes += the_launch->boxes[i].rows * 128;
  return b.arrived && bytes == b.expected;
}
CC_RT void end_phase(const void* at) {
  Barrier& b = barrier_at(at);
  b.parity ^= 1;
  b.arrived = 0;
  b.expected = 0;
}
CC_RT void yield_to_others(int spins, int line) {
  the_thread->line = line;
  if (spins > 1 << 14) fail("barrier waits for bytes that never arrive", the_thread);
  switch_to_scheduler(false);
}
}  // namespace cudacpu
