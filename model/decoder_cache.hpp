// Keys and values of a batch of sequences that are being generated, for every decoder layer: those of the
// tokens so far (self-attention), one row of tokens a place, and those of the encoder's output
// (cross-attention), computed once. Sequence s has the places s * beam .. s * beam + beam - 1. A head's rows
// lie behind one another (AttentionShape::keys_by_head), since a step reads all of them and does little else.
// Keys are kept as attention takes them: turned, where positions are rotary. One thread.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "model/buffer_pool.hpp"
#include "model/layers.hpp"

namespace troupe::model {

class DecoderCache {
 public:
  struct KeysValues {
    kernels::View keys, values;
  };

  // Room for 16 tokens a place at first and 16 more whenever it is full, up to `tokens_max`: the memory for
  // all of them is taken at once, of which the system gives what is written. Throws Error(out_of_memory). The
  // pool, which outlives it, gets its memory back.
  DecoderCache(BufferPool& pool, kernels::Stream& stream, const ModelConfig& config, int64_t sequences,
               int64_t beam, int64_t tokens_max);
  ~DecoderCache();
  DecoderCache(const DecoderCache&) = delete;
  DecoderCache& operator=(const DecoderCache&) = delete;

  int64_t sequences() const { return sequences_; }
  int64_t beam() const { return beam_; }
  int64_t places() const { return sequences_ * beam_; }
  int64_t tokens() const { return tokens_; }  // in the cache, the same for every place
  int64_t capacity() const { return capacity_; }

  // Makes room for `count` more tokens. REQUIRES that there are at most tokens_max then.
  void reserve(kernels::Stream& stream, int64_t count);
  // Writes keys and values (rows * count, 2C) of tokens [tokens(), tokens() + count) of row r to place r *
  // stride. REQUIRES room for them.
  void write(kernels::Stream& stream, int64_t layer, kernels::ConstView key_value, int64_t count,
             int64_t stride);
  // After all layers have written.
  void advance(int64_t count) { tokens_ += count; }
  // (places * H * capacity, D) each: token t of head h of place p is row (p * H + h) * capacity + t.
  KeysValues self(int64_t layer) const;
  // (places): tokens() + 1 of each, for a step that has written but not advanced.
  const int32_t* lengths_with_next();

  // The encoder's side of layer `layer` from its output; call it for each layer, or never (decoder-only).
  void set_cross(Pass& pass, int64_t layer, const LinearParameters& key_value, const Memory& memory);
  // (sequences * H * length, D) each, and what masks them.
  KeysValues cross(int64_t layer) const;
  const Tokens& cross_tokens() const { return cross_tokens_; }

  // Copies the tokens of one place over those of another.
  void copy_place(kernels::Stream& stream, int64_t from, int64_t to);
  // Drops all sequences but these, which become 0, 1, 2 ... REQUIRES ascending order.
  void keep(kernels::Stream& stream, std::span<const int64_t> kept);

 private:
  // Those of a layer in a buffer where every layer has `tokens` of them.
  KeysValues layer_of(const kernels::Buffer& buffer, int64_t layer, int64_t tokens) const;
  // The tokens so far of all heads of all places, one head a row.
  kernels::View filled(kernels::View rows, int64_t capacity) const;
  size_t bytes_of(int64_t tokens) const;
  // Moves heads apart, from the last to the first, so that each has room for `capacity` tokens.
  void spread(kernels::Stream& stream, int64_t capacity);

  BufferPool& pool_;
  ModelConfig config_;
  int64_t head_size_;
  int64_t sequences_, beam_, tokens_max_, tokens_ = 0, capacity_ = 0;
  kernels::Buffer self_, cross_;
  std::vector<int32_t> lengths_, cross_lengths_;
  Tokens cross_tokens_;
};

}  // namespace troupe::model
