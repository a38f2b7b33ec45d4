#include "session.h"

#include <algorithm>
#include <chrono>

#include "error.h"

namespace barkrt {
namespace {

// Marks a session as running for a scope.
class BusyMark {
 public:
  explicit BusyMark(std::atomic<bool>& busy) : busy_(busy) {
    if (busy_.exchange(true))
      fail(Status::Busy, "the session is already running a request; make one session per request");
  }
  ~BusyMark() { busy_.store(false); }
  BusyMark(const BusyMark&) = delete;

 private:
  std::atomic<bool>& busy_;
};

void continue_if(bool wanted) {
  if (!wanted) fail(Status::Cancelled, "the request was stopped by its sink");
}

// For a prefill of that many rows, and for steps that others share.
GptScratch causal_scratch(const GptConfig& config, int64_t n_rows) {
  return GptScratch::plan(config.n_embd, std::max(n_rows, Engine::kMaxBatch), Engine::kMaxBatch,
                          config.n_vocab_out);
}

// Runs one stage and notes its time.
template <class F>
auto timed(Stats& stats, Stage stage, F f) {
  const auto start = std::chrono::steady_clock::now();
  auto result = f();
  const std::chrono::duration<double, std::milli> elapsed =
      std::chrono::steady_clock::now() - start;
  stats.stage_ms[static_cast<int>(stage)] = elapsed.count();
  return result;
}

}  // namespace

SessionMemory SessionMemory::plan(const Config& config, DType kv_type) {
  const SemanticConfig& s = config.semantic;
  const CoarseConfig& c = config.coarse;
  const FineConfig& f = config.fine;
  SessionMemory m;
  m.semantic.scratch = causal_scratch(s.gpt, s.max_input_length + 1);
  m.semantic.kv = {nullptr, kv_type, s.gpt.n_layer, s.n_ctx(), s.gpt.n_embd};
  m.coarse.scratch = causal_scratch(c.gpt, c.max_prompt());
  m.coarse.kv = {nullptr, kv_type, c.gpt.n_layer, c.n_ctx(), c.gpt.n_embd};
  m.fine.scratch =
      GptScratch::plan(f.gpt.n_embd, f.input_length, f.input_length, config.codebook_size);
  m.fine.kv = {nullptr, DType::F32, 1, f.input_length, f.gpt.n_embd};
  m.codec = CodecPlan::make(config.codec);
  return m;
}

int64_t SessionMemory::kv_bytes() const { return std::max(semantic.kv.bytes(), coarse.kv.bytes()); }

int64_t SessionMemory::activation_bytes() const {
  return std::max({semantic.scratch.bytes(), coarse.scratch.bytes(),
                   fine.scratch.bytes() + fine.kv.bytes(), codec.bytes()});
}

void SessionMemory::place(std::byte* kv, std::byte* activations) {
  semantic.scratch.place(activations);
  coarse.scratch.place(activations);
  fine.scratch.place(activations);
  semantic.kv.base = kv;
  coarse.kv.base = kv;
  fine.kv.base = activations + fine.scratch.bytes();
  codec_base = activations;
}

SampleParams StageRun::params(Stage stage, const Sampling& sampling, int64_t step,
                              int64_t row) const {
  SampleParams p;
  p.temperature = sampling.temperature;
  p.top_k = sampling.top_k;
  p.top_p = sampling.top_p;
  p.rules = rules;
  p.coin = random_uniform(seed, static_cast<uint32_t>(stage), static_cast<uint32_t>(step),
                          static_cast<uint32_t>(row));
  return p;
}

void run_codec(const StageRun& run, const Codes& codes,
               const std::function<void(const float* pcm, int64_t n_samples)>& sink) {
  const CodecConfig& config = run.model.config().codec;
  const CodecPlan& plan = run.memory.codec;
  if (codes.n_frames == 0) return;
  CodecDecoder decoder(run.model.backend(), config, run.model.weights().codec, plan,
                       run.memory.codec_base);
  std::vector<int32_t> ids(codes.n_codebook * plan.chunk_frames);
  std::vector<float> pcm(plan.chunk_frames * config.hop_length());
  for (int64_t done = 0; done < codes.n_frames;) {
    const int64_t n = std::min(plan.chunk_frames, codes.n_frames - done);
    for (int64_t q = 0; q < codes.n_codebook; ++q)
      std::copy_n(codes.ids.data() + q * codes.n_frames + done, n, ids.data() + q * n);
    {
      const Engine::Turn turn(run.model.engine(), run.ticket);
      decoder.decode(ids.data(), n, pcm.data());
    }
    done += n;
    sink(pcm.data(), n * config.hop_length());
    run.report(Stage::Codec, done, codes.n_frames);
  }
}

Session::Bytes Session::estimate(const Config& config, DType kv_type) {
  const SessionMemory plan = SessionMemory::plan(config, kv_type);
  return {buffer_bytes(plan.kv_bytes()), buffer_bytes(plan.activation_bytes())};
}

Session::Session(std::shared_ptr<const Model> model, DType kv_type)
    : model_(std::move(model)), memory_(SessionMemory::plan(model_->config(), kv_type)) {
  kv_ = Buffer(model_->backend(), account_, Category::Kv, memory_.kv_bytes());
  activations_ =
      Buffer(model_->backend(), account_, Category::Activations, memory_.activation_bytes());
  memory_.place(static_cast<std::byte*>(kv_.data()), static_cast<std::byte*>(activations_.data()));
}

StageRun Session::run(const Request& request) const {
  StageRun run(*model_, memory_);
  run.rules = request.rules;
  run.seed = request.seed;
  run.voice = request.voice;
  run.ticket = model_->engine().ticket({request.cancel});
  return run;
}

Stats Session::synthesize(const Request& request, const Sink& sink) {
  const BusyMark busy(busy_);
  const Config& config = model_->config();
  StageRun run = this->run(request);
  if (sink.progress)
    run.progress = [&](Stage s, int64_t done, int64_t total) {
      continue_if(sink.progress(s, done, total));
    };
  const auto publish = [&](Stage s, const std::vector<int32_t>& ids, int64_t rows) {
    if (!request.want_tokens || !sink.tokens) return;
    continue_if(sink.tokens(s, ids.data(), rows, static_cast<int64_t>(ids.size()) / rows));
  };

  Stats stats;
  run.ticket.stop.check();
  if (request.voice && request.rules == Rules::Suno) check_voice_ratio(config, *request.voice);
  const std::vector<int32_t> text = model_->tokenizer().encode(request.text, request.rules);
  stats.n_text_tokens = static_cast<int64_t>(text.size());
  stats.text_truncated = stats.n_text_tokens > config.semantic.max_input_length;

  const std::vector<int32_t> semantic = timed(stats, Stage::Semantic, [&] {
    return run_semantic(run, text, request.semantic, request.max_semantic_tokens);
  });
  stats.n_semantic = static_cast<int64_t>(semantic.size());
  publish(Stage::Semantic, semantic, 1);

  const std::vector<int32_t> tokens =
      timed(stats, Stage::Coarse, [&] { return run_coarse(run, semantic, request.coarse); });
  const Codes coarse = coarse_codes(config, tokens);
  stats.n_coarse = static_cast<int64_t>(tokens.size());
  stats.n_frames = coarse.n_frames;
  publish(Stage::Coarse, coarse.ids, coarse.n_codebook);

  const Codes fine = timed(stats, Stage::Fine, [&] { return run_fine(run, coarse, request.fine); });
  publish(Stage::Fine, fine.ids, fine.n_codebook);

  stats.n_samples = timed(stats, Stage::Codec, [&] {
    int64_t n_samples = 0;
    run_codec(run, fine, [&](const float* pcm, int64_t n) {
      n_samples += n;
      if (sink.audio) continue_if(sink.audio(pcm, n));
    });
    return n_samples;
  });
  return stats;
}

}  // namespace barkrt
