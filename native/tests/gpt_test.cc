// gpt_test.cc: the transformer against a plain double-precision one, and its rows against each
// other.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "error.h"
#include "reference.h"
#include "session.h"
#include "synthetic.h"

namespace barkrt::test {
namespace {

using Rows64 = std::vector<std::vector<double>>;  // (T, C)

Rows64 linear(const Rows64& x, const Linear& w) {
  const float* weight = static_cast<const float*>(w.weight.data);
  Rows64 y(x.size(), std::vector<double>(w.weight.rows));
  for (size_t t = 0; t < x.size(); ++t)
    for (int64_t n = 0; n < w.weight.rows; ++n) {
      double sum = w.bias ? w.bias[n] : 0;
      for (int64_t k = 0; k < w.weight.cols; ++k) sum += x[t][k] * weight[n * w.weight.cols + k];
      y[t][n] = sum;
    }
  return y;
}

Rows64 norm(const Rows64& x, const Norm& w) {
  Rows64 y = x;
  for (auto& row : y) {
    const double n = static_cast<double>(row.size());
    const double mean = std::accumulate(row.begin(), row.end(), 0.0) / n;
    double var = 0;
    for (const double v : row) var += (v - mean) * (v - mean);
    const double scale = 1 / std::sqrt(var / n + 1e-5);
    for (size_t c = 0; c < row.size(); ++c)
      row[c] = (row[c] - mean) * scale * w.weight[c] + (w.bias ? w.bias[c] : 0);
  }
  return y;
}

void add(Rows64& x, const Rows64& y) {
  for (size_t t = 0; t < x.size(); ++t)
    for (size_t c = 0; c < x[t].size(); ++c) x[t][c] += y[t][c];
}

Rows64 attention(const Rows64& qkv, int64_t n_head, bool causal) {
  const int64_t n_rows = static_cast<int64_t>(qkv.size());
  const int64_t n_embd = static_cast<int64_t>(qkv[0].size()) / 3, size = n_embd / n_head;
  Rows64 out(n_rows, std::vector<double>(n_embd, 0.0));
  for (int64_t h = 0; h < n_head; ++h)
    for (int64_t t = 0; t < n_rows; ++t) {
      const int64_t end = causal ? t + 1 : n_rows;
      std::vector<double> p(end);
      double total = 0;
      for (int64_t s = 0; s < end; ++s) {
        double dot = 0;
        for (int64_t d = h * size; d < (h + 1) * size; ++d) dot += qkv[t][d] * qkv[s][n_embd + d];
        total += p[s] = std::exp(dot / std::sqrt(static_cast<double>(size)));
      }
      for (int64_t s = 0; s < end; ++s)
        for (int64_t d = h * size; d < (h + 1) * size; ++d)
          out[t][d] += p[s] / total * qkv[s][2 * n_embd + d];
    }
  return out;
}

// Final-norm rows of one sequence.
Rows64 reference_forward(const GptWeights& w, const std::vector<int32_t>& ids, int64_t n_tables,
                         bool causal) {
  const int64_t n_rows = static_cast<int64_t>(ids.size()) / n_tables, n = w.n_embd;
  Rows64 x(n_rows, std::vector<double>(n));
  for (int64_t t = 0; t < n_rows; ++t)
    for (int64_t c = 0; c < n; ++c) {
      x[t][c] = static_cast<const float*>(w.wpe.data)[t * n + c];
      for (int64_t s = 0; s < n_tables; ++s) {
        const Matrix& table = w.wte.size() == 1 ? w.wte[0] : w.wte[s];
        const int32_t id = ids[s * n_rows + t];
        if (id >= 0) x[t][c] += static_cast<const float*>(table.data)[id * n + c];
      }
    }
  for (const BlockWeights& b : w.blocks) {
    add(x, linear(attention(linear(norm(x, b.ln_1), b.c_attn), w.n_head, causal), b.attn_c_proj));
    Rows64 hidden = linear(norm(x, b.ln_2), b.c_fc);
    for (auto& row : hidden)
      for (double& v : row) v = v / 2 * (1 + std::erf(v / std::sqrt(2.0)));
    add(x, linear(hidden, b.mlp_c_proj));
  }
  return norm(x, w.ln_f);
}

// Scratch and cache of one sequence.
struct Memory {
  Memory(Backend& backend, const GptWeights& w, int64_t n_rows, int64_t n_ctx,
         DType type = DType::F32) {
    scratch = GptScratch::plan(w.n_embd, n_rows, n_rows, w.lm_head[0].rows);
    kv = {nullptr, type, static_cast<int64_t>(w.blocks.size()), n_ctx, w.n_embd, w.n_head};
    buffer = Buffer(backend, account, Category::Activations, scratch.bytes() + kv.bytes());
    auto* base = static_cast<std::byte*>(buffer.data());
    scratch.place(base);
    kv.base = base + scratch.bytes();
  }
  MemoryAccount account;
  GptScratch scratch;
  KvCache kv;
  Buffer buffer;
};

std::vector<int32_t> some_ids(int64_t n, int64_t vocabulary, int32_t salt = 0) {
  std::vector<int32_t> ids;
  for (int64_t i = 0; i < n; ++i)
    ids.push_back(static_cast<int32_t>((31 * i * i + 17 * i + 5 + salt) % vocabulary));
  return ids;
}

// Rows of device memory, one after the other.
std::vector<float> to_vector(const SyntheticModel& m, ConstView x) {
  std::vector<float> out(static_cast<size_t>(x.rows * x.cols));
  for (int64_t t = 0; t < x.rows; ++t)
    m.model->backend().download(out.data() + t * x.cols, x.row(t), x.cols * 4);
  return out;
}

class GptOnEach : public reference::EveryInstructionSet {
 protected:
  static SyntheticModel model(const Config& config, DType matrices = DType::F32) {
    SyntheticOptions options;
    options.matrices = matrices, options.instruction_set = GetParam();
    return synthetic_model(config, 2, options);
  }
};
BARKRT_EVERY_INSTRUCTION_SET(GptOnEach);

TEST_P(GptOnEach, CausalForwardEqualsThePlainOne) {
  for (const Config& config : {small_config(), odd_config()}) {
    const SyntheticModel m = model(config), on_host = synthetic_model(config);
    const GptWeights& w = m.model->weights().coarse;
    const std::vector<int32_t> ids = some_ids(40, config.coarse.gpt.n_vocab_in);
    const Rows64 expected = reference_forward(on_host.model->weights().coarse, ids, 1, true);
    Memory memory(m.model->backend(), w, 40, 40);
    std::vector<int32_t> slots(40, 0), positions(40);
    std::iota(positions.begin(), positions.end(), 0);
    gpt_forward(m.model->backend(), w, memory.scratch, {memory.kv}, {ids.data(), w.wte.data(), 1},
                {40, slots.data(), positions.data()}, true, {0, 40}, {});
    const std::vector<float> h =
        to_vector(m, gpt_final_norm(m.model->backend(), w, memory.scratch, 0, 40));
    for (int64_t t = 0; t < 40; ++t)
      for (int64_t c = 0; c < w.n_embd; ++c)
        ASSERT_NEAR(h[t * w.n_embd + c], expected[t][c], 1e-5)
            << config.name << " " << t << " " << c;
  }
}

TEST(Gpt, FineForwardEqualsThePlainOneForEachNumberOfCodebooks) {
  for (const Config& config : {small_config(), odd_config()}) {
    const SyntheticModel m = synthetic_model(config);
    const GptWeights& w = m.model->weights().fine;
    const int64_t n = config.fine.input_length;
    Memory memory(m.model->backend(), w, n, n);
    memory.kv.n_layer = 1;
    std::vector<int32_t> slots(n, 0), positions(n);
    std::iota(positions.begin(), positions.end(), 0);
    for (int64_t tables = 1; tables <= config.fine.n_fine_codebook; ++tables) {
      const std::vector<int32_t> ids = some_ids(tables * n, config.codebook_size + 1);
      const Rows64 expected = reference_forward(w, ids, tables, false);
      const int64_t first = n / 3, end = n - n / 5;
      gpt_forward(m.model->backend(), w, memory.scratch, {memory.kv},
                  {ids.data(), w.wte.data(), tables}, {n, slots.data(), positions.data()}, false,
                  {first, end}, {});
      const ConstView h = gpt_final_norm(m.model->backend(), w, memory.scratch, first, end - first);
      for (int64_t t = first; t < end; ++t)
        for (int64_t c = 0; c < w.n_embd; ++c)
          ASSERT_NEAR(h.row(t - first)[c], expected[t][c], 1e-5) << config.name << " " << t;
    }
  }
}

TEST_P(GptOnEach, StepsEqualOnePrefillBitForBit) {
  for (const auto& [matrices, type] : {std::pair(DType::F32, DType::F32),
                                       {DType::F32, DType::F16},
                                       {DType::F32, DType::I8},
                                       {DType::BF16, DType::F16},
                                       {DType::I8, DType::F16},
                                       {DType::I8Tiles, DType::F16},
                                       {DType::I4, DType::F16}}) {
    if (!backend->has_weight_type(matrices)) continue;
    const Config config = has_tiles(matrices) ? tiled_config() : small_config();
    const SyntheticModel m = model(config, matrices);
    const GptWeights& w = m.model->weights().semantic;
    const int64_t n = std::min(config.semantic.gpt.block_size, rows_of_equal_bits());
    const std::vector<int32_t> ids = some_ids(n, config.semantic.gpt.n_vocab_in);
    Memory steps(m.model->backend(), w, n, n, type), whole(m.model->backend(), w, n, n, type);
    Sequence by_steps(m.model->backend(), w, steps.scratch, steps.kv);
    for (int64_t t = 0; t < n; ++t) {
      by_steps.feed(&ids[t], w.wte.data(), 1, 1);
      if (t % 9 != 0 && t + 1 != n) continue;
      Sequence at_once(m.model->backend(), w, whole.scratch, whole.kv);
      at_once.feed(ids.data(), w.wte.data(), 1, t + 1);
      EXPECT_EQ(to_vector(m, by_steps.logits(w.lm_head.data(), 1)),
                to_vector(m, at_once.logits(w.lm_head.data(), 1)))
          << t;
    }
  }
}

TEST(Gpt, ARewoundSequenceContinuesAsIfItHadNeverGoneOn) {
  const Config config = small_config();
  const SyntheticModel m = synthetic_model(config);
  const GptWeights& w = m.model->weights().semantic;
  const std::vector<int32_t> ids = some_ids(30, 140), other = some_ids(10, 140, 77);
  Memory memory(m.model->backend(), w, 30, 64), fresh_memory(m.model->backend(), w, 30, 64);
  Sequence sequence(m.model->backend(), w, memory.scratch, memory.kv);
  sequence.feed(ids.data(), w.wte.data(), 1, 30);
  sequence.rewind(20);
  sequence.feed(other.data(), w.wte.data(), 1, 10);
  std::vector<int32_t> joined(ids.begin(), ids.begin() + 20);
  joined.insert(joined.end(), other.begin(), other.end());
  Sequence fresh(m.model->backend(), w, fresh_memory.scratch, fresh_memory.kv);
  fresh.feed(joined.data(), w.wte.data(), 1, 30);
  EXPECT_EQ(to_vector(m, sequence.logits(w.lm_head.data(), 1)),
            to_vector(m, fresh.logits(w.lm_head.data(), 1)));
}

// Of three sequences.
void expect_rows_as_alone(const SyntheticModel& m, const std::vector<int64_t>& lengths) {
  const GptWeights& w = m.model->weights().coarse;
  const int64_t n = std::accumulate(lengths.begin(), lengths.end(), int64_t{0});
  std::vector<int32_t> ids, slots, positions;
  std::vector<std::vector<float>> alone;
  for (int32_t slot = 0; slot < 3; ++slot) {
    const std::vector<int32_t> own = some_ids(lengths[slot], 200, 11 * slot);
    Memory memory(m.model->backend(), w, 20, 24, slot == 2 ? DType::F16 : DType::F32);
    Sequence sequence(m.model->backend(), w, memory.scratch, memory.kv);
    sequence.feed(own.data(), w.wte.data(), 1, lengths[slot]);
    alone.push_back(to_vector(m, sequence.logits(w.lm_head.data(), 1)));
    for (int32_t t = 0; t < lengths[slot]; ++t) {
      ids.push_back(own[t]);
      slots.push_back(slot);
      positions.push_back(t);
    }
  }
  Memory memory(m.model->backend(), w, n, 24), second(m.model->backend(), w, 1, 24),
      third(m.model->backend(), w, 1, 24, DType::F16);
  gpt_forward(m.model->backend(), w, memory.scratch, {memory.kv, second.kv, third.kv},
              {ids.data(), w.wte.data(), 1}, {n, slots.data(), positions.data()}, true, {0, n}, {});
  int64_t last = -1;
  for (int slot = 0; slot < 3; ++slot) {
    last += lengths[slot];
    const ConstView h = gpt_final_norm(m.model->backend(), w, memory.scratch, last, 1);
    const View logits = view(memory.scratch.wide, 1, w.lm_head[0].rows);
    m.model->backend().linear(logits, h, w.lm_head[0], nullptr, {});
    EXPECT_EQ(to_vector(m, logits), alone[slot]) << slot;
  }
}

TEST_P(GptOnEach, RowsOfSeveralSequencesInOnePassGiveWhatEachGivesAlone) {
  for (const DType matrices : {DType::F32, DType::BF16, DType::I8, DType::I8Tiles, DType::I4}) {
    if (!backend->has_weight_type(matrices)) continue;
    SCOPED_TRACE(dtype_name(matrices));
    const Config config = has_tiles(matrices) ? tiled_config() : small_config();
    expect_rows_as_alone(model(config, matrices), rows_of_equal_bits() < 34
                                                      ? std::vector<int64_t>{5, 1, 10}
                                                      : std::vector<int64_t>{13, 1, 20});
  }
}

TEST(Gpt, HeadSlicesGiveTheLogitsOfTheWholeHead) {
  const Config config = small_config();
  const SyntheticModel m = synthetic_model(config);
  const GptWeights& w = m.model->weights().semantic;
  const std::vector<int32_t> ids = some_ids(9, 140);
  Memory memory(m.model->backend(), w, 9, 9);
  Sequence sequence(m.model->backend(), w, memory.scratch, memory.kv);
  sequence.feed(ids.data(), w.wte.data(), 1, 9);
  const std::vector<float> all = to_vector(m, sequence.logits(w.lm_head.data(), 1));
  const Matrix parts[] = {w.lm_head[0].slice(3, 50), w.lm_head[0].slice(120, 1)};
  const std::vector<float> some = to_vector(m, sequence.logits(parts, 2));
  ASSERT_EQ(some.size(), 51u);
  EXPECT_TRUE(std::equal(some.begin(), some.end() - 1, all.begin() + 3));
  EXPECT_EQ(some.back(), all[120]);
}

TEST(Gpt, NoPositionPastTheContextIsEverFed) {
  const Config config = small_config();
  const SyntheticModel m = synthetic_model(config);
  const GptWeights& w = m.model->weights().semantic;
  const std::vector<int32_t> ids = some_ids(12, 140);
  Memory memory(m.model->backend(), w, 12, 10);
  Sequence sequence(m.model->backend(), w, memory.scratch, memory.kv);
  EXPECT_THROW(sequence.feed(ids.data(), w.wte.data(), 1, 12), Error);
  sequence.feed(ids.data(), w.wte.data(), 1, 10);
  EXPECT_THROW(sequence.feed(ids.data(), w.wte.data(), 1, 1), Error);
}

TEST(Gpt, StopsBetweenBlocks) {
  const SyntheticModel m = synthetic_model(small_config());
  const GptWeights& w = m.model->weights().semantic;
  const std::vector<int32_t> ids = some_ids(4, 140);
  Memory memory(m.model->backend(), w, 4, 4);
  Sequence sequence(m.model->backend(), w, memory.scratch, memory.kv);
  size_t begun = 0;
  sequence.feed(ids.data(), w.wte.data(), 1, 4, [&] { ++begun; });
  EXPECT_EQ(begun, w.blocks.size());
  sequence.rewind(0);
  const auto stop = [] { fail(Status::Cancelled, "stop"); };
  EXPECT_THROW(sequence.feed(ids.data(), w.wte.data(), 1, 4, stop), Error);
  EXPECT_EQ(sequence.n_past(), 0);
}

}  // namespace
}  // namespace barkrt::test
