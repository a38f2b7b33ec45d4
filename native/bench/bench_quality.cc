// bench_quality.cc: what other types of weights and of the key-value cache cost in quality, stage
// by stage: along a run of the reference (f32 weights and cache) how often the likeliest token is
// the same and how far the distributions are apart, and where a run that goes its own way first
// takes another token. Fails where 4 bits of a trained model do not pass their gate. Usage:
//   bench_quality [--json=FILE] [--tokens=N] [--texts=N] REFERENCE.gguf OTHER.gguf ...
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "error.h"
#include "gguf.h"
#include "session.h"
#include "teacher.h"

namespace barkrt::bench {
namespace {

constexpr int kStages = 3;  // the codec is F32 in every file
const char* const kStageNames[kStages] = {"semantic", "coarse", "fine"};

const char* const kTexts[] = {
    "Hello, my name is Bark, and I like to speak.",
    "The train leaves at nine, so we have to be quick.",
    "It was a bright cold day in April, and the clocks were striking.",
    "She opened the window and listened to the rain.",
    "Dr. Smith paid the other half of the bill, didn't he?",
    "A journey of a thousand miles begins with a single step.",
    "Nobody knows what will happen tomorrow.",
    "Please put the red box on the table, and the green one under it.",
};
constexpr int kTextCount = sizeof kTexts / sizeof *kTexts;

struct Settings {
  std::string json;
  int64_t max_tokens = 0;
  int n_texts = kTextCount;
  std::vector<std::string> files;
};

using Tokens = std::vector<int32_t>;

// The tokens of each stage, from the same inputs whichever model runs: the stages before it are the
// reference's sampled ones.
struct Run {
  Tokens stage[kStages];
};

// Rows of logits of one stage, one after the other.
struct Rows {
  int64_t n_cols = 0;
  std::vector<float> values;
};

// What the reference did with one text.
struct Reference {
  Tokens text_ids;
  Run greedy, sampled;
  Tokens fine_window;
  Rows logits[kStages];
};

// One stage of one candidate, over all texts.
struct Quality {
  int64_t n_rows = 0, n_same = 0;
  double kl_sum = 0, kl_max = 0;  // nats
  struct Free {
    int64_t n_runs = 0, n_same = 0;
    std::vector<double> first;  // positions of the first other token, as shares of the length
  } greedy, sampled;

