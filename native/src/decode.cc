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

// Steps with equal candidates, neighbours in the pass.
struct Group {
  int64_t begin = 0, count = 0;
  int64_t n_candidates = 0;
  int64_t first_logit = 0;  // of scratch.wide
};

// What a pass reads from host memory and the tokens it draws, in one stretch.
class PassMemory {
 public:
  PassMemory(int64_t count, int64_t n_layer) {
    const int64_t n_kv = n_layer * count;
    const int64_t kv_bytes = n_kv * static_cast<int64_t>(sizeof(KvLayer));
    const int64_t params_bytes = count * static_cast<int64_t>(sizeof(SampleParams));
    static_assert(sizeof(KvLayer) % 8 == 0 && sizeof(SampleParams) % 8 == 0, "aligned in a row");
    const int64_t input_bytes = kv_bytes + params_bytes + 3 * count * 4;
    block_ = {nullptr, input_bytes, input_bytes + count * 4};
    memory_.resize(static_cast<size_t>(block_.bytes + 7) / 8);
    block_.data = reinterpret_cast<std::byte*>(memory_.data());
    kv = reinterpret_cast<KvLayer*>(block_.data);
    params = reinterpret_cast<SampleParams*>(block_.data + kv_bytes);
    ids = reinterpret_cast<int32_t*>(block_.data + kv_bytes + params_bytes);
    slots = ids + count;
    positions = slots + count;
    tokens = positions + count;
  }
  PassMemory(const PassMemory&) = delete;

  const HostBlock& block() const { return block_; }

  KvLayer* kv;           // (n_layer, count)
  SampleParams* params;  // (count), and so on
  int32_t *ids, *slots, *positions;
  int32_t* tokens;

 private:
  std::vector<uint64_t> memory_;
  HostBlock block_;
};

uint64_t word(const void* p) { return reinterpret_cast<uintptr_t>(p); }

// All that the calls of a pass depend on, besides its host memory.
std::vector<uint64_t> pass_key(const GptWeights& weights, const GptScratch& scratch,
                               const std::vector<Step*>& rows, const std::vector<Group>& groups) {
  std::vector<uint64_t> key = {word(&weights), word(scratch.x), word(scratch.h),
                               word(scratch.wide)};
  for (const Step* step : rows) {
    key.push_back(static_cast<uint64_t>(step->kv->type));
    key.push_back(static_cast<uint64_t>(step->kv->n_ctx));
  }
  for (const Group& group : groups) {
    const Step& step = *rows[group.begin];
    key.push_back(static_cast<uint64_t>(group.count));
    key.push_back(static_cast<uint64_t>(step.n_parts));
    for (int64_t i = 0; i < step.n_parts; ++i) {
      key.push_back(word(step.parts[i].data));
      key.push_back(static_cast<uint64_t>(step.parts[i].rows));
    }
  }
  return key;
}

// A row without a distribution leaves its own id negative, or all of them.
void draw(Backend& backend, int32_t* ids, ConstView logits, const SampleParams* params) {
  try {
    backend.sample(ids, logits, params);
  } catch (const Error& error) {
    if (error.status() != Status::Internal) throw;
    std::fill_n(ids, logits.rows, -1);
  }
}

// Where there is no token yet, the row is drawn alone, to find out whether it is the one.
void answer(Backend& backend, Step& step, int32_t token, ConstView logits) {
  try {
    if (token < 0) backend.sample(&token, logits, &step.params);
    step.token = token;
  } catch (...) {
    step.error = std::current_exception();
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
  const int64_t n_layer = static_cast<int64_t>(weights.blocks.size());
  PassMemory m(count, n_layer);
  std::vector<Group> groups;
  for (int64_t t = 0; t < count; ++t) {
    const Step& step = *rows[t];
    // A device that plays what it has recorded looks at none of these.
    BARKRT_CHECK(step.id < weights.wte[0].rows);
    BARKRT_CHECK(step.position >= 0 && step.position < step.kv->n_ctx);
    BARKRT_CHECK(step.position < weights.wpe.rows);
    m.ids[t] = step.id;
    m.slots[t] = static_cast<int32_t>(t);
    m.positions[t] = step.position;
    m.params[t] = step.params;
    for (int64_t i = 0; i < n_layer; ++i) m.kv[i * count + t] = step.kv->layer(i);
    if (t == 0 || !same_candidates(*rows[t - 1], step)) groups.push_back({t, 0, 0, 0});
    ++groups.back().count;
  }
  int64_t n_logits = 0;
  for (Group& group : groups) {
    const Step& step = *rows[group.begin];
    for (int64_t i = 0; i < step.n_parts; ++i) group.n_candidates += step.parts[i].rows;
    for (int64_t t = group.begin; t < group.begin + group.count; ++t)
      BARKRT_CHECK(rows[t]->params.eos < group.n_candidates);
    group.first_logit = n_logits;
    n_logits += group.count * group.n_candidates;
  }

  backend.repeat(pass_key(weights, scratch, rows, groups), m.block(), [&] {
    gpt_forward(backend, weights, scratch, m.kv, count, {m.ids, weights.wte.data(), 1},
                {count, m.slots, m.positions}, true, {0, count}, {});
    const ConstView h = gpt_final_norm(backend, weights, scratch, 0, count);
    for (const Group& group : groups) {
      const Step& step = *rows[group.begin];
      const ConstView logits = gpt_logits(backend, scratch, h.slice(group.begin, group.count),
                                          step.parts, step.n_parts, group.first_logit);
      draw(backend, m.tokens + group.begin, logits, m.params + group.begin);
    }
  });
  for (const Group& group : groups) {
    const ConstView logits =
        view(scratch.wide + group.first_logit, group.count, group.n_candidates);
    for (int64_t i = 0; i < group.count; ++i)
      answer(backend, *rows[group.begin + i], m.tokens[group.begin + i], logits.slice(i, 1));
  }
}

Generation::Generation(const Model& model, Engine::CausalStage stage, const GptScratch& scratch,
                       const KvCache& kv, const Ticket& ticket, int64_t n_past)
    : model_(model),
      weights_(model.weights(stage)),
      steps_(model.steps(stage)),
      member_(model.engine(), stage, ticket),
      sequence_(model.backend(), weights_, scratch, kv, n_past) {}

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
    model_.engine().step(member_, step, [this](Step* const* steps, int64_t count) {
      decode_step(model_.backend(), weights_, steps_, steps, count);
    });
    sequence_.note_fed();
    if (step.error) std::rethrow_exception(step.error);
    return step.token;
  }
  Engine::Turn turn(member_);
  sequence_.feed(input.ids, input.tables, input.n_tables, n_rows, [&turn] { turn.pass_on(); });
  int32_t token = 0;
  model_.backend().sample(&token, sequence_.logits(parts, n_parts), &params);
  return token;
}

}  // namespace barkrt
