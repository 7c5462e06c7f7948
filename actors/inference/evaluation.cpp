#include "actors/inference/evaluation.hpp"

#include <algorithm>
#include <atomic>
#include <mutex>

#include "kernels/base/error.hpp"
#include "kernels/base/thread_group.hpp"
#include "model/slot_arena.hpp"

namespace troupe::inference {

void check_belongs(const TrainedModel& trained, const data::Dataset& dataset) {
  if (trained.tokenizer().digest() != dataset.tokenizer().digest())
    throw error(ErrorKind::usage,
                "{} was trained with another tokenizer than that of {}; use the dataset it was "
                "trained on, or prepare one with --tokenizer-file",
                trained.path(), dataset.folder());
  const bool pairs = dataset.kind() == data::DatasetKind::pairs;
  if (pairs != trained.translates())
    throw error(ErrorKind::usage, "{} is a {} model but {} holds {}", trained.path(),
                trained.translates() ? "translation" : "language", dataset.folder(),
                pairs ? "pairs" : "running text");
}

model::LossTotals evaluate_loss(const TrainedModel& trained, const data::Dataset& dataset, data::Split split,
                                int threads) {
  std::atomic<uint64_t> next{0};
  std::mutex mutex;
  model::LossTotals totals;
  const auto work = [&] {
    try {
      const auto stream = trained.backend().create_stream();
      std::optional<kernels::Arena> arena;
      model::LossTotals own;
      for (uint64_t pack; (pack = next.fetch_add(1)) < dataset.packs(split);) {
        const Batch batch = dataset.batch_of_pack(split, pack);
        const int64_t rows = batch.target_in.rows, length = std::max(batch.source.cols, batch.target_in.cols);
        if (const int64_t longest = trained.model().config().max_length; length > longest)
          throw error(ErrorKind::usage,
                      "{} takes {} tokens, but {} has {} in a sequence; prepare it with --max-length {}",
                      trained.path(), longest, dataset.folder(), length, longest);
        const size_t bytes = trained.model().arena_bytes(rows, rows * length, false);
        kernels::Arena& room = model::with_room(arena, bytes, trained.backend());
        own.add(trained.model().evaluate_slot(*stream, room, trained.weights(), batch,
                                              trained.info().optimizer.label_smoothing));
      }
      const std::lock_guard lock(mutex);
      totals += own;
    } catch (...) {
      next = dataset.packs(split);
      throw;
    }
  };
  ThreadGroup(size_t(threads), work).join();
  return totals;
}

TranslationQuality evaluate_translation(const Translator& translator, const data::Dataset& dataset,
                                        data::Split split, size_t samples_max) {
  TROUPE_CHECK(dataset.kind() == data::DatasetKind::pairs);
  TranslationQuality quality;
  for (const data::TextSample& sample : dataset.texts(split)) {
    if (samples_max > 0 && quality.sources.size() == samples_max) break;
    quality.sources.push_back(sample.source);
    quality.references.push_back(sample.target);
  }
  for (auto& outputs : translator.run(quality.sources))
    quality.hypotheses.push_back(std::move(outputs[0].text));
  quality.bleu = data::corpus_bleu(quality.hypotheses, quality.references);
  quality.chrf = data::corpus_chrf(quality.hypotheses, quality.references);
  return quality;
}

}  // namespace troupe::inference
