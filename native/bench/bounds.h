// bounds.h: the least time a generation could take: every stage exactly at a roof of this machine,
// with softmax, norms, sampling and the handing over between threads for nothing.
#pragma once

#include "model.h"
#include "roofs.h"
#include "voice.h"

namespace barkrt::bench {

// Seconds.
struct StageBounds {
  double semantic_prefill = 0, semantic_decode = 0;
  double coarse_prefill = 0, coarse_decode = 0;
  double fine = 0, codec = 0;
};

// voice: NULL for none.
StageBounds stage_bounds(const Model& model, const Roofs& roofs, int64_t n_semantic,
                         int64_t n_frames, const Voice* voice);

}  // namespace barkrt::bench
