// component_test.cc: the codec of two models is held once, and only when it is the same.
#include "component.h"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <fstream>
#include <thread>

#include "error.h"
#include "session.h"
#include "synthetic.h"

namespace barkrt::test {
namespace {

const std::string kDigest(64, 'a');

// A model file in the folder for temporary files, until the end of the scope.
class File {
 public:
  explicit File(const GgufWriter& writer)
      : path_(::testing::TempDir() + "component_test_" + std::to_string(::getpid()) + "_" +
              std::to_string(n_files_++) + ".gguf") {
    std::ofstream(path_, std::ios::binary) << writer.content();
  }
  ~File() { ::unlink(path_.c_str()); }
  const std::string& path() const { return path_; }
  std::shared_ptr<const Model> load(const LoadProgress& progress = {}) const {
    return Model::load(Gguf::open(path_), 0, 1, progress);
  }

 private:
  static std::atomic<int> n_files_;
  const std::string path_;
};
std::atomic<int> File::n_files_{0};

Config deeper_config() {
  Config c = small_config();
  c.semantic.gpt.n_layer += 1;
  return c;
}

GgufWriter writer(const Config& config, const std::string& digest = kDigest) {
  SyntheticOptions options;
  options.codec_digest = digest;
  return synthetic_writer(config, options);
}

int64_t codec_bytes(const Gguf& gguf) {
  int64_t bytes = 0;
  for (const GgufTensor& t : gguf.tensors())
    if (t.name.substr(0, 6) == "codec.") bytes += t.bytes;
  return bytes;
}

int64_t live(Category c) { return device_account(0)->live(c); }

class Components : public ::testing::Test {
 protected:
  void TearDown() override { EXPECT_EQ(device_account(0)->total(), 0); }
};

std::vector<float> speak(const std::shared_ptr<const Model>& model) {
  Session session(model, DType::F16);
  Request request;
  request.text = "hello";
  request.seed = 3;
  request.semantic = request.coarse = request.fine = {0.7f, 1, 0, 0};
  std::vector<float> audio;
  Sink sink;
  sink.audio = [&](const float* pcm, int64_t n) {
    audio.insert(audio.end(), pcm, pcm + n);
    return true;
  };
  session.synthesize(request, sink);
  return audio;
}

TEST_F(Components, AreHeldAndCountedOnce) {
  const File a(writer(small_config())), b(writer(deeper_config()));
  const std::vector<float> alone = speak(b.load());
  std::shared_ptr<const Model> first = a.load();
  const std::shared_ptr<const Model> second = b.load();
  ASSERT_NE(first->component(), nullptr);
  EXPECT_EQ(first->component(), second->component());
  EXPECT_EQ(first->weights().codec.conv_in.weight.data,
            second->weights().codec.conv_in.weight.data);
  const int64_t bytes = codec_bytes(*Gguf::open(a.path()));
  EXPECT_EQ(first->component()->bytes(), bytes);
  EXPECT_EQ(live(Category::Shared), bytes);
  EXPECT_EQ(live(Category::Weights),
            first->account().live(Category::Weights) + second->account().live(Category::Weights));
  first.reset();
  EXPECT_EQ(live(Category::Shared), bytes);
  EXPECT_EQ(speak(second), alone);
}

TEST_F(Components, AreContainedInTheEstimateToTheByte) {
  const File a(writer(small_config())), b(writer(deeper_config()));
  const std::shared_ptr<const Model> first = a.load();   // alone
  const std::shared_ptr<const Model> second = b.load();  // sharing
  for (const auto& [file, model] : {std::pair{&a, first}, std::pair{&b, second}}) {
    Config config;
    const ModelBytes bytes = Model::estimate(*Gguf::open(file->path()), &config);
    ASSERT_TRUE(bytes.component);
    EXPECT_EQ(bytes.component->digest, kDigest);
    EXPECT_EQ(bytes.component->bytes, model->component()->bytes());
    EXPECT_EQ(bytes.weights,
              model->account().live(Category::Weights) + model->component()->bytes());
    EXPECT_EQ(bytes.tables, model->account().live(Category::Tables));
  }
}

TEST_F(Components, StayMappedWhenTheFileOfTheirFirstModelGoes) {
  const File a(writer(small_config())), b(writer(deeper_config()));
  std::shared_ptr<const Model> first = a.load();
  const std::shared_ptr<const Model> second = b.load();
  const size_t page = static_cast<size_t>(::sysconf(_SC_PAGESIZE));
  const auto mapped = [&](const void* p) {
    unsigned char resident;
    void* const start = reinterpret_cast<void*>(reinterpret_cast<uintptr_t>(p) / page * page);
    return ::mincore(start, 1, &resident) == 0;
  };
  const void* own = first->weights().semantic.wte[0].data;
  const void* shared = first->weights().codec.conv_in.weight.data;
  ASSERT_TRUE(mapped(own) && mapped(shared));
  first.reset();
  EXPECT_FALSE(mapped(own));
  EXPECT_TRUE(mapped(shared));
}

TEST_F(Components, OfAFalseDigestAreNotSharedAndTheFileIsNamed) {
  Config other = small_config();
  other.codec.n_filter *= 2;  // other shapes, so other bytes
  const File honest(writer(small_config())), liar(writer(other));
  std::vector<std::string> lines;
  set_log_sink(
      [](void* user, int32_t, const char* text) {
        static_cast<std::vector<std::string>*>(user)->emplace_back(text);
      },
      &lines);
  const std::shared_ptr<const Model> first = honest.load();
  const std::shared_ptr<const Model> second = liar.load();
  set_log_sink(nullptr, nullptr);
  ASSERT_NE(first->component(), nullptr);
  EXPECT_EQ(second->component(), nullptr);
  Config config;
  EXPECT_EQ(second->account().live(Category::Weights),
            Model::estimate(*Gguf::open(liar.path()), &config).weights);
  ASSERT_FALSE(lines.empty());
  EXPECT_NE(lines.back().find(liar.path()), std::string::npos) << lines.back();
}

TEST_F(Components, ThatDifferInOneByteAreNotShared) {
  std::string bytes = writer(small_config()).content();
  const File honest(writer(small_config())), damaged(writer(small_config()));
  const std::shared_ptr<const Gguf> gguf = Gguf::open(honest.path());
  const GgufTensor* last = gguf->find("codec.conv_out.weight");
  ASSERT_NE(last, nullptr);
  bytes[static_cast<size_t>(last->offset + last->bytes - 2)] ^= 1;
  std::ofstream(damaged.path(), std::ios::binary | std::ios::trunc) << bytes;
  const std::shared_ptr<const Model> first = honest.load();
  EXPECT_EQ(damaged.load()->component(), nullptr);
  EXPECT_EQ(honest.load()->component(), first->component());
}

TEST_F(Components, NeedADigest) {
  const File a(writer(small_config(), "")), b(writer(small_config(), ""));
  const std::shared_ptr<const Model> first = a.load();
  const std::shared_ptr<const Model> second = b.load();
  EXPECT_EQ(first->component(), nullptr);
  EXPECT_NE(first->weights().codec.conv_in.weight.data,
            second->weights().codec.conv_in.weight.data);
  EXPECT_EQ(live(Category::Shared), 0);
}

TEST_F(Components, WithAMalformedDigestMakeABadModel) {
  for (const std::string& digest :
       {std::string("abc"), std::string(64, 'A'), std::string(65, 'a')}) {
    const File file(writer(small_config(), digest));
    try {
      file.load();
      FAIL() << digest;
    } catch (const Error& e) {
      EXPECT_EQ(e.status(), Status::BadModel);
      EXPECT_NE(std::string(e.what()).find("bark.codec.sha256"), std::string::npos) << e.what();
    }
  }
}

TEST_F(Components, LieTogetherInTheFile) {
  const auto plan = [](const std::vector<const char*>& names) {
    GgufWriter w;
    w.string("bark.codec.sha256", kDigest);
    for (const char* name : names) w.tensor(name, {3}, std::vector<float>(3));
    const Image image = w.build();
    return plan_codec(*Gguf::from_memory(image.data(), image.bytes()));
  };
  const std::optional<ComponentPlan> together = plan({"fine.x", "codec.b", "codec.a", "voice.y"});
  ASSERT_TRUE(together);
  EXPECT_EQ(together->tensors[0].name, "codec.a");
  EXPECT_EQ(together->bytes, 24);
  EXPECT_EQ(together->end - together->begin, 64 + 12);
  EXPECT_FALSE(plan({"codec.a", "fine.x", "codec.b"}));
  EXPECT_FALSE(plan({"fine.x"}));
}

TEST_F(Components, InTheCallersMemoryAreSharedWithTheSameMemoryOnly) {
  const Image image = writer(small_config()).build(), copy = writer(small_config()).build();
  const auto load = [](const Image& from) {
    return Model::load(Gguf::from_memory(from.data(), from.bytes()), 0, 1, {});
  };
  const std::shared_ptr<const Model> first = load(image);
  EXPECT_EQ(load(image)->component(), first->component());
  EXPECT_EQ(load(copy)->component(), nullptr);  // which its caller may free before `image`
  const File file(writer(small_config()));
  EXPECT_EQ(file.load()->component(), nullptr);
}

TEST_F(Components, OfALoadStoppedAnywhereAreGone) {
  const File file(writer(small_config()));
  int64_t n_calls = 0;
  file.load([&](int64_t, int64_t) { return ++n_calls > 0; });
  for (int64_t stop = 1; stop <= n_calls; ++stop) {
    int64_t call = 0;
    EXPECT_THROW(file.load([&](int64_t, int64_t) { return ++call < stop; }), Error);
    EXPECT_EQ(device_account(0)->total(), 0) << stop;
  }
  // ... and when another model holds them, they stay.
  const std::shared_ptr<const Model> first = file.load();
  const int64_t held = device_account(0)->total();
  int64_t call = 0;
  EXPECT_THROW(file.load([&](int64_t, int64_t) { return ++call < 5; }), Error);
  EXPECT_EQ(device_account(0)->total(), held);
}

TEST_F(Components, OfLoadsAtTheSameTimeAreHeldOnce) {
  const File a(writer(small_config())), b(writer(deeper_config()));
  const int64_t bytes = codec_bytes(*Gguf::open(a.path()));
  for (int round = 0; round < 20; ++round) {
    std::vector<std::shared_ptr<const Model>> models(4);
    std::vector<std::thread> threads;
    for (size_t i = 0; i < models.size(); ++i)
      threads.emplace_back([&, i] { models[i] = (i % 2 ? a : b).load(); });
    for (std::thread& t : threads) t.join();
    for (const auto& model : models) EXPECT_EQ(model->component(), models[0]->component());
    EXPECT_EQ(live(Category::Shared), bytes);
    threads.clear();
    for (auto& model : models) threads.emplace_back([&model] { model.reset(); });
    for (std::thread& t : threads) t.join();
    EXPECT_EQ(device_account(0)->total(), 0);
  }
}

}  // namespace
}  // namespace barkrt::test
