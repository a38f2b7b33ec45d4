// backend.h: the only seam between the model (written once, above) and a device.
//
// Every op is mandatory on every device, works on rows of any number of sequences at once, and
// gives a row the same bits whatever its neighbours and the number of threads. On a GPU that holds
// for calls of up to 16 rows (Engine::kMaxBatch), which requests share; in a longer one, which is
// one request's own, the bits may depend on the number of rows. Pointers in views and matrices are
// device memory; ids, slots, positions and parameters are host memory, borrowed for the call. Ops
// may run asynchronously, a thread's in call order; download(), sample() and synchronize() wait for
// those of the calling thread, and an op that throws leaves none of them running. Any thread may
// call, concurrently for different sessions.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "memory.h"
#include "sampling.h"
#include "tensor.h"

namespace barkrt {

// Which sequence each row belongs to, and where in it.
struct Rows {
  int64_t count = 0;
  const int32_t* slot = nullptr;  // (count) index of the sequence among those of the call
  const int32_t* pos = nullptr;   // (count) position in the sequence, 0-based
};

// Keys and values of one layer of one sequence: k and v are each (n_head, n_ctx, head_dim), so that
// what one head reads lies in one stretch of kv_head_bytes().
struct KvLayer {
  void* k = nullptr;
  void* v = nullptr;
  // F16, F32 or I8. BF16 for calls that are not causal: their queries and weights may be rounded to
  // bf16 too, and what lies in the layer is then in an order of the device's own.
  DType type = DType::F16;
  int64_t n_ctx = 0;
  int64_t n_embd = 0;
};

// Bytes of one head's keys or values. I8: round(x / scale) with scale = max|x| / 127 of the head's
// numbers at a position; behind the (n_ctx, head_dim) numbers, at a multiple of 64 bytes, lie the
// (n_ctx) f32 scales.
constexpr int64_t kv_head_bytes(DType type, int64_t n_ctx, int64_t head_dim) {
  const int64_t numbers = n_ctx * head_dim * dtype_bytes(type);
  return type == DType::I8 ? buffer_bytes(numbers) + buffer_bytes(n_ctx * 4) : numbers;
}

// What a product does beside the product, so that rows are not written and read once more.
struct Fused {
  const float* gamma = nullptr;  // (K): x is layernorm(x, gamma, beta); NULL: x as it is
  const float* beta = nullptr;   // (K) or NULL
  bool gelu = false;             // out = gelu(product + bias); not with `add`
  // Weights of the caller's next product, which may be fetched early; no effect on results.
  const Matrix* next = nullptr;
};

// Host memory of a pass that comes again: what its ops read, and behind it the ids it draws.
struct HostBlock {
  std::byte* data = nullptr;
  int64_t input_bytes = 0;
  int64_t bytes = 0;  // with the ids
};

class Backend {
 public:
  virtual ~Backend() = default;

  // --- memory: device addresses, 64-byte aligned ---
  virtual std::string device() const = 0;                  // "cpu", for error texts
  virtual void* alloc(int64_t bytes) = 0;                  // throws OutOfMemory
  virtual void free(void* p, int64_t bytes) noexcept = 0;  // bytes as alloc was given
  virtual void upload(void* dst, const void* host_src, int64_t bytes) = 0;
  virtual void download(void* host_dst, const void* src, int64_t bytes) = 0;
  virtual void copy(void* dst, const void* src, int64_t bytes) = 0;  // may overlap, as memmove
  virtual void zero(void* dst, int64_t bytes) = 0;
  virtual void synchronize() = 0;
  // Where the device reads `bytes` of weights that lie at `host`. The CPU returns `host` itself
  // (used in place); other devices allocate and upload, and other threads may use the weights once
  // this one has called synchronize(). On the CPU `host` must stay mapped until release_weights; on
  // others it may go on return.
  virtual const void* place_weights(const void* host, int64_t bytes) = 0;
  virtual void release_weights(const void* placed) noexcept = 0;

  // Whether linear() takes weights of this type. A model of I4 is refused elsewhere, and I8Tiles
  // become I8 before they are placed.
  virtual bool has_weight_type(DType type) const { return type != DType::I32 && !has_tiles(type); }

