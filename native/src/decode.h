// decode.h: the tokens of a request in a causal stage, one after the other, in passes that it may
// share with other requests.
#pragma once

#include <cstdint>
#include <exception>

#include "engine.h"
#include "gpt.h"
#include "model.h"
#include "sampling.h"

namespace barkrt {

// One sequence's row of a pass, and the token drawn after it.
struct Step {
  int32_t id = 0;  // fed
  int32_t position = 0;
  const KvCache* kv = nullptr;
  const Matrix* parts = nullptr;  // of the output head: the candidates, side by side
  int64_t n_parts = 0;
  SampleParams params;
  int32_t token = 0;         // index into the candidates
  std::exception_ptr error;  // of the draw, which then has no token
};

// One pass over the rows of some sequences, and a draw for each. scratch has room for `count` rows
// and their logits. Throws what concerns all of them.
void decode_step(Backend& backend, const GptWeights& weights, const GptScratch& scratch,
                 Step* const* steps, int64_t count);

// A sequence that grows by its own tokens.
class Generation {
 public:
  // scratch is for prompts, with room for one row of logits; kv holds the first n_past positions
  // already.
  Generation(const Model& model, Engine::CausalStage stage, const GptScratch& scratch,
             const KvCache& kv, const Ticket& ticket, int64_t n_past = 0);

  // Forgets the positions from n_past on.
  void rewind(int64_t n_past) { sequence_.rewind(n_past); }
  // Feeds n_rows rows and draws the token after the last one: an index into the candidates, which
  // are parts of the output head, side by side. A single id of the stage's own table shares its
  // pass with those of other requests. Cancelled when the request is stopped.
  int32_t next(const GptInput& input, int64_t n_rows, const Matrix* parts, int64_t n_parts,
               const SampleParams& params);

 private:
  const Model& model_;
  const GptWeights& weights_;
  const GptScratch& steps_;  // the model's, for one step at a time
  Engine::Member member_;
  Sequence sequence_;
};

}  // namespace barkrt
