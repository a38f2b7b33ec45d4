#include "session.h"

#include <algorithm>
#include <chrono>

#include "error.h"

namespace barkrt {
namespace {

// Marks a session as running for a scope. When it ends, none of the session's work runs any more.
class BusyMark {
 public:
  BusyMark(std::atomic<bool>& busy, Backend& backend) : busy_(busy), backend_(backend) {
    if (busy_.exchange(true))
      fail(Status::Busy, "the session is already running a request; make one session per request");
  }
  ~BusyMark() {
    try {
      backend_.synchronize();
    } catch (const Error&) {  // of a lost device, which runs nothing
    }
    busy_.store(false);
  }
  BusyMark(const BusyMark&) = delete;

 private:
  std::atomic<bool>& busy_;
  Backend& backend_;
};

void continue_if(bool wanted) {
  if (!wanted) fail(Status::Cancelled, "the request was stopped by its sink");
}

// For a prompt of that many rows and the draw after it.
GptScratch causal_scratch(const GptConfig& config, int64_t n_rows) {
  return GptScratch::plan(config.n_embd, n_rows, 1, config.n_vocab_out);
}

// Runs a part of a stage and adds its time.
template <class F>
void timed(Stats& stats, Stage stage, F f) {
  const auto start = std::chrono::steady_clock::now();
  f();
  const std::chrono::duration<double, std::milli> elapsed =
      std::chrono::steady_clock::now() - start;
  stats.stage_ms[static_cast<int>(stage)] += elapsed.count();
}

}  // namespace

SessionMemory SessionMemory::plan(const Config& config, DType kv_type) {
  const SemanticConfig& s = config.semantic;
  const CoarseConfig& c = config.coarse;
  const FineConfig& f = config.fine;
  SessionMemory m;
  m.semantic.scratch = causal_scratch(s.gpt, s.max_input_length + 1);
  m.semantic.kv = {nullptr, kv_type, s.gpt.n_layer, s.n_ctx(), s.gpt.n_embd, s.gpt.n_head};
  m.coarse.scratch = causal_scratch(c.gpt, c.max_prompt());
  m.coarse.kv = {nullptr, kv_type, c.gpt.n_layer, c.n_ctx(), c.gpt.n_embd, c.gpt.n_head};
  m.fine.scratch =
      GptScratch::plan(f.gpt.n_embd, f.input_length, f.input_length, config.codebook_size);
  // Exact where the weights are, or where the caller wants exact caches.
  const bool exact = f.gpt.matrix_type == DType::F32 || kv_type == DType::F32;
  m.fine.kv = {nullptr,     exact ? DType::F32 : DType::BF16, 1, f.input_length, f.gpt.n_embd,
               f.gpt.n_head};
  m.codec = CodecPlan::make(config.codec);
  return m;
}

int64_t SessionMemory::kv_bytes() const { return std::max(semantic.kv.bytes(), coarse.kv.bytes()); }

int64_t SessionMemory::activation_bytes() const {
  return std::max({semantic.scratch.bytes(), coarse.scratch.bytes(),
                   fine.scratch.bytes() + fine.kv.bytes(), codec.work_bytes()}) +
         codec.carry_bytes();
}

void SessionMemory::place(std::byte* kv, std::byte* activations) {
  semantic.scratch.place(activations);
  coarse.scratch.place(activations);
  fine.scratch.place(activations);
  semantic.kv.base = kv;
  coarse.kv.base = kv;
  fine.kv.base = activations + fine.scratch.bytes();
  codec_work = activations;
  codec_carry = activations + activation_bytes() - codec.carry_bytes();
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

CodecRun::CodecRun(const StageRun& run, int64_t n_frames)
    : run_(run),
      n_frames_(n_frames),
      decoder_(run.model.backend(), run.model.config().codec, run.model.weights().codec,
               run.memory.codec, run.memory.codec_work, run.memory.codec_carry) {}

int64_t CodecRun::wants(int64_t ready) const {
  const int64_t n = ready - done_;
  return ready == n_frames_ ? n : n - n % run_.memory.codec.chunk_frames;
}

void CodecRun::decode(const Codes& codes, const PcmSink& sink) {
  const int64_t chunk = run_.memory.codec.chunk_frames;
  const int64_t hop = run_.model.config().codec.hop_length();
  ids_.resize(codes.n_codebook * chunk);
  pcm_.resize(chunk * hop);
  for (int64_t at = 0; at < codes.n_frames;) {
    const int64_t n = std::min(chunk, codes.n_frames - at);
    for (int64_t q = 0; q < codes.n_codebook; ++q)
      std::copy_n(codes.ids.data() + q * codes.n_frames + at, n, ids_.data() + q * n);
    {
      const Engine::Turn turn(run_.model.engine(), run_.ticket);
      decoder_.decode(ids_.data(), n, pcm_.data());
    }
    at += n;
    done_ += n;
    sink(pcm_.data(), n * hop);
    run_.report(Stage::Codec, done_, n_frames_);
  }
}

void run_codec(const StageRun& run, const Codes& codes, const PcmSink& sink) {
  CodecRun(run, codes.n_frames).decode(codes, sink);
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
  const BusyMark busy(busy_, model_->backend());
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

  std::vector<int32_t> semantic;
  timed(stats, Stage::Semantic,
        [&] { semantic = run_semantic(run, text, request.semantic, request.max_semantic_tokens); });
  stats.n_semantic = static_cast<int64_t>(semantic.size());
  publish(Stage::Semantic, semantic, 1);

  // Each stage goes as far as what it has allows: a fine window needs the coarse frames it reads,
  // the codec the frames that no later window changes.
  CoarseRun coarse(run, semantic, request.coarse);
  FineRun fine(run, coarse.n_frames(), request.fine, request.fine_chunk);
  CodecRun codec(run, coarse.n_frames());
  stats.n_frames = coarse.n_frames();
  const auto hear = [&](const float* pcm, int64_t n) {
    stats.n_samples += n;
    if (sink.audio) continue_if(sink.audio(pcm, n));
  };
  do {
    const bool last = fine.last();
    timed(stats, Stage::Coarse, [&] { coarse.advance(last ? stats.n_frames : fine.needs()); });
    const Codes codes = coarse_codes(config, coarse.tokens());
    if (last) {
      stats.n_coarse = static_cast<int64_t>(coarse.tokens().size());
      publish(Stage::Coarse, codes.ids, codes.n_codebook);
    }
    timed(stats, Stage::Fine, [&] { fine.advance(codes); });
    if (last) {
      const Codes all = fine.codes(0, stats.n_frames);
      publish(Stage::Fine, all.ids, all.n_codebook);
    }
    timed(stats, Stage::Codec,
          [&] { codec.decode(fine.codes(codec.done(), codec.wants(fine.ready())), hear); });
  } while (!fine.done());
  return stats;
}

}  // namespace barkrt
