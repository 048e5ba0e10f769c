// check.cpp - every kernel in every thread order, for the sanitizers: no complaint, no NaN, always the same bits.
// The Rust tests check the numbers. With -DONLY -DCHECK_name just that kernel is built.
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
