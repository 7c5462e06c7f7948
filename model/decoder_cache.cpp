#include "model/decoder_cache.hpp"

#include <algorithm>
#include <utility>

namespace troupe::model {

using kernels::Buffer;
using kernels::ConstView;
using kernels::View;

namespace {
constexpr int64_t kStep = 16;  // attention reads what is free too, so little is kept free

void clear(kernels::Stream& stream, const DecoderCache::KeysValues& rows) {
  stream.fill_zero(rows.keys);
  stream.fill_zero(rows.values);
}
}  // namespace

DecoderCache::DecoderCache(BufferPool& pool, kernels::Stream& stream, const ModelConfig& config,
                           int64_t sequences, int64_t beam, int64_t tokens_max)
    : pool_(pool),
      config_(config),
      head_size_(config.width / config.heads),
      sequences_(sequences),
      beam_(beam),
      tokens_max_(std::min(tokens_max, config.max_length)) {
  TROUPE_CHECK(sequences > 0 && beam > 0 && tokens_max_ > 0);
  capacity_ = std::min(kStep, tokens_max_);
  self_ = pool.take(bytes_of(places() * tokens_max_));
  for (int64_t layer = 0; layer < config.decoder_layers; ++layer) clear(stream, self(layer));
}

DecoderCache::~DecoderCache() {
  pool_.give(std::move(self_));
  pool_.give(std::move(cross_));
}

size_t DecoderCache::bytes_of(int64_t tokens) const {
  return size_t(config_.decoder_layers * tokens * 2 * config_.width) * size_of(config_.compute);
}

DecoderCache::KeysValues DecoderCache::layer_of(const Buffer& buffer, int64_t layer, int64_t tokens) const {
  const int64_t rows = tokens * config_.heads;
  const View all{buffer.data(), config_.compute, config_.decoder_layers * 2 * rows, head_size_, head_size_};
  return {all.row_range(2 * layer * rows, rows), all.row_range((2 * layer + 1) * rows, rows)};
}

View DecoderCache::filled(View rows, int64_t capacity) const {
  return {rows.data, rows.dtype, rows.rows / capacity, tokens_ * head_size_, capacity * head_size_};
}

DecoderCache::KeysValues DecoderCache::self(int64_t layer) const {
  return layer_of(self_, layer, places() * capacity_);
}

DecoderCache::KeysValues DecoderCache::cross(int64_t layer) const {
  TROUPE_CHECK(cross_.data() != nullptr);
  return layer_of(cross_, layer, sequences_ * cross_tokens_.length);
}

void DecoderCache::reserve(kernels::Stream& stream, int64_t count) {
  if (tokens_ + count <= capacity_) return;
  TROUPE_CHECK(tokens_ + count <= tokens_max_, "{} tokens; there may be {}", tokens_ + count, tokens_max_);
  spread(stream, std::min(tokens_max_, (tokens_ + count + kStep - 1) / kStep * kStep));
}

void DecoderCache::spread(kernels::Stream& stream, int64_t capacity) {
  const int64_t heads = config_.decoder_layers * 2 * places() * config_.heads;
  const int64_t more = capacity - capacity_;
  const View before{self_.data(), config_.compute, heads * capacity_, head_size_, head_size_};
  const View after{self_.data(), config_.compute, heads * capacity, head_size_, head_size_};
  for (int64_t head = heads - 1; head >= 0; --head) {
    // A head moves by at least `more` tokens, or not at all: as many at a time do not overlap.
    for (int64_t end = head > 0 ? tokens_ : 0; end > 0;) {
      const int64_t begin = std::max<int64_t>(0, end - more);
      stream.convert(before.row_range(head * capacity_ + begin, end - begin),
                     after.row_range(head * capacity + begin, end - begin));
      end = begin;
    }
    stream.fill_zero(after.row_range(head * capacity + tokens_, capacity - tokens_));
  }
  capacity_ = capacity;
}

void DecoderCache::write(kernels::Stream& stream, int64_t layer, ConstView key_value, int64_t count,
                         int64_t stride) {
  TROUPE_CHECK(tokens_ + count <= capacity_ && key_value.rows % count == 0);
  const int64_t rows = key_value.rows / count, place = stride * config_.heads * capacity_ * head_size_;
  const KeysValues whole = self(layer);
  // Token t of head h of all rows at once.
  const auto copy = [&](ConstView from, View to, int64_t t, int64_t h) {
    from = from.col_range(h * head_size_, head_size_).row_range(t, from.rows - t);
    to = to.row_range(h * capacity_ + tokens_ + t, 1);
    stream.convert(ConstView{from.data, from.dtype, rows, head_size_, count * from.stride},
                   View{to.data, to.dtype, rows, head_size_, place});
  };
  for (int64_t t = 0; t < count; ++t)
    for (int64_t h = 0; h < config_.heads; ++h) {
      copy(key_value.col_range(0, config_.width), whole.keys, t, h);
      copy(key_value.col_range(config_.width, config_.width), whole.values, t, h);
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
    cross_ = pool_.take(bytes_of(memory.states.rows));
    cross_tokens_ = memory.tokens;
    if (memory.tokens.lengths != nullptr) {
      cross_lengths_.assign(memory.tokens.lengths, memory.tokens.lengths + sequences_);
      cross_tokens_.lengths = cross_lengths_.data();
    }
  }
  const size_t mark = pass.arena.mark();
  const int64_t width = config_.width, length = cross_tokens_.length;
  const View rows = pass.take_compute(memory.states.rows, 2 * width);
  linear_forward(pass, key_value, memory.states, rows);
  const KeysValues whole = cross(layer);
  for (int64_t s = 0; s < sequences_; ++s)
    for (int64_t h = 0; h < config_.heads; ++h) {
      const View of_head = rows.row_range(s * length, length).col_range(h * head_size_, head_size_);
      const int64_t first = (s * config_.heads + h) * length;
      pass.stream.convert(of_head, whole.keys.row_range(first, length));
      const View values = rows.row_range(s * length, length).col_range(width + h * head_size_, head_size_);
      pass.stream.convert(values, whole.values.row_range(first, length));
    }
  pass.arena.reset(mark);
}

void DecoderCache::copy_place(kernels::Stream& stream, int64_t from, int64_t to) {
  TROUPE_CHECK(from != to);
  const int64_t heads = config_.heads;
  for (int64_t layer = 0; layer < config_.decoder_layers; ++layer) {
    const KeysValues whole = self(layer);
    for (const View& rows : {whole.keys, whole.values}) {
      const View all = filled(rows, capacity_);
      stream.convert(all.row_range(from * heads, heads), all.row_range(to * heads, heads));
    }
  }
}

void DecoderCache::keep(kernels::Stream& stream, std::span<const int64_t> kept) {
  const int64_t remaining = int64_t(kept.size()), length = cross_tokens_.length, heads = config_.heads;
  TROUPE_CHECK(remaining > 0 && std::is_sorted(kept.begin(), kept.end()) && kept.back() < sequences_);
  const auto move = [&](ConstView from, View to) {
    if (from.data != to.data) stream.convert(from, to);
  };
  const auto move_self = [&](View from, View to) {
    const View from_heads = filled(from, capacity_), to_heads = filled(to, capacity_);
    for (int64_t i = 0; i < remaining; ++i)
      for (int64_t h = 0; h < beam_ * heads; ++h)
        move(from_heads.row_range(kept[size_t(i)] * beam_ * heads + h, 1),
             to_heads.row_range(i * beam_ * heads + h, 1));
  };
  const auto move_cross = [&](View from, View to) {
    for (int64_t i = 0; i < remaining; ++i)
      move(from.row_range(kept[size_t(i)] * heads * length, heads * length),
           to.row_range(i * heads * length, heads * length));
  };
  // Layers lie behind one another, keys before values, so every move is to a lower address and from what has
  // not been written yet.
  for (int64_t layer = 0; layer < config_.decoder_layers; ++layer) {
    const KeysValues from = self(layer), to = layer_of(self_, layer, remaining * beam_ * capacity_);
    move_self(from.keys, to.keys);
    move_self(from.values, to.values);
    if (cross_.data() == nullptr) continue;
    const KeysValues cross_from = cross(layer), cross_to = layer_of(cross_, layer, remaining * length);
    move_cross(cross_from.keys, cross_to.keys);
    move_cross(cross_from.values, cross_to.values);
  }
  sequences_ = cross_tokens_.batch = remaining;
  for (int64_t i = 0; i < remaining && !cross_lengths_.empty(); ++i)
    cross_lengths_[size_t(i)] = cross_lengths_[size_t(kept[size_t(i)])];
}

}  // namespace troupe::model
