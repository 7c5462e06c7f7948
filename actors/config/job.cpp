#include "actors/config/job.hpp"

#include <algorithm>
#include <array>
#include <sstream>
#include <utility>

#include "actors/config/reader.hpp"
#include "kernels/base/error.hpp"
#include "kernels/base/hash.hpp"
#include "kernels/exact_sum.hpp"

namespace troupe::config {

namespace {

constexpr Range kAnySize{0, 1'000'000'000};
constexpr Range kRate{0, 0.999};

void describe_model(model::ModelConfig& m, FieldVisitor& v) {
  using namespace model;
  v.pick("model.family", m.family,
         {{"encoder_decoder", int64_t(Family::encoder_decoder)}, {"decoder", int64_t(Family::decoder)}});
  v.number("model.vocabulary", m.vocabulary, {0, 4'000'000});
  v.number("model.width", m.width, {1, 65'536});
  v.number("model.inner", m.inner, {1, 262'144});
  v.number("model.heads", m.heads, {1, 1024});
  v.number("model.encoder_layers", m.encoder_layers, {0, kLayersMax});
  v.number("model.decoder_layers", m.decoder_layers, {1, kLayersMax});
  v.number("model.max_length", m.max_length, {2, 65'536});
  v.pick("model.norm", m.norm, {{"pre", int64_t(NormPlacement::pre)}, {"post", int64_t(NormPlacement::post)}});
  v.pick("model.norm_kind", m.norm_kind,
         {{"layer", int64_t(kernels::NormKind::layer)}, {"rms", int64_t(kernels::NormKind::rms)}});
  v.pick("model.positions", m.positions,
         {{"sinusoidal", int64_t(Positions::sinusoidal)},
          {"learned", int64_t(Positions::learned)},
          {"rotary", int64_t(Positions::rotary)}});
  v.pick("model.activation", m.activation,
         {{"relu", int64_t(kernels::Activation::relu)}, {"gelu", int64_t(kernels::Activation::gelu)}});
  v.boolean("model.scale_embedding", m.scale_embedding);
  v.boolean("model.tied_embeddings", m.tied_embeddings);
  v.number("model.dropout", m.dropout, kRate);
  v.number("model.attention_dropout", m.attention_dropout, kRate);
  v.number("model.activation_dropout", m.activation_dropout, kRate);
  v.pick("model.compute", m.compute,
         {{"f32", int64_t(kernels::DType::f32)}, {"bf16", int64_t(kernels::DType::bf16)}});
  v.pick("model.products", m.products, {{"compute", int64_t(Products::compute)}, {"fp8", int64_t(Products::fp8)}, {"tf32", int64_t(Products::tf32)}});
}

void describe_optimizer(model::OptimizerConfig& o, FieldVisitor& v) {
  using model::ScheduleKind;
  v.number("optimizer.beta1", o.beta1, kRate);
  v.number("optimizer.beta2", o.beta2, {0, 0.99999});
  v.number("optimizer.epsilon", o.epsilon, {1e-20, 0.999});
  v.number("optimizer.weight_decay", o.weight_decay, kRate);
  v.number("optimizer.clip_norm", o.clip_norm, {0, 1e9});
  v.number("optimizer.label_smoothing", o.label_smoothing, {0, 0.9});
  v.pick("schedule.kind", o.schedule.kind,
         {{"constant", int64_t(ScheduleKind::constant)},
          {"inverse_sqrt", int64_t(ScheduleKind::inverse_square_root)},
          {"cosine", int64_t(ScheduleKind::cosine)},
          {"warmup_stable_decay", int64_t(ScheduleKind::warmup_stable_decay)}});
  v.number("schedule.learning_rate", o.schedule.peak, {1e-12, 100});
  v.number("schedule.warmup_steps", o.schedule.warmup_steps, kAnySize);
  v.number("schedule.total_steps", o.schedule.total_steps, kAnySize);
  v.number("schedule.decay_steps", o.schedule.decay_steps, kAnySize);
  v.number("schedule.floor", o.schedule.floor, {0, 1});
}

// The settings that decide the bits.
void describe_function(JobConfig& j, FieldVisitor& v) {
  describe_model(j.model, v);
  describe_optimizer(j.optimizer, v);
  v.pick("data.source", j.source, {{"folder", int64_t(DataSource::folder)}, {"tiny", int64_t(DataSource::tiny)}});
  v.number("training.slots", j.slots, {1, 1024});
  v.number("training.seed", j.seed, {0, 9e15});
  v.pick("training.sum", j.sum, {{"exact", int64_t(SumKind::exact)}, {"float", int64_t(SumKind::floating)}});
  v.number("training.bits", j.bits, {2, kernels::kFullBits});
  v.number("evaluation.every", j.evaluation_every, kAnySize);
  v.number("evaluation.slots", j.evaluation_slots, {0, 1023});
}

void describe(JobConfig& j, FieldVisitor& v) {
  describe_function(j, v);
  v.number("training.steps", j.steps, {1, 1'000'000'000});
  v.number("checkpoint.every", j.checkpoint_every, kAnySize);
  v.number("checkpoint.keep", j.checkpoint_keep, {1, 1'000'000});
  v.number("report.every", j.report_every, {1, 1'000'000});
}

template <typename Config>
std::string problem_of(const Config& config) {
  try {
    model::validate(config);
  } catch (const Error& problem) {
    return problem.what();
  }
  return "";
}

// What is wrong with settings that are right one by one: with slots, the model, the optimizer. Empty: nothing.
std::array<std::string, 3> problems_of(const JobConfig& j) {
  std::array<std::string, 3> problems;
  if (j.slots + j.evaluation_slots > 1024)
    problems[0] = fmt::format("training.slots + evaluation.slots is {}; it must be at most 1024", j.slots + j.evaluation_slots);
  // The vocabulary may still be unknown; every other setting can be judged now.
  model::ModelConfig probe = j.model;
  if (probe.vocabulary == 0) probe.vocabulary = 4'000'000;
  problems[1] = problem_of(probe);
  problems[2] = problem_of(resolved_optimizer(j));
  return problems;
}

std::string function_text(const JobConfig& job) {
  JobConfig copy = job;
  copy.optimizer = resolved_optimizer(job);
  return canonical_text([&](FieldVisitor& v) { describe_function(copy, v); });
}

}  // namespace

model::OptimizerConfig resolved_optimizer(const JobConfig& job) {
  using model::ScheduleKind;
  model::OptimizerConfig out = job.optimizer;
  model::ScheduleConfig& schedule = out.schedule;
  // Schedules that never look at the end do not tie the job to it.
  const bool ends = schedule.kind == ScheduleKind::cosine || schedule.kind == ScheduleKind::warmup_stable_decay;
  if (!ends) schedule.total_steps = 0;
  if (ends && schedule.total_steps == 0) schedule.total_steps = job.steps;
  if (schedule.kind != ScheduleKind::warmup_stable_decay) schedule.decay_steps = 0;
  else if (schedule.decay_steps == 0) {
    const int64_t after_warmup = std::max<int64_t>(1, schedule.total_steps - schedule.warmup_steps);
    schedule.decay_steps = std::clamp<int64_t>(schedule.total_steps / 5, 1, after_warmup);
  }
  return out;
}

JobConfig parse_job(std::string_view file, std::string_view text, const std::vector<std::string>& overrides) {
  JobConfig job;
  job.model.vocabulary = 0;
  job.optimizer.weight_decay = 0.01f;
  const Describe description = [&](FieldVisitor& v) { describe(job, v); };
  read_toml(file, text, description);
  std::array<std::string, 3> brought_by, problems = problems_of(job);
  brought_by.fill(std::string(file));
  for (const std::string& assignment : overrides) {
    apply_override(assignment, description);
    const auto before = std::exchange(problems, problems_of(job));
    for (size_t i = 0; i < problems.size(); ++i)  // a mistake of the file stays the file's, though its words change
      if (problems[i] != before[i] && (before[i].empty() || brought_by[i] != file)) brought_by[i] = "--set " + assignment;
  }
  for (size_t i = 0; i < problems.size(); ++i)
    if (!problems[i].empty()) throw error(ErrorKind::usage, "{}: {}", brought_by[i], problems[i]);
  return job;
}

JobConfig read_job_file(const std::string& path, const std::vector<std::string>& overrides) {
  return parse_job(path, read_text_file(path), overrides);
}

std::string canonical_text(const JobConfig& job) {
  JobConfig copy = job;
  return canonical_text([&](FieldVisitor& v) { describe(copy, v); });
}

std::string job_hash(const JobConfig& job) {
  const std::string text = function_text(job);
  const auto digest = Sha256().update(text).digest();
  return std::string(digest.begin(), digest.end());
}

std::string first_difference(const JobConfig& here, const JobConfig& there) {
  std::istringstream a(function_text(here)), b(function_text(there));
  std::string left, right;
  while (std::getline(a, left) && std::getline(b, right))
    if (left != right) return left + " here, " + right.substr(right.find('=') + 2) + " there";
  return "nothing";
}

}  // namespace troupe::config
