#include "actors/client/local_cluster.hpp"

#include <csignal>
#include <cstring>
#include <fstream>
#include <sstream>
#include <thread>

#include <fcntl.h>
#include <nlohmann/json.hpp>
#include <poll.h>
#include <spawn.h>
#include <sys/file.h>
#include <sys/wait.h>
#include <unistd.h>

#include "actors/node_lock.hpp"
#include "kernels/base/error.hpp"

extern char** environ;

namespace troupe::actors {

namespace {

constexpr char kAnyPort[] = "127.0.0.1:0";
constexpr int kAnnounceDescriptor = 3;
constexpr std::chrono::seconds kStartPatience{30};
constexpr std::chrono::milliseconds kAskAgain{50};  // whether to give a start up

std::string find_program() {
  const std::filesystem::path self = std::filesystem::read_symlink("/proc/self/exe");
  const std::filesystem::path beside = self.parent_path() / "troupe";
  if (!std::filesystem::exists(beside))
    throw error(ErrorKind::file, "{} is missing; a local cluster runs its nodes with it", beside.string());
  return beside;
}

void write_file(const std::filesystem::path& path, const std::string& content) {
  std::ofstream out(path, std::ios::trunc);
  out << content;
  if (!out.flush()) throw error(ErrorKind::file, "cannot write {}: {}", path.string(), std::strerror(errno));
}

// What has to be made so that there is this folder: the uppermost of those that are missing; empty when it is
// there.
std::filesystem::path first_missing(const std::string& folder) {
  std::filesystem::path missing;
  std::error_code none;
  for (auto at = std::filesystem::absolute(folder); !std::filesystem::exists(at, none); at = at.parent_path())
    missing = at;
  return missing;
}

}  // namespace

LocalCluster::LocalCluster(config::ClusterConfig nodes, const std::string& out_folder, std::string program,
                           std::vector<std::string> more)
    : out_folder_(out_folder),
      program_(program.empty() ? find_program() : std::move(program)),
      made_(first_missing(out_folder)),
      more_(std::move(more)),
      config_(std::move(nodes)) {
  std::error_code failed;
  std::filesystem::create_directories(logs(), failed);
  if (failed)
    throw error(ErrorKind::file, "cannot make the folder {}: {}; choose another --out", logs(),
                failed.message());
  lock_ = comm::Descriptor(::open(logs().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (lock_.valid() && !try_lock(lock_.get(), LOCK_EX))
    throw error(ErrorKind::usage,
                "another troupe is at work in {}; wait for its end, or choose another --out", out_folder_);
  for (config::NodeConfig& node : config_.nodes)
    for (std::string* address : {&node.address, &node.bulk_address})
      reserved_.push_back(comm::reserve_address(kAnyPort, *address));
  write_file(out_folder_ + "/cluster.toml", config::to_toml(config_));
  processes_.resize(config_.nodes.size());
}

void LocalCluster::start(const std::function<bool()>& give_up) {
  try {
    for (size_t i = 0; i < processes_.size(); ++i) {
      std::filesystem::remove(log_path(config_.nodes[i].name));
      launch(i);
    }
    for (size_t i = 0; i < processes_.size(); ++i) wait_until_listening(i, give_up);
    write_json();
  } catch (...) {
    stop(std::chrono::milliseconds(0));
    throw;
  }
}

LocalCluster::~LocalCluster() {
  for (Process& process : processes_)
    if (process.announce >= 0) close(process.announce);
}

void LocalCluster::launch(size_t index) {
  const std::string& name = config_.nodes[index].name;
  int pipe_ends[2];
  if (pipe2(pipe_ends, O_CLOEXEC) != 0)
    throw error(ErrorKind::file, "cannot make a pipe to {}: {}", name, std::strerror(errno));
  const std::string log = log_path(name), cluster = cluster_path(index);
  posix_spawn_file_actions_t files;
  posix_spawn_file_actions_init(&files);
  posix_spawn_file_actions_addopen(&files, 0, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_addopen(&files, 1, log.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0644);
  posix_spawn_file_actions_adddup2(&files, 1, 2);
  posix_spawn_file_actions_adddup2(&files, pipe_ends[1], kAnnounceDescriptor);
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  sigset_t none;
  sigemptyset(&none);
  posix_spawnattr_setsigmask(&attributes, &none);
  posix_spawnattr_setflags(&attributes,
                           POSIX_SPAWN_SETSID | POSIX_SPAWN_SETSIGMASK);  // Ctrl-C is the client's
  std::vector<std::string> words = {program_,    "node",          "--cluster",
                                    cluster,     "--name",        name,
                                    "--one-job", "--announce-fd", std::to_string(kAnnounceDescriptor)};
  words.insert(words.end(), more_.begin(), more_.end());
  std::vector<char*> arguments;
  for (std::string& word : words) arguments.push_back(word.data());
  arguments.push_back(nullptr);
  const int failed =
      posix_spawn(&processes_[index].id, program_.c_str(), &files, &attributes, arguments.data(), environ);
  posix_spawn_file_actions_destroy(&files);
  posix_spawnattr_destroy(&attributes);
  close(pipe_ends[1]);
  processes_[index].announce = pipe_ends[0];
  if (failed != 0) {
    processes_[index].ended = true;
    throw error(ErrorKind::file, "cannot start {}: {}", program_, std::strerror(failed));
  }
}

void LocalCluster::wait_until_listening(size_t index, const std::function<bool()>& give_up) {
  const std::string& name = config_.nodes[index].name;
  char byte = 0;
  const auto deadline = std::chrono::steady_clock::now() + kStartPatience;
  while (byte != '\n') {
    pollfd ready{processes_[index].announce, POLLIN, 0};
    const auto left =
        std::chrono::duration_cast<std::chrono::milliseconds>(deadline - std::chrono::steady_clock::now());
    if (left.count() <= 0)
      throw error(ErrorKind::timeout, "{} did not start within {} s; see {}", name, kStartPatience.count(),
                  log_path(name));
    if (give_up && give_up()) throw error(ErrorKind::cancelled, "stopped before {} had started", name);
    if (poll(&ready, 1, int(std::min(left, kAskAgain).count())) == 0) continue;
    const ssize_t got = read(processes_[index].announce, &byte, 1);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0)
      throw error(ErrorKind::peer_lost, "{} did not start: {}; see {}", name, log_tail(name), log_path(name));
  }
}

std::string LocalCluster::cluster_path(size_t index) const {
  return out_folder_ + (have_map_.contains(index) ? fmt::format("/cluster-{}.toml", config_.nodes[index].name)
                                                  : "/cluster.toml");
}

void LocalCluster::give_map(size_t index, const config::ClusterConfig& as_seen) {
  have_map_.insert(index);
  write_file(cluster_path(index), config::to_toml(as_seen));
}

void LocalCluster::write_json() const {
  nlohmann::json nodes = nlohmann::json::array();
  for (size_t i = 0; i < processes_.size(); ++i)
    nodes.push_back(
        {{"name", config_.nodes[i].name}, {"address", config_.nodes[i].address}, {"pid", processes_[i].id}});
  const std::string path = out_folder_ + "/cluster.json";
  write_file(path + ".tmp", nlohmann::json{{"nodes", nodes}}.dump(2) + "\n");
  std::filesystem::rename(path + ".tmp", path);
}

std::string LocalCluster::log_path(const std::string& node) const {
  return logs() + "/" + node + ".log";
}

std::string LocalCluster::log_tail(const std::string& node) const {
  std::ifstream in(log_path(node));
  std::string line, last = "it left no word in its log";
  while (std::getline(in, line))
    if (!line.empty()) last = line;
  return last;
}

bool LocalCluster::running(size_t index) {
  Process& process = processes_.at(index);
  int status = 0;
  if (!process.ended && process.id > 0 && waitpid(process.id, &status, WNOHANG) == process.id)
    process.ended = true;
  return !process.ended && process.id > 0;
}

std::optional<size_t> LocalCluster::find(const std::string& node) const {
  const config::NodeConfig* found = config_.find(node);
  if (found == nullptr) return std::nullopt;
  return size_t(found - config_.nodes.data());
}

void LocalCluster::restart(size_t index, const std::function<bool()>& give_up) {
  TROUPE_CHECK(!running(index), "{} runs already", config_.nodes.at(index).name);
  if (processes_[index].announce >= 0) close(processes_[index].announce);
  processes_[index] = {};
  try {
    launch(index);
    wait_until_listening(index, give_up);
    write_json();
  } catch (...) {
    end(index);
    throw;
  }
}

void LocalCluster::end(size_t index) {
  if (!running(index)) return;
  kill(processes_[index].id, SIGKILL);  // ends a stopped process too
  waitpid(processes_[index].id, nullptr, 0);
  processes_[index].ended = true;
}

void LocalCluster::stop(std::chrono::milliseconds patience) {
  const auto deadline = std::chrono::steady_clock::now() + patience;
  const auto any = [&] {
    bool alive = false;
    for (size_t i = 0; i < processes_.size(); ++i) alive = running(i) || alive;
    return alive;
  };
  while (any() && std::chrono::steady_clock::now() < deadline)
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  for (size_t i = 0; i < processes_.size(); ++i) end(i);
}

void LocalCluster::undo() {
  if (made_.empty()) return;
  std::vector<std::string> written = {out_folder_ + "/cluster.toml", out_folder_ + "/cluster.json"};
  for (size_t i = 0; i < config_.nodes.size(); ++i) {
    written.push_back(cluster_path(i));
    written.push_back(log_path(config_.nodes[i].name));
    written.push_back(node_lock_path(out_folder_, config_.nodes[i].name));
  }
  written.push_back(node_lock_path(out_folder_, "any").parent_path());
  written.push_back(logs());
  std::error_code ignored;
  for (const std::string& path : written) std::filesystem::remove(path, ignored);
  for (auto folder = std::filesystem::absolute(out_folder_); folder != made_.parent_path();
       folder = folder.parent_path())
    std::filesystem::remove(folder, ignored);
}

}  // namespace troupe::actors
