// teacher.h: the logits of each stage along tokens that were chosen before: what a model would have
// said at every step of another model's run.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "stages.h"

namespace barkrt::bench {

// One row of logits over the legal ids, in host memory, valid during the call.
using OnLogits = std::function<void(const float* logits, int64_t n)>;

// A row for each token, and one more for the end if the run could have gone on. The end token is
// the last candidate.
void semantic_logits(const StageRun& run, const std::vector<int32_t>& text_ids,
                     const std::vector<int32_t>& tokens, const OnLogits& on_logits);

// A row for each token of run_coarse's result. No voice.
void coarse_logits(const StageRun& run, const std::vector<int32_t>& semantic,
                   const std::vector<int32_t>& tokens, const OnLogits& on_logits);

// A row for each frame of each predicted codebook, codebook by codebook, as the first window sees
// them. No voice; at most input_length frames. window is (n_fine_codebook, input_length), what the
// window holds in the end: empty, it is filled with the likeliest codes, padding too.
void fine_logits(const StageRun& run, const Codes& coarse, std::vector<int32_t>& window,
                 const OnLogits& on_logits);

}  // namespace barkrt::bench
