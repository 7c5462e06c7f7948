// How good a trained model is on a held-out set: loss and perplexity by teacher forcing, BLEU and chrF of its
// translations. Plain functions; the integers behind the loss are the same whatever the number of threads.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "actors/inference/translator.hpp"
#include "data/dataset.hpp"
#include "data/metrics.hpp"
#include "model/loss_totals.hpp"

namespace troupe::inference {

// Throws Error(usage) when the model and the dataset do not belong together: another tokenizer, or pairs for
// a language model.
void check_belongs(const TrainedModel& trained, const data::Dataset& dataset);

// Over all packs of the split, without dropout. `threads` >= 1. REQUIRES weights packed for it.
model::LossTotals evaluate_loss(const TrainedModel& trained, const data::Dataset& dataset, data::Split split,
                                int threads);

struct TranslationQuality {
  std::vector<std::string> sources, hypotheses, references;
  data::Bleu bleu;
  data::Chrf chrf;
};
// Translates the split's text (the first `samples_max`; 0: all). REQUIRES a dataset of pairs.
TranslationQuality evaluate_translation(const Translator& translator, const data::Dataset& dataset,
                                        data::Split split, size_t samples_max);

}  // namespace troupe::inference
