// gpt.h: one transformer for all three stages: weights, cache, working memory, forward pass.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "backend.h"
#include "config.h"
#include "tensor.h"

namespace barkrt {

// An affine map or norm; pointers are device memory, bias may be NULL.
struct Norm {
  const float* weight = nullptr;  // (C)
  const float* bias = nullptr;    // (C)
};
struct Linear {
  Matrix weight;                // (out, in)
  const float* bias = nullptr;  // (out)
};

struct BlockWeights {
  Norm ln_1, ln_2;
  Linear c_attn;  // (3C, C): rows of Q, K, V
  Linear attn_c_proj;
  Linear c_fc;  // (4C, C)
  Linear mlp_c_proj;
};

struct GptWeights {
  std::vector<Matrix> wte;  // (V_in, C): one table, or one per codebook
  Matrix wpe;               // (block_size, C)
  std::vector<BlockWeights> blocks;
  Norm ln_f;
  std::vector<Matrix> lm_head;  // (V_out, C): one, or one per predicted codebook
  int64_t n_head = 0;
  int64_t n_embd = 0;
};

// One sequence's keys and values of every layer, in one block of device memory, borrowed.
struct KvCache {
  std::byte* base = nullptr;
  DType type = DType::F16;  // as KvLayer's
  int64_t n_layer = 0;      // 1 for a stage without a cache: all layers overwrite the same rows
  int64_t n_ctx = 0;
  int64_t n_embd = 0;
  int64_t n_head = 0;

  // K or V of one layer.
  int64_t half_bytes() const {
    return buffer_bytes(n_head * kv_head_bytes(type, n_ctx, n_embd / n_head));
  }
  int64_t bytes() const { return 2 * n_layer * half_bytes(); }
  KvLayer layer(int64_t i) const;
};

// Working memory of forward passes of up to max_rows rows, borrowed device memory.
struct GptScratch {
  int64_t max_rows = 0;
  int64_t n_embd = 0;
  int64_t wide_floats = 0;
  float* x = nullptr;     // (max_rows, C) the residual stream
  float* h = nullptr;     // (max_rows, C)
  float* wide = nullptr;  // qkv, then the MLP's hidden rows, then logits

  // Sizes for passes of max_rows rows and max_logit_rows x n_logit logits.
  static GptScratch plan(int64_t n_embd, int64_t max_rows, int64_t max_logit_rows, int64_t n_logit);
  int64_t bytes() const;
  void place(std::byte* base);  // base has bytes() bytes, 64-byte aligned
};

// What a forward pass reads: row t is sum_s tables[s][ids[s * T + t]] + wpe[pos[t]]; a negative id
// adds nothing.
struct GptInput {
  const int32_t* ids = nullptr;  // (n_tables, T), host
  const Matrix* tables = nullptr;
  int64_t n_tables = 0;
};

// Rows first .. end-1 of a pass.
struct RowRange {
  int64_t first = 0, end = 0;
  int64_t count() const { return end - first; }
};

// Runs all blocks over the rows, which may belong to several sequences: slot[t] is an index among
// the n_slots of each layer of kv, (layers, n_slots), host (ascending positions within a slot).
// Causal: K and V are appended to the row's cache and each row sees its sequence up to itself.
// Otherwise the rows are one whole sequence and see each other. The result is scratch.x, valid in
// the rows `needed`: the others only serve as keys. Calls before_block, if there is one, before
// every block: it may wait, and may throw.
void gpt_forward(Backend& backend, const GptWeights& weights, const GptScratch& scratch,
                 const KvLayer* kv, int64_t n_slots, const GptInput& input, const Rows& rows,
                 bool causal, RowRange needed, const std::function<void()>& before_block);
// The same with the slots' caches.
void gpt_forward(Backend& backend, const GptWeights& weights, const GptScratch& scratch,
                 const std::vector<KvCache>& caches, const GptInput& input, const Rows& rows,
                 bool causal, RowRange needed, const std::function<void()>& before_block);

// Final norm of rows first .. first+count-1 of scratch.x, into scratch.h.
ConstView gpt_final_norm(Backend& backend, const GptWeights& weights, const GptScratch& scratch,
                         int64_t first, int64_t count);

// h (T, C), normed, times some parts of an output head, side by side: (T, all parts' rows), in
// scratch.wide from float `offset` on.
View gpt_logits(Backend& backend, const GptScratch& scratch, ConstView h, const Matrix* parts,
                int64_t n_parts, int64_t offset = 0);

// One growing sequence of a causal stage.
class Sequence {
 public:
  // kv holds the first n_past positions already.
  Sequence(Backend& backend, const GptWeights& weights, const GptScratch& scratch,
           const KvCache& kv, int64_t n_past = 0);

  int64_t n_past() const { return n_past_; }
  const KvCache& kv() const { return kv_; }
  // Forgets the positions from n_past on.
  void rewind(int64_t n_past);
  // Appends n_rows rows. ids as GptInput's, host; before_block as gpt_forward's.
  void feed(const int32_t* ids, const Matrix* tables, int64_t n_tables, int64_t n_rows,
            const std::function<void()>& before_block = {});
  // Counts one row that another pass has put into the cache.
  void note_fed() { ++n_past_; }
  // Logits of the last row fed, for the given parts of the output head, side by side.
  ConstView logits(const Matrix* parts, int64_t n_parts);

 private:
  Backend& backend_;
  const GptWeights& weights_;
  const GptScratch& scratch_;
  const KvCache& kv_;
  int64_t n_past_ = 0;
  int64_t last_row_ = 0;  // of scratch.x
  std::vector<int32_t> slots_, positions_;
};

}  // namespace barkrt
