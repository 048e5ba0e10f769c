// check.cpp - runs every kernel in every thread order, for the sanitizers. There must be no finding and no NaN, and the
// bits must be the same in every order.
// The Rust tests check the numbers. -DONLY -DCHECK_name builds only the kernel `name`.
#ifndef ONLY
#define CHECK_embedding
#define CHECK_fp8
#define CHECK_kv_cache
#define CHECK_logprobs
#define CHECK_paged_attention
#define CHECK_paged_decode
#define CHECK_rank_sum
#define CHECK_rms_norm
#define CHECK_silu_mul
#endif
#include "check/attention.h"
#include "check/logprobs.h"
#include "check/rows.h"

int main() {
  for (const auto check : checks()) check();
}
