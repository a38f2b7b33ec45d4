#include "decode.h"

#include <algorithm>

#include "error.h"

namespace barkrt {
namespace {

bool same_candidates(const Step& a, const Step& b) {
  return a.n_parts == b.n_parts &&
         std::equal(a.parts, a.parts + a.n_parts, b.parts, [](const Matrix& x, const Matrix& y) {
           return x.data == y.data && x.rows == y.rows;
         });
}

// Draws for `count` steps with equal candidates. Where one has no distribution, each is drawn
// alone, to find out which.
void draw(Backend& backend, ConstView logits, Step* const* steps, int64_t count) {
  std::vector<SampleParams> params;
  for (int64_t i = 0; i < count; ++i) params.push_back(steps[i]->params);
  std::vector<int32_t> tokens(params.size());
  try {
    backend.sample(tokens.data(), logits, params.data());
    for (int64_t i = 0; i < count; ++i) steps[i]->token = tokens[i];
  } catch (...) {
    for (int64_t i = 0; i < count; ++i) {
      try {
        backend.sample(&steps[i]->token, logits.slice(i, 1), &params[i]);
      } catch (...) {
        steps[i]->error = std::current_exception();
      }
    }
  }
}

}  // namespace

void decode_step(Backend& backend, const GptWeights& weights, const GptScratch& scratch,
                 Step* const* steps, int64_t count) {
  // Neighbours have the same candidates, so that their logits are one product.
  std::vector<Step*> rows(steps, steps + count);
  std::stable_sort(rows.begin(), rows.end(), [](const Step* a, const Step* b) {
    return std::less<const void*>()(a->parts->data, b->parts->data);
  });
  std::vector<int32_t> ids, slots, positions;
  std::vector<KvCache> caches;
  for (const Step* step : rows) {
    ids.push_back(step->id);
    slots.push_back(static_cast<int32_t>(slots.size()));
    positions.push_back(step->position);
    caches.push_back(*step->kv);
  }
  gpt_forward(backend, weights, scratch, caches, {ids.data(), weights.wte.data(), 1},
              {count, slots.data(), positions.data()}, true, 0, {});
  const ConstView h = gpt_final_norm(backend, weights, scratch, 0, count);
  for (int64_t begin = 0, end = 0; begin < count; begin = end) {
    while (end < count && same_candidates(*rows[begin], *rows[end])) ++end;
    const ConstView logits = gpt_logits(backend, scratch, h.slice(begin, end - begin),
                                        rows[begin]->parts, rows[begin]->n_parts);
    draw(backend, logits, rows.data() + begin, end - begin);
  }
}

Generation::Generation(Backend& backend, const GptWeights& weights, const GptScratch& scratch,
                       const KvCache& kv, Engine& engine, Engine::CausalStage stage,
                       const Ticket& ticket, int64_t n_past)
    : backend_(backend),
      weights_(weights),
      scratch_(scratch),
      engine_(engine),
      member_(engine, stage, ticket),
      sequence_(backend, weights, scratch, kv, n_past) {}

int32_t Generation::next(const GptInput& input, int64_t n_rows, const Matrix* parts,
                         int64_t n_parts, const SampleParams& params) {
  if (n_rows == 1 && input.tables == weights_.wte.data() && input.n_tables == 1) {
    BARKRT_CHECK(sequence_.n_past() < sequence_.kv().n_ctx);
    Step step{input.ids[0],
              static_cast<int32_t>(sequence_.n_past()),
              &sequence_.kv(),
              parts,
              n_parts,
              params,
              0,
              nullptr};
    engine_.step(member_, step, [this](Step* const* steps, int64_t count) {
      decode_step(backend_, weights_, scratch_, steps, count);
    });
    sequence_.note_fed();
    if (step.error) std::rethrow_exception(step.error);
    return step.token;
  }
  Engine::Turn turn(member_);
  sequence_.feed(input.ids, input.tables, input.n_tables, n_rows, [&turn] { turn.pass_on(); });
  int32_t token = 0;
  backend_.sample(&token, sequence_.logits(parts, n_parts), &params);
  return token;
}

}  // namespace barkrt
