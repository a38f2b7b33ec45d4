#include "model.h"

#include <algorithm>
#include <cstring>
#include <unordered_set>

#include "error.h"

namespace barkrt {
namespace {

// Legal, and harmless for short clips: the run that needs more is refused when it comes.
void warn_of_short_context(const CoarseConfig& c) {
  const int64_t most = c.max_input_length + c.max_history + c.window_length;
  if (most <= c.gpt.block_size) return;
  log_line(kLogWarn,
           "the coarse stage's longest window has %lld positions, its context %lld: long clips and "
           "voices will be refused",
           static_cast<long long>(most), static_cast<long long>(c.gpt.block_size));
}

std::vector<std::string> read_voice_names(const Gguf& gguf, const Config& config) {
  std::vector<std::string> names;
  std::unordered_set<std::string> seen;
  for (const std::string_view name : gguf.need_strings("bark.voices")) {
    names.emplace_back(name);
    if (!seen.insert(names.back()).second)
      fail(Status::BadModel, "the file lists voice %s twice", names.back().c_str());
    check_file_voice(gguf, config, names.back());
  }
  return names;
}

int64_t voices_bytes(const Gguf& gguf, const std::vector<std::string>& names) {
  int64_t total = 0;
  for (const std::string& name : names) total += file_voice_bytes(gguf, name);
  return total;
}

// The weights where they lie in the file, every tensor checked; adds their bytes to `total`.
ModelWeights weights_in_file(const Gguf& gguf, const Config& config, int64_t* total) {
  return build_weights(gguf, config, [&](const GgufTensor& t, Matrix m) {
    *total += t.bytes;
    m.data = gguf.data() + t.offset;
    return m;
  });
}

// Of 8-bit numbers in tiles, for devices that read them row by row.
std::vector<std::byte> rows_of_tiles(const std::byte* tiles, int64_t rows, int64_t cols) {
  std::vector<std::byte> out(static_cast<size_t>(rows * cols));
  for (int64_t row = 0; row < rows; row += kTileRows)
    for (int64_t col = 0; col < cols; col += 4)
      for (int64_t r = 0; r < kTileRows; ++r, tiles += 4)
        std::memcpy(&out[static_cast<size_t>((row + r) * cols + col)], tiles, 4);
  return out;
}

void check_weight_types(const Backend& backend, const ModelWeights& w) {
  if (backend.has_weight_type(DType::I4)) return;
  for (const GptWeights* stage : {&w.semantic, &w.coarse})
    for (const BlockWeights& b : stage->blocks)
      for (const Linear* linear : {&b.c_attn, &b.attn_c_proj, &b.c_fc, &b.mlp_c_proj})
        if (linear->weight.type == DType::I4)
          fail(Status::Unsupported,
               "%s has no products with 4-bit weights (q4); convert the model with --type q8 or "
               "f16, or load it on the CPU",
               backend.device().c_str());
}

GptScratch plan_steps(const GptConfig& config) {
  return GptScratch::plan(config.n_embd, Engine::kMaxBatch, Engine::kMaxBatch, config.n_vocab_out);
}

int64_t steps_bytes(const Config& config) {
  return std::max(plan_steps(config.semantic.gpt).bytes(), plan_steps(config.coarse.gpt).bytes());
}

}  // namespace

ModelBytes Model::estimate(const Gguf& gguf, Config* config) {
  *config = read_config(gguf);
  ModelBytes bytes;
  weights_in_file(gguf, *config, &bytes.weights);
  bytes.component = plan_codec(gguf);
  bytes.activations = buffer_bytes(steps_bytes(*config));
  bytes.tables =
      Tokenizer::estimate_bytes(gguf) + voices_bytes(gguf, read_voice_names(gguf, *config));
  return bytes;
}

Model::Model(std::shared_ptr<const Gguf> gguf, int device)
    : family_(std::make_shared<MemoryAccount>(device_account(device))),
      account_(std::make_shared<MemoryAccount>(family_)),
      weights_charge_(account_, Category::Weights),
      tables_charge_(account_, Category::Tables),
      gguf_(std::move(gguf)) {}

Model::~Model() {
  for (const void* placed : placed_) backend_->release_weights(placed);
}

std::shared_ptr<const Model> Model::load(std::shared_ptr<const Gguf> gguf, int device,
                                         int n_threads, const LoadProgress& progress,
                                         const std::string& instruction_set) {
  const std::shared_ptr<Model> model(new Model(std::move(gguf), device));
  const Gguf& file = *model->gguf_;
  model->config_ = read_config(file);
  warn_of_short_context(model->config_.coarse);
  model->voice_names_ = read_voice_names(file, model->config_);
  model->tables_charge_.add(voices_bytes(file, model->voice_names_));
  model->tokenizer_ = std::make_unique<Tokenizer>(file, *model->account_);
  model->backend_ = make_backend(device, n_threads, instruction_set);
  model->place_steps();
  model->place(device, progress);
  return model;
}

void Model::place_steps() {
  steps_memory_ = Buffer(*backend_, *account_, Category::Activations, steps_bytes(config_));
  steps_[static_cast<int>(Engine::CausalStage::Semantic)] = plan_steps(config_.semantic.gpt);
  steps_[static_cast<int>(Engine::CausalStage::Coarse)] = plan_steps(config_.coarse.gpt);
  for (GptScratch& steps : steps_) steps.place(static_cast<std::byte*>(steps_memory_.data()));
}

void Model::place(int device, const LoadProgress& progress) {
  const Gguf& file = *gguf_;
  int64_t total = 0, done = 0;
  check_weight_types(*backend_, weights_in_file(file, config_, &total));
  const auto advance = [&](int64_t bytes) {
    done += bytes;
    if (progress && !progress(done, total)) fail(Status::Cancelled, "the load was cancelled");
  };
  const std::optional<ComponentPlan> plan = plan_codec(file);
  if (plan) component_ = Component::acquire(file, *plan, device, [&] { advance(0); });
  advance(component_ ? component_->bytes() : 0);
  weights_ = build_weights(file, config_, [&](const GgufTensor& t, Matrix m) {
    m.data = component_ ? component_->find(t.name) : nullptr;
    if (m.data) return m;
    const std::byte* host = file.data() + t.offset;
    std::vector<std::byte> rows;
    if (m.type == DType::I8Tiles && !backend_->has_weight_type(m.type)) {
      rows = rows_of_tiles(host, m.rows, m.cols);
      host = rows.data(), m.type = DType::I8;
    }
    placed_.reserve(placed_.size() + 1);  // so that a placed tensor is never lost
    m.data = backend_->place_weights(host, t.bytes);
    placed_.push_back(m.data);
    weights_charge_.add(t.bytes);
    advance(t.bytes);
    return m;
  });
  backend_->synchronize();
}

Voice Model::voice(const std::string& name) const {
  for (const std::string& known : voice_names_)
    if (known == name) return read_file_voice(*gguf_, config_, name);
  std::string list;
  for (const std::string& known : voice_names_) list += (list.empty() ? "" : ", ") + known;
  if (list.empty()) list = "none";
  fail(Status::NotFound, "the model has no voice \"%s\"; it has: %s", name.substr(0, 100).c_str(),
       list.c_str());
}

}  // namespace barkrt
