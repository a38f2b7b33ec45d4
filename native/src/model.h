// model.h: a loaded model: immutable weights in place, vocabulary, voices; and what it would take.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "backend.h"
#include "codec.h"
#include "component.h"
#include "config.h"
#include "engine.h"
#include "gguf.h"
#include "gpt.h"
#include "memory.h"
#include "tokenizer.h"
#include "voice.h"
#include "weights.h"

namespace barkrt {

// Bytes in barkrt_memory's categories.
struct ModelBytes {
  int64_t weights = 0;
  int64_t tables = 0;
  int64_t activations = 0;
  std::optional<ComponentPlan> component;  // contained in weights
};

// done and total in bytes; false stops the load.
using LoadProgress = std::function<bool(int64_t done, int64_t total)>;

// Immutable after load; any thread. Held by shared_ptr: sessions and voices keep it alive.
class Model {
 public:
  // Validates everything but the values of weights. Throws BadModel, Unsupported, NotFound
  // (device), OutOfMemory, Cancelled (progress said stop). instruction_set as make_backend's.
  static std::shared_ptr<const Model> load(std::shared_ptr<const Gguf> gguf, int device,
                                           int n_threads, const LoadProgress& progress,
                                           const std::string& instruction_set = "");
  // What load() would count, and the config it would use, from the header alone.
  static ModelBytes estimate(const Gguf& gguf, Config* config);
  ~Model();
  Model(const Model&) = delete;

  const Config& config() const { return config_; }
  const ModelWeights& weights() const { return weights_; }
  const GptWeights& weights(Engine::CausalStage stage) const {
    return stage == Engine::CausalStage::Semantic ? weights_.semantic : weights_.coarse;
  }
  // Working memory of a decode step of Engine::kMaxBatch rows; one runs at a time.
  const GptScratch& steps(Engine::CausalStage stage) const {
    return steps_[static_cast<int>(stage)];
  }
  const Tokenizer& tokenizer() const { return *tokenizer_; }
  const std::vector<std::string>& voice_names() const { return voice_names_; }
  // Without the component's bytes, which have their own count.
  const MemoryAccount& account() const { return *account_; }
  // NULL for none.
  const Component* component() const { return component_.get(); }
  // The model with its sessions and voices; may outlive them all, and reads zero then.
  const std::shared_ptr<MemoryAccount>& family() const { return family_; }
  // Ops do not change the model.
  Backend& backend() const { return *backend_; }
  // Whose turn it is on that backend.
  Engine& engine() const { return *engine_; }
  // NotFound names the voices there are.
  Voice voice(const std::string& name) const;

 private:
  Model(std::shared_ptr<const Gguf> gguf, int device);
  void place_steps();
  void place(int device, const LoadProgress& progress);

  std::shared_ptr<MemoryAccount> family_;
  std::shared_ptr<MemoryAccount> account_;
  Charge weights_charge_;
  Charge tables_charge_;
  std::shared_ptr<const Gguf> gguf_;
  Config config_;
  std::vector<std::string> voice_names_;
  std::unique_ptr<Backend> backend_;
  const std::unique_ptr<Engine> engine_ = std::make_unique<Engine>();
  Buffer steps_memory_;
  GptScratch steps_[Engine::kCausalStages];  // all in steps_memory_
  std::vector<const void*> placed_;
  std::shared_ptr<const Component> component_;
  std::unique_ptr<Tokenizer> tokenizer_;
  ModelWeights weights_;
};

}  // namespace barkrt
