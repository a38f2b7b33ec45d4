#include "gpt.h"

#include <algorithm>

#include "error.h"

namespace barkrt {

KvLayer KvCache::layer(int64_t i) const {
  KvLayer layer;
  layer.k = base + 2 * (n_layer == 1 ? 0 : i) * half_bytes();
  layer.v = static_cast<std::byte*>(layer.k) + half_bytes();
  layer.type = type;
  layer.n_ctx = n_ctx;
  layer.n_embd = n_embd;
  return layer;
}

GptScratch GptScratch::plan(int64_t n_embd, int64_t max_rows, int64_t max_logit_rows,
                            int64_t n_logit) {
  GptScratch s;
  s.max_rows = max_rows;
  s.n_embd = n_embd;
  s.wide_floats = std::max(max_rows * 4 * n_embd, max_logit_rows * n_logit);
  return s;
}

int64_t GptScratch::bytes() const {
  return 2 * buffer_bytes(max_rows * n_embd * 4) + buffer_bytes(wide_floats * 4);
}

void GptScratch::place(std::byte* base) {
  const int64_t row_bytes = buffer_bytes(max_rows * n_embd * 4);
  x = reinterpret_cast<float*>(base);
  h = reinterpret_cast<float*>(base + row_bytes);
  wide = reinterpret_cast<float*>(base + 2 * row_bytes);
}

void gpt_forward(Backend& backend, const GptWeights& weights, const GptScratch& scratch,
                 const KvLayer* kv, int64_t n_slots, const GptInput& input, const Rows& rows,
                 bool causal, RowRange needed, const std::function<void()>& before_block) {
  const int64_t n_rows = rows.count;
  const int64_t n_embd = weights.n_embd;
  const int64_t n_layer = static_cast<int64_t>(weights.blocks.size());
  BARKRT_CHECK(n_rows >= 1 && n_rows <= scratch.max_rows && n_embd == scratch.n_embd);
  BARKRT_CHECK(needed.first >= 0 && needed.first < needed.end && needed.end <= n_rows);
  const View x = view(scratch.x, n_rows, n_embd);
  const View h = view(scratch.h, n_rows, n_embd);
  const View qkv = view(scratch.wide, n_rows, 3 * n_embd);
  const View hidden = view(scratch.wide, n_rows, 4 * n_embd);

  backend.embed(x, input.ids, input.tables, input.n_tables, &weights.wpe, rows.pos);
  for (int64_t i = 0; i < n_layer; ++i) {
    if (before_block) before_block();
    const BlockWeights& w = weights.blocks[i];
    const Matrix* next_block = i + 1 < n_layer ? &weights.blocks[i + 1].c_attn.weight : nullptr;
    backend.linear(qkv, x, w.c_attn.weight, w.c_attn.bias, {},
                   {w.ln_1.weight, w.ln_1.bias, false, &w.attn_c_proj.weight});
    backend.attention(h, qkv, kv + i * n_slots, rows, weights.n_head, causal,
                      &w.attn_c_proj.weight);

    // Nobody reads the last block's other rows.
    const RowRange read = i == n_layer - 1 ? needed : RowRange{0, n_rows};
    const View xs = x.slice(read.first, read.count());
    const View hs = h.slice(read.first, read.count());
    const View ms = hidden.slice(read.first, read.count());
    backend.linear(xs, hs, w.attn_c_proj.weight, w.attn_c_proj.bias, xs,
                   {nullptr, nullptr, false, &w.c_fc.weight});
    backend.linear(ms, xs, w.c_fc.weight, w.c_fc.bias, {},
                   {w.ln_2.weight, w.ln_2.bias, true, &w.mlp_c_proj.weight});
    backend.linear(xs, ms, w.mlp_c_proj.weight, w.mlp_c_proj.bias, xs,
                   {nullptr, nullptr, false, next_block});
  }
}

void gpt_forward(Backend& backend, const GptWeights& weights, const GptScratch& scratch,
                 const std::vector<KvCache>& caches, const GptInput& input, const Rows& rows,
                 bool causal, RowRange needed, const std::function<void()>& before_block) {
  std::vector<KvLayer> kv;
  for (size_t i = 0; i < weights.blocks.size(); ++i)
    for (const KvCache& cache : caches) kv.push_back(cache.layer(static_cast<int64_t>(i)));
  gpt_forward(backend, weights, scratch, kv.data(), static_cast<int64_t>(caches.size()), input,
              rows, causal, needed, before_block);
}

ConstView gpt_final_norm(Backend& backend, const GptWeights& weights, const GptScratch& scratch,
                         int64_t first, int64_t count) {
  const View x = view(scratch.x, scratch.max_rows, scratch.n_embd).slice(first, count);
  const View h = view(scratch.h, scratch.max_rows, scratch.n_embd).slice(first, count);
  backend.layernorm(h, x, weights.ln_f.weight, weights.ln_f.bias);
  return h;
}

View gpt_logits(Backend& backend, const GptScratch& scratch, ConstView h, const Matrix* parts,
                int64_t n_parts, int64_t offset) {
  int64_t n = 0;
  for (int64_t i = 0; i < n_parts; ++i) n += parts[i].rows;
  BARKRT_CHECK(offset + h.rows * n <= scratch.wide_floats);
  const View logits = view(scratch.wide + offset, h.rows, n);
  int64_t column = 0;
  for (int64_t i = 0; i < n_parts; ++i) {
    const View part{logits.data + column, h.rows, parts[i].rows, n};
    backend.linear(part, h, parts[i], nullptr, {});
    column += parts[i].rows;
  }
  return logits;
}

Sequence::Sequence(Backend& backend, const GptWeights& weights, const GptScratch& scratch,
                   const KvCache& kv, int64_t n_past)
    : backend_(backend), weights_(weights), scratch_(scratch), kv_(kv), n_past_(n_past) {
  slots_.assign(scratch.max_rows, 0);
  positions_.resize(scratch.max_rows);
}

void Sequence::rewind(int64_t n_past) {
  BARKRT_CHECK(n_past >= 0 && n_past <= n_past_);
  n_past_ = n_past;
}

void Sequence::feed(const int32_t* ids, const Matrix* tables, int64_t n_tables, int64_t n_rows,
                    const std::function<void()>& before_block) {
  BARKRT_CHECK(n_rows >= 1 && n_rows <= scratch_.max_rows && n_past_ + n_rows <= kv_.n_ctx);
  for (int64_t t = 0; t < n_rows; ++t) positions_[t] = static_cast<int32_t>(n_past_ + t);
  last_row_ = n_rows - 1;
  gpt_forward(backend_, weights_, scratch_, {kv_}, {ids, tables, n_tables},
              {n_rows, slots_.data(), positions_.data()}, true, {last_row_, n_rows}, before_block);
  n_past_ += n_rows;
}

ConstView Sequence::logits(const Matrix* parts, int64_t n_parts) {
  const ConstView h = gpt_final_norm(backend_, weights_, scratch_, last_row_, 1);
  return gpt_logits(backend_, scratch_, h, parts, n_parts);
}

}  // namespace barkrt
