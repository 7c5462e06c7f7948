#include "actors/engines/engine_setup.hpp"

#include <fstream>

#include <spdlog/spdlog.h>

#include "actors/engines/cpu_engine.hpp"
#include "actors/engines/devices.hpp"
#include "actors/node_names.hpp"
#include "comm/messages.hpp"
#include "data/tiny.hpp"
#include "kernels/base/hash.hpp"
#include "kernels/base/version.hpp"

namespace troupe::actors {

namespace {

constexpr size_t kNamesMax = 1024;  // bytes of nodes' names in a fingerprint; beyond it their hash

void check_same_job(const config::JobConfig& ours, const model::Checkpoint& checkpoint,
                    const std::filesystem::path& path) {
  const config::JobConfig theirs = config::parse_job(path.string(), checkpoint.info.job_text);
  if (config::job_hash(ours) == config::job_hash(theirs)) return;
  throw error(ErrorKind::usage,
              "{} belongs to another job: {}; resume with the job it was made with, or choose "
              "another --out",
              path.string(), config::first_difference(ours, theirs));
}

model::Checkpoint load_on_host(const JobContext& context, const std::filesystem::path& path) {
  return model::load_checkpoint(path, *kernels::make_cpu_backend(context.services->level));
}

void check_same_data(const model::CheckpointInfo& ours, const model::CheckpointInfo& theirs,
                     const std::filesystem::path& path) {
  const bool same = theirs.model == ours.model && theirs.tokenizer == ours.tokenizer &&
                    theirs.compatibility_forms == ours.compatibility_forms &&
                    (theirs.dataset == ours.dataset || theirs.dataset.empty());
  if (!same)
    throw error(ErrorKind::usage,
                "{} was trained on other data; give the --data it was made with, or choose another --out",
                path.string());
}

model::TrainState load_state(const JobContext& context, const config::JobConfig& job,
                             const data::Dataset& dataset, const std::filesystem::path& path) {
  model::Checkpoint checkpoint = load_on_host(context, path);
  check_same_job(context.job, checkpoint, path);
  check_same_data(checkpoint_info(context, job, dataset), checkpoint.info, path);
  if (checkpoint.state.step > job.steps)
    throw error(ErrorKind::usage, "{} is at step {} already; ask for at least as many with --steps",
                path.string(), checkpoint.state.step);
  return std::move(checkpoint.state);
}

// At x(0), on the node's devices.
std::shared_ptr<TrainEngine> make_engine(const JobContext& context, config::JobConfig job) {
  const config::Devices& devices = context.services->devices;
  std::shared_ptr<kernels::Backend> backend = kernels::make_cpu_backend(context.services->level);
  const auto stream = backend->create_stream();  // fixes this thread's floating-point state
  auto model = model::make_model(job.model);
  model::TrainState state =
      model::first_state([&](size_t bytes) { return backend->allocate(bytes); }, *model, uint64_t(job.seed));
  if (devices.kind == config::DeviceKind::cpu)
    return std::make_shared<CpuEngine>(std::move(backend), std::move(job), context.plan(), std::move(model),
                                       std::move(state), context.workers);
  return make_device_engine(devices, std::move(job), context.plan(), std::move(model), state);
}

}  // namespace

std::shared_ptr<const data::Dataset> open_dataset(const config::JobConfig& job, const std::string& folder) {
  if (job.source == config::DataSource::tiny) {
    data::TinyOptions options;
    options.language_model = job.model.family == model::Family::decoder;
    return data::make_tiny_dataset(options);
  }
  if (folder.empty())
    throw error(ErrorKind::usage,
                "no --data folder was given; make one with troupe prepare, or set data.source = "
                "\"tiny\" in the job file");
  return data::Dataset::open(folder);
}

model::ModelConfig complete_model(const config::JobConfig& job, const data::Dataset& dataset) {
  model::ModelConfig model = job.model;
  const data::Tokenizer& tokenizer = dataset.tokenizer();
  if (model.vocabulary != 0 && model.vocabulary != tokenizer.vocabulary_size())
    throw error(ErrorKind::usage,
                "model.vocabulary is {}, but the dataset's tokenizer has {} entries; leave it out or "
                "set it to that",
                model.vocabulary, tokenizer.vocabulary_size());
  model.vocabulary = tokenizer.vocabulary_size();
  model.pad_id = tokenizer.pad_id();
  model.unk_id = tokenizer.unk_id();
  model.bos_id = tokenizer.bos_id();
  model.eos_id = tokenizer.eos_id();
  const bool pairs = dataset.kind() == data::DatasetKind::pairs;
  if (pairs != (model.family == model::Family::encoder_decoder))
    throw error(ErrorKind::usage, "the dataset holds {}, which model.family \"{}\" cannot be trained on",
                pairs ? "pairs of sentences" : "plain text", pairs ? "decoder" : "encoder_decoder");
  if (dataset.max_length() > model.max_length)
    throw error(ErrorKind::usage,
                "the dataset has sequences of {} tokens, but model.max_length is {}; raise it, or "
                "prepare the data with --max-length {}",
                dataset.max_length(), model.max_length, model.max_length);
  if (job.evaluation_every > 0 && job.evaluation_slots > 0 && dataset.packs(data::Split::valid) == 0)
    throw error(ErrorKind::usage,
                "the dataset has no validation samples; set evaluation.every = 0, or prepare it with "
                "--valid above 0 and ten documents or paragraphs at least");
  model::validate(model);
  return model;
}

std::filesystem::path checkpoint_folder(const std::filesystem::path& out) {
  return out / "checkpoints";
}

Beginning find_beginning(const std::filesystem::path& out, bool resume) {
  const auto folder = checkpoint_folder(out);
  Beginning beginning;
  std::error_code failed;
  const bool there = std::filesystem::exists(folder, failed);
  if (failed)
    throw error(ErrorKind::file,
                "cannot look for checkpoints in {}: {}; check its permissions, or choose another --out",
                folder.string(), failed.message());
  if (!there) return beginning;
  model::CheckpointsFound found = model::find_checkpoints(folder);
  beginning.checkpoint = std::move(found.newest);
  if (beginning.checkpoint && !resume)
    throw error(ErrorKind::usage,
                "{} holds a trained model already ({}); go on with --resume, or choose another --out",
                out.string(), beginning.checkpoint->filename().string());
  for (const Error& reason : found.passed_over) {
    if (beginning.checkpoint && reason.kind() == ErrorKind::version)
      throw error(ErrorKind::version, "{}, or move that file away to go on from the older {}", reason.what(),
                  beginning.checkpoint->filename().string());
    beginning.passed_over.push_back(reason.what());
  }
  if (!beginning.checkpoint && !beginning.passed_over.empty())
    beginning.broken = fmt::format(
        "{} holds no whole checkpoint ({}); put a copy of one there, or choose another --out to begin "
        "at step 0",
        folder.string(), beginning.passed_over.front());
  return beginning;
}

Beginning find_beginning(const JobContext& context) {
  Beginning beginning = find_beginning(context.out_folder, context.resume);
  for (const std::string& why : beginning.passed_over) spdlog::warn("passes over a checkpoint: {}", why);
  if (!beginning.broken.empty()) {
    beginning.broken = fmt::format("node {}: {}", context.node(), beginning.broken);
    if (!context.resume) throw Error(ErrorKind::corrupt, beginning.broken);
  }
  if (!beginning.checkpoint && context.resume)
    spdlog::info("{} holds no checkpoint to go on from: this node begins at step 0, or where the others are",
                 checkpoint_folder(context.out_folder).string());
  return beginning;
}

model::CheckpointInfo checkpoint_info(const JobContext& context, const config::JobConfig& job,
                                      const data::Dataset& dataset) {
  return {job.model,
          config::resolved_optimizer(job),
          context.job_text,
          dataset.tokenizer().model_bytes(),
          dataset.compatibility_forms(),
          dataset.digest()};
}

std::shared_ptr<TrainEngine> build_engine(const JobContext& context, const data::Dataset& dataset,
                                          const Beginning& beginning) {
  config::JobConfig job = context.job;
  job.model = complete_model(job, dataset);
  const auto engine = make_engine(context, std::move(job));
  engine->probe(dataset.slot_batch(uint64_t(engine->job().seed), 0, 0, uint32_t(engine->job().slots)));
  if (beginning.checkpoint)
    engine->replace_state(load_state(context, engine->job(), dataset, *beginning.checkpoint));
  return engine;
}

void load_into(const JobContext& context, const data::Dataset& dataset, TrainEngine& engine,
               const std::filesystem::path& path) {
  engine.replace_state(load_state(context, engine.job(), dataset, path));
  // Read twice: what has changed in memory between the first reading and its seal differs from the second.
  if (!engine.holds(load_on_host(context, path).state))
    throw error(ErrorKind::corrupt, "the state of {} has changed in this node's memory while it was loaded",
                path.string());
}

void write_memory_map(const JobContext& context, const TrainEngine& engine) {
  const auto folder = std::filesystem::path(context.out_folder) / "transfer";
  std::error_code none;  // a drill finds the file, or it does not
  std::filesystem::create_directories(folder, none);
  const auto path = folder / (context.node() + ".memory"), part = folder / (context.node() + ".memory.part");
  {
    std::ofstream out(part);
    for (const auto& [what, data, bytes] : engine.memory_map())
      if (bytes > 0) out << fmt::format("{} {} {}\n", what, reinterpret_cast<uintptr_t>(data), bytes);
  }
  std::filesystem::rename(part, path, none);
}

std::string fingerprint_text(const JobContext& context, const data::Dataset& dataset,
                             const TrainEngine& engine) {
  std::string nodes = node_names(context.cluster);  // ranks are places in this list
  if (nodes.size() > kNamesMax) {
    const auto hash = Sha256().update(nodes).digest();
    nodes = fmt::format("{} with SHA-256 {}", context.cluster.nodes.size(), to_hex(hash.data(), hash.size()));
  }
  return fmt::format("program={}\nwire={}\nnodes={}\nquorum={}\nnumerics={}\njob={}\ndata={}\ngradient={}\n",
                     kVersion, wire::kWireVersion, nodes, context.cluster.quorum, engine.numerics(),
                     to_hex(context.job_id.data(), context.job_id.size()), dataset.digest(), engine.probed());
}

}  // namespace troupe::actors