  // --- ops; T rows, C channels ---
  // out[t] = sum_s tables[s][ids[s * T + t]] (+ wpe[pos[t]]); a negative id adds nothing, a NULL
  // pos means no wpe. Tables may have different types. ids are (S, T).
  virtual void embed(View out, const int32_t* ids, const Matrix* tables, int64_t n_tables,
                     const Matrix* wpe, const int32_t* pos) = 0;
  // out[t] = gamma * (x[t] - mean) / sqrt(var + 1e-5) + beta; biased variance in two passes; beta
  // may be NULL. In place allowed.
  virtual void layernorm(View out, ConstView x, const float* gamma, const float* beta) = 0;
  // out[t][n] = sum_k x[t][k] * w[n][k] (+ bias[n]) (+ add[t][n]); f32 accumulation in an order
  // that depends on K alone. bias may be NULL; add.data may be NULL and may be out itself. Norm and
  // GELU give the bits of layernorm() before and of x/2 * (1 + erf(x / sqrt 2)) after.
  virtual void linear(View out, ConstView x, const Matrix& w, const float* bias, ConstView add,
                      const Fused& fused = {}) = 0;
  // qkv is (T, 3C): writes K and V of row t to position pos[t] of kv[slot[t]], then out[t] =
  // softmax(q k^T / sqrt(D)) v over positions 0 .. pos[t] of its slot (causal), or over 0 ..
  // n_ctx_used-1 (not causal, n_ctx_used rows being this call's own: positions of one slot, each
  // present once). kv, host memory, has as many entries as the slots need; they may differ in type
  // and n_ctx. Rows of one slot come in ascending position. `next` is as Fused::next.
  virtual void attention(View out, ConstView qkv, const KvLayer* kv, const Rows& rows,
                         int64_t n_head, bool causal, const Matrix* next = nullptr) = 0;
  virtual void elu(View out, ConstView x) = 0;  // x > 0 ? x : exp(x) - 1; in place allowed
  virtual void add(View out, ConstView x) = 0;  // out += x
  // Causal convolution, stride 1; a row's bits never depend on the number of rows. x has
  // (k-1)*dilation rows of history in front of row 0 (x.row(-1) is valid). out[t] = bias + sum_j
  // w[:, j, :] . x[t - (k-1-j)*dilation]. w is (out_channels, k*in_channels), [out][k][in].
  virtual void conv1d(View out, ConstView x, const Matrix& w, const float* bias, int64_t kernel,
                      int64_t dilation) = 0;
  // Transposed convolution with kernel 2*stride, right-trimmed. x has 1 row of history in front. w
  // is (stride*out_channels, 2*in_channels), [stride][out][2][in], index 0 of "2" meeting x[t-1].
  // out is (T*stride, out_channels), contiguous; bias is (out_channels).
  virtual void conv_transpose1d(View out, ConstView x, const Matrix& w, const float* bias,
                                int64_t stride) = 0;
  // Recurrent half of one LSTM layer over T steps: gates[t] = W_ih x[t] + b is given, (T, 4H), rows
  // i f g o. h and c are (H), carried. out is (T, H).
  virtual void lstm(View out, ConstView gates, const Matrix& w_hh, float* h, float* c) = 0;
  // ids[t] = sample_row(logits[t], params[t]); waits.
  virtual void sample(int32_t* ids, ConstView logits, const SampleParams* params) = 0;

  // Calls issue(), which calls ops and sample() only, and waits for them. Whatever host memory they
  // read or draw into lies in `block`; all else about the calls, to the last address, is the same
  // for equal keys. So a device may record them, and play them again instead of calling issue() (an
  // id is then negative where sample() would have thrown for its row). One caller at a time.
  virtual void repeat(const std::vector<uint64_t>& key, const HostBlock& block,
                      const std::function<void()>& issue) {
    (void)key, (void)block;
    issue();
  }
};

// n_threads 0: one per usable core.
std::unique_ptr<Backend> make_cpu_backend(int n_threads);

// device.cc: what barkrt_device_* reports, and the backend of a device. Throws NotFound for an
// index out of range.
struct DeviceDescription {
  std::string id, kind, name, detail;
  int n_cores = 0;
  int64_t total_bytes = 0;
};
int device_count();
DeviceDescription describe_device(int index);
void device_memory(int index, int64_t* free_bytes, int64_t* total_bytes);
// Everything that lives on the device, in this process.
std::shared_ptr<MemoryAccount> device_account(int index);
// Gives freed memory back to the system; returns the bytes by which the process shrank.
int64_t trim_device(int index);
// instruction_set: one of the device's, for tests; "" takes the best. Unsupported for any other.
std::unique_ptr<Backend> make_backend(int index, int n_threads,
                                      const std::string& instruction_set = "");

}  // namespace barkrt
