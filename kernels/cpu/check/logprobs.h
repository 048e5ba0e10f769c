// logprobs.h - check of the three log-probability kernels, one after another.
#pragma once
#include "harness.h"

#ifdef CHECK_logprobs
#include "../../logprobs.cu"
KERNEL_CHECK(logprobs) {
  for (int vocabulary : {33, 4100})
    check("logprobs " + std::to_string(vocabulary), [=](Result& r) {
      const int rows = 2, tiles = (vocabulary + COLUMNS - 1) / COLUMNS, top = 5;
      const long long stride = vocabulary + 3;
      Buffer<float> logits((rows - 1) * stride + vocabulary);
      for (size_t i = 0; i < logits.n; i++) logits[i] = random_float() * 9;
      Buffer<int> targets(rows), ids(rows * tiles * top), ranks(rows), top_ids(rows * top);
      targets[0] = vocabulary - 1;
      Buffer<unsigned> members(rows * ((vocabulary + 31) / 32));
      members[1] = 1;
      members[members.n - 1] = 1;
      Buffer<LogprobPart> parts(rows * tiles);
      Buffer<float> tops(rows * tiles * top), logprobs(rows), entropies(rows), sets(rows), top_logprobs(rows * top);
      Buffer<float> target_logits(rows);
      r.run(logprobs_target, 1, 256, 0,
            LogprobTargetArgs{target_logits, logits, targets, stride, rows, 0, vocabulary});
      r.run(logprobs_tile, dim3(tiles, rows), 256, 0,
            LogprobTileArgs{parts, tops, ids, logits, target_logits, members, stride, 0, vocabulary, 1, top});
      r.run(logprobs_combine, rows, 32, 0,
            LogprobCombineArgs{logprobs, ranks, entropies, sets, top_logprobs, top_ids, parts, tops, ids, target_logits,
                               1, tiles, top});
      r.out(logprobs);
      r.out(ranks);
      r.out(entropies);
      r.out(sets);
      r.out(top_logprobs);
      r.out(top_ids);
    });
}
#endif

