// model_test.cc: what a file must be to become a model, and what a model says it takes.
#include <gtest/gtest.h>

#include <cmath>
#include <functional>

#include "error.h"
#include "reference.h"
#include "session.h"
#include "synthetic.h"

namespace barkrt::test {
namespace {

Status status_of(const std::function<void()>& f, std::string* text = nullptr) {
  try {
    f();
  } catch (const Error& e) {
    if (text) *text = e.what();
    return e.status();
  }
  return Status::Ok;
}

TEST(ModelConfig, IsWhatTheFileSays) {
  const Config c = odd_config();
  const Image image = synthetic_writer(c).build();
  const Config read = read_config(*Gguf::from_memory(image.data(), image.bytes()));
  EXPECT_EQ(read.name, "test/odd");
  EXPECT_FALSE(read.trained);
  EXPECT_EQ(read.semantic.gpt.n_embd, 21);
  EXPECT_TRUE(read.semantic.gpt.norm_bias);
  EXPECT_FALSE(read.coarse.gpt.norm_bias);
  EXPECT_TRUE(read.fine.gpt.norm_bias);
  EXPECT_EQ(read.coarse.rate_hz, 47);
  EXPECT_EQ(read.codec.ratios, c.codec.ratios);
  EXPECT_EQ(read.codec.hop_length(), 6);
  EXPECT_EQ(read.codec.width(0), 12);
  EXPECT_EQ(read.codec.dilation(1), 3);
}

TEST(ModelConfig, ContextsFollowFromTheLengths) {
  const Config c = golden_config();
  EXPECT_EQ(c.semantic.max_tokens(), 768);
  EXPECT_EQ(c.semantic.n_ctx(), 1024);
  EXPECT_EQ(c.coarse.max_prompt(), 887);
  EXPECT_EQ(c.coarse.n_ctx(), 946);
  EXPECT_EQ(c.codec.hop_length(), 320);
}

struct BadConfig {
  const char* must_name;
  std::function<void(Config&)> damage;
};

const BadConfig kBadConfigs[] = {
    {"n_head", [](Config& c) { c.semantic.gpt.n_head = 3; }},
    {"n_head", [](Config& c) { c.coarse.gpt.n_head = 0; }},
    {"n_layer", [](Config& c) { c.fine.gpt.n_layer = 0; }},
    {"n_embd", [](Config& c) { c.fine.gpt.n_embd = int64_t{1} << 31; }},
    {"block_size", [](Config& c) { c.semantic.max_input_length = 64; }},
    {"block_size", [](Config& c) { c.coarse.max_input_length = 96; }},
    {"block_size", [](Config& c) { c.fine.input_length = 65; }},
    {"eos_token", [](Config& c) { c.semantic.eos_token = 119; }},
    {"eos_token", [](Config& c) { c.semantic.eos_token = 140; }},
    {"infer_token", [](Config& c) { c.semantic.infer_token = 300; }},
    {"text_pad_token", [](Config& c) { c.semantic.text_pad_token = 300; }},
    {"text_encoding_offset", [](Config& c) { c.semantic.text_encoding_offset = 300; }},
    {"vocab_size", [](Config& c) { c.semantic.vocab_size = 0; }},
    {"rate_hz", [](Config& c) { c.semantic.rate_hz = 0; }},
    {"rate_hz", [](Config& c) { c.coarse.rate_hz = -75; }},
    {"rate_hz", [](Config& c) { c.coarse.rate_hz = std::nan(""); }},
    {"rate_hz", [](Config& c) { c.coarse.rate_hz = INFINITY; }},
    {"coarse", [](Config& c) { c.coarse.rate_hz = 9e8, c.semantic.rate_hz = 1e-3; }},
    {"infer_token", [](Config& c) { c.coarse.infer_token = 224; }},
    {"semantic_pad_token", [](Config& c) { c.coarse.semantic_pad_token = 224; }},
    {"n_vocab_out", [](Config& c) { c.coarse.gpt.n_vocab_out = 215; }},
    {"n_vocab_in", [](Config& c) { c.coarse.gpt.n_vocab_in = 221; }},
    {"window_length", [](Config& c) { c.coarse.window_length = 0; }},
    {"max_history", [](Config& c) { c.coarse.max_history = 0; }},
    {"n_codebook", [](Config& c) { c.coarse.n_codebook = 0; }},
    {"n_codebook", [](Config& c) { c.fine.n_fine_codebook = 5; }},
    {"n_codebook", [](Config& c) { c.fine.n_fine_codebook = 1; }},
    {"n_given", [](Config& c) { c.fine.n_given = 3; }},
    {"unknown code", [](Config& c) { c.fine.gpt.n_vocab_in = c.fine.gpt.n_vocab_out = 48; }},
    {"n_vocab_out", [](Config& c) { c.fine.gpt.n_vocab_out = 47; }},
    {"history_length", [](Config& c) { c.fine.history_length = 41; }},
    {"history_length", [](Config& c) { c.fine.history_length = 0; }},
    {"codebook_size", [](Config& c) { c.codec.codebook_size = 47; }},
    {"n_codebook", [](Config& c) { c.codec.n_codebook = 3; }},
    {"ratios", [](Config& c) { c.codec.ratios = {}; }},
    {"ratios",
     [](Config& c) {
       c.codec.ratios = {4, 0};
     }},
    {"ratios",
     [](Config& c) {
       c.codec.ratios = {60000, 60000, 60000, 60000};
     }},
    {"ratios", [](Config& c) { c.codec.ratios = std::vector<int64_t>(40, 1); }},
    {"compress", [](Config& c) { c.codec.compress = 5; }},
    {"compress", [](Config& c) { c.codec.compress = 0; }},
    {"n_lstm_layer", [](Config& c) { c.codec.n_lstm_layer = 0; }},
    {"kernel_size", [](Config& c) { c.codec.kernel_size = 0; }},
    {"residual layer",
     [](Config& c) { c.codec.n_residual_layer = 9, c.codec.dilation_growth_rate = 4; }},
    {"codebook_size", [](Config& c) { c.codebook_size = 0; }},
};

TEST(ModelConfig, ThatContradictsItselfIsRefusedByName) {
  for (const BadConfig& k : kBadConfigs) {
    // The metadata alone: tensors of absurd shapes need not be made.
    Config bad = small_config();
    k.damage(bad);
    const Image image = synthetic_metadata(bad).build();
    std::string text;
    EXPECT_EQ(
        status_of([&] { read_config(*Gguf::from_memory(image.data(), image.bytes())); }, &text),
        Status::BadModel)
        << k.must_name << ": " << text;
    EXPECT_NE(text.find(k.must_name), std::string::npos) << k.must_name << ": " << text;
  }
}

TEST(ModelConfig, OfAnotherArchitectureOrVersionIsRefused) {
  std::string text;
  Image other = GgufWriter().string("general.architecture", "llama").build();
  EXPECT_EQ(status_of([&] { read_config(*Gguf::from_memory(other.data(), other.bytes())); }, &text),
            Status::BadModel);
  EXPECT_NE(text.find("llama"), std::string::npos) << text;
  Image newer =
      GgufWriter().string("general.architecture", "bark").u32("bark.format_version", 2).build();
  EXPECT_EQ(status_of([&] { read_config(*Gguf::from_memory(newer.data(), newer.bytes())); }, &text),
            Status::Unsupported);
}

// --- tensors ---

Status load_status(const GgufWriter& writer, std::string* text) {
  const Image image = writer.build();
  return status_of([&] { Model::load(Gguf::from_memory(image.data(), image.bytes()), 0, 1, {}); },
                   text);
}

TEST(ModelTensors, OneThatDoesNotBelongIsRefused) {
  GgufWriter w = synthetic_writer(small_config());
  w.tensor("semantic.h.0.ln_1.bias", {32}, std::vector<float>(32));
  std::string text;
  EXPECT_EQ(load_status(w, &text), Status::BadModel);
  EXPECT_NE(text.find("semantic.h.0.ln_1.bias"), std::string::npos) << text;
}

TEST(ModelTensors, AMissingOrMisshapenOneIsNamed) {
  // The metadata of one config over the tensors of another.
  Config wide = small_config();
  wide.coarse.gpt.n_embd = 48;
  std::string text;
  GgufWriter w = synthetic_metadata(wide);
  add_synthetic_tensors(w, small_config(), {});
  EXPECT_EQ(load_status(w, &text), Status::BadModel);
  EXPECT_NE(text.find("coarse.wpe.weight"), std::string::npos) << text;

  Config deep = small_config();
  deep.fine.gpt.n_layer = 3;
  GgufWriter d = synthetic_metadata(deep);
  add_synthetic_tensors(d, small_config(), {});
  EXPECT_EQ(load_status(d, &text), Status::BadModel);
  EXPECT_NE(text.find("fine.h.2."), std::string::npos) << text;
}

TEST(ModelTensors, AreUsedWhereTheyLie) {
  const SyntheticModel m = synthetic_model(small_config());
  const auto* weight = static_cast<const std::byte*>(m.model->weights().fine.wte[0].data);
  EXPECT_GE(weight, m.image->data());
  EXPECT_LT(weight, m.image->data() + m.image->bytes());
}

TEST(ModelTensors, TiedFineHeadsAreTheNextTable) {
  const SyntheticModel m = synthetic_model(small_config());
  const GptWeights& w = m.model->weights().fine;
  ASSERT_EQ(w.lm_head.size(), 3u);
  for (size_t i = 0; i < 3; ++i) EXPECT_EQ(w.lm_head[i].data, w.wte[i + 1].data);
}

TEST(ModelTensors, CoarseHeadIsNeverTiedThoughItsShapeFits) {
  Config c = small_config();
  c.coarse.gpt.n_vocab_in = c.coarse.gpt.n_vocab_out;
  const SyntheticModel m = synthetic_model(c);
  EXPECT_NE(m.model->weights().coarse.lm_head[0].data, m.model->weights().coarse.wte[0].data);
}

// Tiles are for layers and causal heads, 4 bits for the layers of the two decode stages.
TEST(ModelTensors, OfTilesBelongToLayersAndCausalHeads) {
  SyntheticOptions options;
  for (const DType type : {DType::I8Tiles, DType::I4}) {
    options.matrices = type;
    const SyntheticModel m = synthetic_model(tiled_config(), 1, options);
    const ModelWeights& all = m.model->weights();
    for (const GptWeights* w : {&all.semantic, &all.coarse, &all.fine}) {
      const bool fine = w == &all.fine;
      for (const BlockWeights& b : w->blocks)
        for (const Linear* l : {&b.c_attn, &b.attn_c_proj, &b.c_fc, &b.mlp_c_proj}) {
          EXPECT_EQ(l->weight.type, fine ? DType::I8Tiles : type);
          EXPECT_EQ(l->weight.scale != nullptr, l->weight.type == DType::I8Tiles);
        }
      EXPECT_EQ(w->wte[0].type, DType::I8);
      EXPECT_EQ(w->lm_head[0].type, fine ? DType::I8 : DType::I8Tiles);
    }
  }

  const struct {
    const char* tensor;
    std::vector<int64_t> shape;
  } wrong[] = {{"semantic.wte.weight", {19, 576}},          // a table
               {"semantic.wte.weight", {18, 1024}},         // in 8 bits
               {"semantic.lm_head.weight", {9, 576}},       // a head
               {"fine.h.0.mlp.c_proj.weight", {4, 2304}},   // of the fine stage
               {"coarse.h.0.mlp.c_fc.weight", {16, 575}}};  // no whole tiles
  for (const auto& bad : wrong) {
    GgufWriter w = synthetic_writer(tiled_config(), options).reshape(bad.tensor, bad.shape);
    std::string text;
    EXPECT_EQ(load_status(w, &text), Status::BadModel) << bad.tensor;
    EXPECT_NE(text.find(bad.tensor), std::string::npos) << text;
  }
}

TEST(ModelTensors, AHeadInTilesHasItsLegalRowsInWholeOnes) {
  SyntheticOptions options;
  options.matrices = DType::I8Tiles;
  Config c = tiled_config();
  c.semantic.eos_token = 113;
  std::string text;
  EXPECT_EQ(load_status(synthetic_writer(c, options), &text), Status::BadModel);
  EXPECT_NE(text.find("semantic.lm_head.weight"), std::string::npos) << text;
  c = tiled_config();
  c.codebook_size = c.codec.codebook_size = 40;
  EXPECT_EQ(load_status(synthetic_writer(c, options), &text), Status::BadModel);
  EXPECT_NE(text.find("coarse.lm_head.weight"), std::string::npos) << text;
}

// --- memory ---

class ModelOnEach : public reference::EveryDevice {
 protected:
  static SyntheticOptions options(DType matrices = DType::F32) {
    SyntheticOptions o;
    o.matrices = matrices, o.instruction_set = GetParam();
    return o;
  }
};
BARKRT_EVERY_DEVICE(ModelOnEach);

TEST_P(ModelOnEach, EstimateEqualsWhatLoadAndSessionCount) {
  for (const Config& config : {small_config(), odd_config(), tiled_config()})
    for (const DType type : {DType::F32, DType::BF16, DType::I8, DType::I8Tiles, DType::I4}) {
      if (type == DType::I4 && is_cuda()) continue;
      SyntheticOptions with_voice = options(type);
      with_voice.voices = {{"a", synthetic_voice(config, 10, 15)}};
      const SyntheticModel m = synthetic_model(config, 1, with_voice);
      Config read;
      const ModelBytes bytes =
          Model::estimate(*Gguf::from_memory(m.image->data(), m.image->bytes()), &read);
      EXPECT_EQ(m.model->account().live(Category::Weights), bytes.weights);
      EXPECT_EQ(m.model->account().live(Category::Tables), bytes.tables);
      EXPECT_EQ(m.model->account().live(Category::Activations), bytes.activations);
      EXPECT_EQ(m.model->account().total(), bytes.weights + bytes.tables + bytes.activations);
      for (const DType kv : {DType::F16, DType::F32, DType::I8}) {
        const Session session(m.model, kv);
        const Session::Bytes need = Session::estimate(read, kv);
        EXPECT_EQ(session.account().live(Category::Kv), need.kv);
        EXPECT_EQ(session.account().live(Category::Activations), need.activations);
      }
    }
}

TEST(ModelMemory, OfAVoiceIsItsTensors) {
  const Config config = small_config();
  SyntheticOptions options;
  const int64_t without = synthetic_model(config).model->account().live(Category::Tables);
  options.voices = {{"a", synthetic_voice(config, 10, 15)}};
  const int64_t with = synthetic_model(config, 1, options).model->account().live(Category::Tables);
  EXPECT_EQ(with - without, 4 * (10 + 2 * 15 + 4 * 15));
}

TEST_P(ModelOnEach, AccountOfTheFamilyOutlivesItAndReadsZero) {
  const int device = is_cuda() ? 1 : 0;
  const int64_t before = device_account(device)->total();
  SyntheticModel m = synthetic_model(small_config(), 2, options());
  const std::shared_ptr<const MemoryAccount> family = m.model->family();
  const int64_t of_model = m.model->account().total();
  EXPECT_EQ(family->total(), of_model);
  auto session = std::make_unique<Session>(m.model, DType::F16);
  m.model.reset();
  EXPECT_EQ(family->total(), of_model + session->account().total());
  EXPECT_EQ(device_account(device)->total(), before + family->total());
  session.reset();
  EXPECT_EQ(family->total(), 0);
  EXPECT_GT(family->peak(), of_model);
  EXPECT_EQ(device_account(device)->total(), before);
}

TEST(ModelMemory, OfALoadStoppedInTheMiddleIsGone) {
  const Image image = synthetic_writer(small_config()).build();
  const int64_t before = device_account(0)->total();
  int64_t seen = 0;
  EXPECT_EQ(status_of([&] {
              Model::load(Gguf::from_memory(image.data(), image.bytes()), 0, 1,
                          [&](int64_t done, int64_t total) {
                            seen = device_account(0)->total() - before;
                            return done < total / 2;
                          });
            }),
            Status::Cancelled);
  EXPECT_GT(seen, 0);
  EXPECT_EQ(device_account(0)->total(), before);
}

TEST(ModelMemory, KvCacheOfBarkSmallIsTheKnownSize) {
  Config c = golden_config();
  for (GptConfig* g : {&c.semantic.gpt, &c.coarse.gpt, &c.fine.gpt}) g->n_layer = g->n_head = 12;
  c.semantic.gpt.n_embd = c.coarse.gpt.n_embd = c.fine.gpt.n_embd = 768;
  EXPECT_EQ(Session::estimate(c, DType::F16).kv, 2 * 12 * 1024 * 768 * 2);
  EXPECT_EQ(Session::estimate(c, DType::F32).kv, 2 * 12 * 1024 * 768 * 4);
}

// --- load ---

TEST(ModelLoad, ReportsBytesAndStopsBetweenTensors) {
  const Image image = synthetic_writer(small_config()).build();
  int64_t calls = 0, last = -1, total_seen = 0;
  Model::load(Gguf::from_memory(image.data(), image.bytes()), 0, 1,
              [&](int64_t done, int64_t total) {
                EXPECT_GT(done, last);
                last = done;
                total_seen = total;
                ++calls;
                return true;
              });
  EXPECT_EQ(last, total_seen);
  EXPECT_GT(calls, 50);
  EXPECT_EQ(status_of([&] {
              Model::load(Gguf::from_memory(image.data(), image.bytes()), 0, 1,
                          [](int64_t done, int64_t) { return done == 0; });
            }),
            Status::Cancelled);
}

TEST(ModelLoad, OfAnUnknownDeviceIsNotFound) {
  const Image image = synthetic_writer(small_config()).build();
  EXPECT_EQ(
      status_of([&] { Model::load(Gguf::from_memory(image.data(), image.bytes()), 999, 1, {}); }),
      Status::NotFound);
}

// --- types ---

// The tokens of a reduced type need not be those of f32, but the model it stands for is exact: an
// F32 file of the dequantised numbers.
TEST_P(ModelOnEach, ReducedMatricesSpeakAndStayNearF32) {
  for (const DType type : {DType::BF16, DType::I8, DType::I8Tiles, DType::I4}) {
    if (type == DType::I4 && is_cuda()) continue;
    const Config config = tiled_config();
    const SyntheticModel f32 = synthetic_model(config, 2, options());
    const SyntheticModel reduced = synthetic_model(config, 2, options(type));
    const std::vector<int32_t> prefix = semantic_prefix(config.semantic, {5, 6}, nullptr);
    std::vector<std::vector<float>> logits;
    for (const SyntheticModel* m : {&f32, &reduced}) {
      Session session(m->model, DType::F32);
      const StageRun run = session.run({});
      const GptWeights& w = m->model->weights().semantic;
      Sequence s(m->model->backend(), w, run.memory.semantic.scratch, run.memory.semantic.kv);
      const Matrix tables[] = {w.wte[0], w.wte[0]};
      s.feed(prefix.data(), tables, 2, 17);
      const ConstView row = s.logits(w.lm_head.data(), 1);
      logits.emplace_back(static_cast<size_t>(row.cols));
      m->model->backend().download(logits.back().data(), row.data, row.cols * 4);
    }
    double difference = 0, size = 0;
    for (size_t i = 0; i < logits[0].size(); ++i) {
      difference += std::pow(logits[0][i] - logits[1][i], 2);
      size += std::pow(logits[0][i], 2);
    }
    EXPECT_LT(std::sqrt(difference / size), type == DType::I4 ? 0.25 : 0.03) << dtype_name(type);
    EXPECT_GT(difference, 0);
  }
}

// --- voices ---

TEST(Voices, OfTheFileAreReadByName) {
  const Config config = small_config();
  SyntheticOptions options;
  options.voices = {{"v2/en_speaker_6", synthetic_voice(config, 10, 15)},
                    {"announcer", synthetic_voice(config, 20, 30)}};
  const SyntheticModel m = synthetic_model(config, 1, options);
  EXPECT_EQ(m.model->voice_names(), (std::vector<std::string>{"v2/en_speaker_6", "announcer"}));
  const Voice voice = m.model->voice("announcer");
  EXPECT_EQ(voice.semantic, options.voices[1].second.semantic);
  EXPECT_EQ(voice.fine.ids, options.voices[1].second.fine.ids);
  EXPECT_EQ(voice.coarse.n_frames, 30);
  std::string text;
  EXPECT_EQ(status_of([&] { m.model->voice("nobody"); }, &text), Status::NotFound);
  EXPECT_NE(text.find("announcer"), std::string::npos) << text;
}

TEST(Voices, WithAValueOutOfRangeAreRefusedWhereTheyAreRead) {
  const Config config = small_config();
  SyntheticOptions options;
  options.voices = {{"bad", synthetic_voice(config, 10, 15)}};
  options.voices[0].second.fine.ids[17] = 48;
  const SyntheticModel m = synthetic_model(config, 1, options);
  std::string text;
  EXPECT_EQ(status_of([&] { m.model->voice("bad"); }, &text), Status::InvalidArgument);
  EXPECT_NE(text.find("fine value 48 at codebook 1, position 2"), std::string::npos) << text;
}

TEST(Voices, OfAWrongShapeMakeABadModel) {
  const Config config = small_config();
  SyntheticOptions options;
  options.voices = {{"thin", synthetic_voice(config, 10, 15)}};
  options.voices[0].second.fine = options.voices[0].second.coarse;
  std::string text;
  EXPECT_EQ(load_status(synthetic_writer(config, options), &text), Status::BadModel);
  EXPECT_NE(text.find("thin"), std::string::npos) << text;
}

TEST(Voices, AreCheckedForShapeAndRange) {
  const Config c = golden_config();
  const Voice good = synthetic_voice(c, 40, 60);
  EXPECT_EQ(status_of([&] { check_voice(c, good); }), Status::Ok);
  const std::function<void(Voice&)> damages[] = {
      [](Voice& v) { v.semantic.clear(); }, [](Voice& v) { v.semantic[3] = 10000; },
      [](Voice& v) { v.semantic[3] = -1; }, [](Voice& v) { v.coarse.ids[70] = 1024; },
      [](Voice& v) { v.fine.ids[0] = -5; }, [](Voice& v) { v.coarse = {}; },
      [](Voice& v) { v.fine = v.coarse; },
  };
  for (const auto& damage : damages) {
    Voice bad = good;
    damage(bad);
    EXPECT_EQ(status_of([&] { check_voice(c, bad); }), Status::InvalidArgument);
  }
}

TEST(Voices, RatioIsComparedToOneDecimalAndBothLengthsAreNamed) {
  const Config c = golden_config();
  for (const int64_t frames : {145, 146, 150, 154})
    EXPECT_EQ(status_of([&] { check_voice_ratio(c, synthetic_voice(c, 100, frames)); }),
              frames == 145 ? Status::InvalidArgument : Status::Ok)
        << frames;
  std::string text;
  EXPECT_EQ(status_of([&] { check_voice_ratio(c, synthetic_voice(c, 100, 140)); }, &text),
            Status::InvalidArgument);
  EXPECT_NE(text.find("100 semantic"), std::string::npos) << text;
  EXPECT_NE(text.find("140 coarse"), std::string::npos) << text;
}

}  // namespace
}  // namespace barkrt::test
