#include "model/decoder_cache.hpp"

#include <algorithm>

namespace troupe::model {

using kernels::Buffer;
using kernels::ConstView;
using kernels::View;

namespace {
constexpr int64_t kStep = 16;  // attention reads what is free too, so little is kept free
}

DecoderCache::DecoderCache(kernels::Backend& backend, kernels::Stream& stream, const ModelConfig& config,
                           int64_t sequences, int64_t beam)
    : backend_(backend), config_(config), sequences_(sequences), beam_(beam) {
  TROUPE_CHECK(sequences > 0 && beam > 0);
  capacity_ = std::min(kStep, config.max_length);
  self_ = backend.allocate(bytes_of(places() * capacity_));
  for (int64_t layer = 0; layer < config.decoder_layers; ++layer) stream.fill_zero(self(layer));
}

size_t DecoderCache::bytes_of(int64_t rows) const {
  return size_t(config_.decoder_layers * rows * 2 * config_.width) * size_of(config_.compute);
}

View DecoderCache::rows_of(const Buffer& buffer, int64_t layer, int64_t rows) const {
  const int64_t width = 2 * config_.width;
  const View all{buffer.data(), config_.compute, config_.decoder_layers * rows, width, width};
  return all.row_range(layer * rows, rows);
}

View DecoderCache::filled(View layer, int64_t capacity) const {
  return {layer.data, layer.dtype, layer.rows / capacity, tokens_ * layer.cols, capacity * layer.cols};
}

View DecoderCache::self(int64_t layer) const {
  return rows_of(self_, layer, places() * capacity_);
}

View DecoderCache::cross(int64_t layer) const {
  TROUPE_CHECK(cross_.data() != nullptr);
  return rows_of(cross_, layer, sequences_ * cross_tokens_.length);
}

void DecoderCache::reserve(kernels::Stream& stream, int64_t count) {
  if (tokens_ + count <= capacity_) return;
  TROUPE_CHECK(tokens_ + count <= config_.max_length, "{} tokens; the model takes {}", tokens_ + count,
               config_.max_length);
  const int64_t larger = std::min(config_.max_length, (tokens_ + count + kStep - 1) / kStep * kStep);
  Buffer grown = backend_.allocate(bytes_of(places() * larger));
  for (int64_t layer = 0; layer < config_.decoder_layers; ++layer) {
    const View to = rows_of(grown, layer, places() * larger);
    if (tokens_ > 0)
      stream.convert(filled(self(layer), capacity_), filled(to, larger));
    else
      stream.fill_zero(to);
  }
  stream.synchronize();
  self_ = std::move(grown);
  capacity_ = larger;
}

void DecoderCache::write(kernels::Stream& stream, int64_t layer, ConstView key_value, int64_t count,
                         int64_t stride) {
  TROUPE_CHECK(tokens_ + count <= capacity_ && key_value.rows % count == 0);
  const int64_t rows = key_value.rows / count;
  const View whole = self(layer);
  for (int64_t t = 0; t < count; ++t) {
    const ConstView from = key_value.row_range(t, key_value.rows - t);
    const View to = whole.row_range(tokens_ + t, 1);
    stream.convert(ConstView{from.data, from.dtype, rows, from.cols, count * from.stride},
                   View{to.data, to.dtype, rows, to.cols, stride * capacity_ * to.cols});
  }
}

const int32_t* DecoderCache::lengths_with_next() {
  lengths_.assign(size_t(places()), int32_t(tokens_ + 1));
  return lengths_.data();
}

void DecoderCache::set_cross(Pass& pass, int64_t layer, const LinearParameters& key_value,
                             const Memory& memory) {
  TROUPE_CHECK(memory.tokens.batch == sequences_);
  if (cross_.data() == nullptr) {
    cross_ = backend_.allocate(bytes_of(memory.states.rows));
    cross_tokens_ = memory.tokens;
    if (memory.tokens.lengths != nullptr) {
      cross_lengths_.assign(memory.tokens.lengths, memory.tokens.lengths + sequences_);
      cross_tokens_.lengths = cross_lengths_.data();
    }
  }
  linear_forward(pass, key_value, memory.states, cross(layer));
}

void DecoderCache::copy_place(kernels::Stream& stream, int64_t from, int64_t to) {
  TROUPE_CHECK(from != to);
  for (int64_t layer = 0; layer < config_.decoder_layers; ++layer) {
    const View all = filled(self(layer), capacity_);
    stream.convert(all.row_range(from, 1), all.row_range(to, 1));
  }
}

void DecoderCache::keep(kernels::Stream& stream, std::span<const int64_t> kept) {
  const int64_t remaining = int64_t(kept.size()), length = cross_tokens_.length;
  TROUPE_CHECK(remaining > 0 && std::is_sorted(kept.begin(), kept.end()) && kept.back() < sequences_);
  const auto move = [&](ConstView from, View to) {
    if (from.data != to.data) stream.convert(from, to);
  };
  // Layers lie behind one another, so every move is to a lower address and from what has not been written
  // yet.
  for (int64_t layer = 0; layer < config_.decoder_layers; ++layer) {
    const View self_from = filled(self(layer), capacity_);
    const View self_to = filled(rows_of(self_, layer, remaining * beam_ * capacity_), capacity_);
    for (int64_t i = 0; i < remaining; ++i) {
      for (int64_t b = 0; b < beam_; ++b)
        move(self_from.row_range(kept[size_t(i)] * beam_ + b, 1), self_to.row_range(i * beam_ + b, 1));
      if (cross_.data() == nullptr) continue;
      move(cross(layer).row_range(kept[size_t(i)] * length, length),
           rows_of(cross_, layer, remaining * length).row_range(i * length, length));
    }
  }
  sequences_ = cross_tokens_.batch = remaining;
  for (int64_t i = 0; i < remaining && !cross_lengths_.empty(); ++i)
    cross_lengths_[size_t(i)] = cross_lengths_[size_t(kept[size_t(i)])];
}

}  // namespace troupe::model