  double top1() const { return static_cast<double>(n_same) / static_cast<double>(n_rows); }
};

Sampling temperature(float t, float min_eos_p) {
  Sampling s;
  s.temperature = t, s.min_eos_p = min_eos_p;
  return s;
}

// Fine codes in the order in which they are predicted.
Tokens predicted(const Config& config, const Codes& codes) {
  return {codes.ids.begin() + config.coarse.n_codebook * codes.n_frames, codes.ids.end()};
}

// base: the reference's sampled run, or NULL to make it.
Run run_stages(const Session& session, const Tokens& text_ids, bool greedy, int64_t max_tokens,
               const Run* base) {
  const Config& config = session.model().config();
  Request request;
  request.seed = 1;
  const StageRun run = session.run(request);
  const float on = greedy ? 0.0f : 1.0f;
  Run out;
  out.stage[0] =
      run_semantic(run, text_ids, temperature(0.7f * on, greedy ? 0.0f : 0.2f), max_tokens);
  const Tokens& semantic = base ? base->stage[0] : out.stage[0];
  out.stage[1] = run_coarse(run, semantic, temperature(0.7f * on, 0));
  const Tokens& coarse = base ? base->stage[1] : out.stage[1];
  out.stage[2] =
      predicted(config, run_fine(run, coarse_codes(config, coarse), temperature(0.5f * on, 0)));
  return out;
}

// Calls on_logits(stage, row, n) along the reference's sampled run.
template <class F>
void along(const Session& session, const Tokens& text_ids, const Run& sampled, Tokens& fine_window,
           const F& on_logits) {
  const StageRun run = session.run({});
  const auto stage = [&](int s) {
    return [&on_logits, s](const float* row, int64_t n) { on_logits(s, row, n); };
  };
  semantic_logits(run, text_ids, sampled.stage[0], stage(0));
  coarse_logits(run, sampled.stage[0], sampled.stage[1], stage(1));
  fine_logits(run, coarse_codes(session.model().config(), sampled.stage[1]), fine_window, stage(2));
}

Reference reference_of(const Session& session, const char* text, int64_t max_tokens) {
  const Config& config = session.model().config();
  Reference r;
  r.text_ids = session.model().tokenizer().encode(text, Rules::Suno);
  r.sampled = run_stages(session, r.text_ids, false, max_tokens, nullptr);
  if (r.sampled.stage[1].empty())
    fail(Status::Unsupported, "the model says nothing to \"%s\"", text);
  if (static_cast<int64_t>(r.sampled.stage[1].size()) / config.coarse.n_codebook >
      config.fine.input_length)
    fail(Status::Unsupported, "\"%s\" takes over %lld frames: use fewer tokens", text,
         static_cast<long long>(config.fine.input_length));
  r.greedy = run_stages(session, r.text_ids, true, max_tokens, &r.sampled);
  along(session, r.text_ids, r.sampled, r.fine_window, [&](int s, const float* row, int64_t n) {
    r.logits[s].n_cols = n;
    r.logits[s].values.insert(r.logits[s].values.end(), row, row + n);
  });
  return r;
}

// log sum exp, in double.
double log_sum(const float* row, int64_t n) {
  const double top = *std::max_element(row, row + n);
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += std::exp(row[i] - top);
  return top + std::log(sum);
}

// sum p log(p / q) of the two softmaxes.
double divergence(const float* p, const float* q, int64_t n) {
  const double p_sum = log_sum(p, n), q_sum = log_sum(q, n);
  double kl = 0;
  for (int64_t i = 0; i < n; ++i) {
    const double log_p = p[i] - p_sum;
    kl += std::exp(log_p) * (log_p - (q[i] - q_sum));
  }
  return kl;
}

void add_row(Quality& quality, const float* reference, const float* row, int64_t n) {
  const double kl = divergence(reference, row, n);
  ++quality.n_rows;
  quality.n_same += std::max_element(reference, reference + n) - reference ==
                    std::max_element(row, row + n) - row;
  quality.kl_sum += kl;
  quality.kl_max = std::max(quality.kl_max, kl);
}

void add_run(Quality::Free& free, const Tokens& reference, const Tokens& tokens) {
  const size_t n = std::min(reference.size(), tokens.size());
  const auto differ = std::mismatch(reference.begin(), reference.begin() + n, tokens.begin()).first;
  ++free.n_runs;
  if (differ == reference.end() && reference.size() == tokens.size())
    ++free.n_same;
  else
    free.first.push_back(static_cast<double>(differ - reference.begin()) /
                         static_cast<double>(std::max<size_t>(reference.size(), 1)));
}

void compare(const Session& session, const Reference& r, int64_t max_tokens, Quality* quality) {
  Tokens window = r.fine_window;
  int64_t next[kStages] = {};
  along(session, r.text_ids, r.sampled, window, [&](int s, const float* row, int64_t n) {
    BARKRT_CHECK(n == r.logits[s].n_cols);
    add_row(quality[s], r.logits[s].values.data() + next[s]++ * n, row, n);
  });
  const Run greedy = run_stages(session, r.text_ids, true, max_tokens, &r.sampled);
  const Run sampled = run_stages(session, r.text_ids, false, max_tokens, &r.sampled);
  for (int s = 0; s < kStages; ++s) {
    add_run(quality[s].greedy, r.greedy.stage[s], greedy.stage[s]);
    add_run(quality[s].sampled, r.sampled.stage[s], sampled.stage[s]);
  }
}

double median(std::vector<double> values) {
  if (values.empty()) return 1;
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

std::string free_text(const Quality::Free& free) {
  char text[64];
  std::snprintf(text, sizeof text, "%lld of %lld, at %.0f %%", static_cast<long long>(free.n_same),
                static_cast<long long>(free.n_runs), 100 * median(free.first));
  if (free.first.empty()) *std::strchr(text, ',') = 0;
  return text;
}

void print(const std::string& name, const Quality* quality) {
  for (int s = 0; s < kStages; ++s) {
    const Quality& q = quality[s];
    std::printf("| %-22s | %-8s | %6lld | %7.2f %% | %9.2e | %9.2e | %-20s | %-20s |\n",
                s == 0 ? name.c_str() : "", kStageNames[s], static_cast<long long>(q.n_rows),
                100 * q.top1(), q.kl_sum / static_cast<double>(q.n_rows), q.kl_max,
                free_text(q.greedy).c_str(), free_text(q.sampled).c_str());
  }
  std::fflush(stdout);
}

void write_json(std::FILE* file, const std::string& reference, const std::string& name,
                const Quality* quality) {
  for (int s = 0; s < kStages; ++s) {
    const Quality& q = quality[s];
    std::fprintf(file,
                 "{\"reference\":\"%s\",\"model\":\"%s\",\"stage\":\"%s\",\"rows\":%lld,"
                 "\"top1\":%.6g,\"kl_mean\":%.4g,\"kl_max\":%.4g",
                 reference.c_str(), name.c_str(), kStageNames[s], static_cast<long long>(q.n_rows),
                 q.top1(), q.kl_sum / static_cast<double>(q.n_rows), q.kl_max);
    for (const auto& [label, free] :
         {std::pair<const char*, const Quality::Free&>("greedy", q.greedy), {"sampled", q.sampled}})
      std::fprintf(file, ",\"%s\":{\"runs\":%lld,\"same\":%lld,\"first_divergence\":%.4g}", label,
                   static_cast<long long>(free.n_runs), static_cast<long long>(free.n_same),
                   median(free.first));
    std::fprintf(file, "}\n");
  }
}

std::string stem(const std::string& path) {
  const size_t slash = path.find_last_of('/');
  const std::string name = slash == std::string::npos ? path : path.substr(slash + 1);
  return name.substr(0, name.rfind(".gguf"));
}

// A file with a cache.
struct Candidate {
  std::string label;
  DType kv = DType::F16;
  bool is_8_bit = false, is_4_bit = false;  // the layers of the decode stages
  Quality quality[kStages];
};

// Whether 4 bits agree with the reference as often as this part of 8 bits' agreement, in both
// decode stages, with the same cache.
constexpr double kGate = 0.95;
bool passes_gate(const std::vector<Candidate>& candidates) {
  bool passes = true;
  for (const Candidate& four : candidates)
    for (const Candidate& eight : candidates) {
      if (!four.is_4_bit || !eight.is_8_bit || four.kv != eight.kv) continue;
      std::printf("%s has of %s's agreement", four.label.c_str(), eight.label.c_str());
      for (const int s : {0, 1}) {
        const double part = four.quality[s].top1() / eight.quality[s].top1();
        std::printf("%s %.1f %% (%s)", s == 0 ? "" : ",", 100 * part, kStageNames[s]);
        passes = passes && part >= kGate;
      }
      std::printf("\n");
    }
  return passes;
}

bool bench(const Settings& settings) {
  std::FILE* json = settings.json.empty() ? nullptr : std::fopen(settings.json.c_str(), "a");
  if (!settings.json.empty() && !json)
    fail(Status::NotFound, "cannot write %s", settings.json.c_str());
  const std::string name = stem(settings.files[0]);
  const auto model = Model::load(Gguf::open(settings.files[0]), 0, 0, {});
  if (model->weights().semantic.blocks[0].c_fc.weight.type != DType::F32)
    fail(Status::InvalidArgument, "%s: the reference must have f32 weights",
         settings.files[0].c_str());
  std::printf("against %s with a cache of f32, %d texts; %s\n", name.c_str(), settings.n_texts,
              describe_device(0).detail.c_str());
  if (!model->config().trained) std::printf("random weights: the figures say little of speech\n");
  std::vector<Reference> references;
  {
    const Session session(model, DType::F32);
    for (int i = 0; i < settings.n_texts; ++i)
      references.push_back(reference_of(session, kTexts[i], settings.max_tokens));
  }
  std::printf("| %-22s | %-8s | %6s | %9s | %9s | %9s | %-20s | %-20s |\n", "weights, cache",
              "stage", "tokens", "top 1", "KL mean", "KL max", "greedy runs equal",
              "sampled runs equal");
  std::printf("| --- | --- | --- | --- | --- | --- | --- | --- |\n");
  std::vector<Candidate> candidates;
  for (size_t i = 0; i < settings.files.size(); ++i) {
    const std::string& path = settings.files[i];
    const auto other = i == 0 ? model : Model::load(Gguf::open(path), 0, 0, {});
    const Matrix& weight = other->weights().semantic.blocks[0].mlp_c_proj.weight;
    for (const DType kv : {DType::F16, DType::I8}) {
      const Session session(other, kv);
      Candidate c;
      c.label = stem(path) + (kv == DType::I8 ? ", i8" : ", f16");
      c.kv = kv;
      c.is_4_bit = weight.type == DType::I4;
      c.is_8_bit = weight.scale != nullptr;
      for (const Reference& r : references) compare(session, r, settings.max_tokens, c.quality);
      print(c.label, c.quality);
      if (json) write_json(json, name, c.label, c.quality);
      candidates.push_back(std::move(c));
    }
  }
  if (json) std::fclose(json);
  if (passes_gate(candidates) || !model->config().trained) return true;
  std::printf("4 bits do not pass their gate: at least %.0f %% of 8 bits' agreement is wanted\n",
              100 * kGate);
  return false;
}

}  // namespace
}  // namespace barkrt::bench

int main(int argc, char** argv) {
  barkrt::bench::Settings settings;
  for (int i = 1; i < argc; ++i) {
    if (std::strncmp(argv[i], "--json=", 7) == 0)
      settings.json = argv[i] + 7;
    else if (std::strncmp(argv[i], "--tokens=", 9) == 0)
      settings.max_tokens = std::atoll(argv[i] + 9);
    else if (std::strncmp(argv[i], "--texts=", 8) == 0)
      settings.n_texts = std::clamp(std::atoi(argv[i] + 8), 1, barkrt::bench::kTextCount);
    else
      settings.files.push_back(argv[i]);
  }
  if (settings.files.empty()) {
    std::fprintf(stderr,
                 "usage: bench_quality [--json=FILE] [--tokens=N] [--texts=N] REFERENCE.gguf "
                 "[OTHER.gguf ...]\n");
    return 2;
  }
  try {
    return barkrt::bench::bench(settings) ? 0 : 1;
  } catch (const std::exception& e) {
    std::fprintf(stderr, "%s\n", e.what());
    return 1;
  }
}
