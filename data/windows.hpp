// Cuts running text into windows of a fixed number of tokens. Documents follow one another as <s> d1 </s> <s>
// d2
// </s> ..., so that a model has learned how they begin; each window begins with the last token of the one
// before, so every token but the first is trained once.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

namespace troupe::data {

class WindowCutter {
 public:
  // `use(id, label, tokens)`: a window that trains tokens.size() - 1 tokens; id and label are those of the
  // document in which it begins.
  using Use = std::function<void(uint64_t id, uint32_t label, std::span<const int32_t> tokens)>;

  WindowCutter(int32_t length, int32_t bos, int32_t eos, Use use)
      : length_(size_t(length)), bos_(bos), eos_(eos), use_(std::move(use)) {}

  void add(uint64_t id, uint32_t label, std::span<const int32_t> document) {
    push(id, label, bos_);
    for (const int32_t token : document) push(id, label, token);
    push(id, label, eos_);
  }
  // The rest, shorter than a window.
  void finish() {
    if (tokens_.size() > 1) use_(id_, label_, tokens_);
    tokens_.clear();
  }

 private:
  void push(uint64_t id, uint32_t label, int32_t token) {
    if (tokens_.size() <= 1) {
      id_ = id;
      label_ = label;
    }
    tokens_.push_back(token);
    if (tokens_.size() <= length_) return;
    use_(id_, label_, tokens_);
    tokens_.assign(1, token);
  }

  size_t length_;
  int32_t bos_, eos_;
  std::vector<int32_t> tokens_;
  uint64_t id_ = 0;
  uint32_t label_ = 0;
  Use use_;
};

}  // namespace troupe::data
