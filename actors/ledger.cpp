#include "actors/ledger.hpp"

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>

#include <fcntl.h>
#include <nlohmann/json.hpp>
#include <unistd.h>

#include "kernels/base/error.hpp"
#include "kernels/base/hash.hpp"
#include "kernels/base/sync_folder.hpp"

namespace troupe::actors {

namespace {

std::string checksum_of(const std::string& text) {
  const uint64_t hash = checksum64(text.data(), text.size());
  return fmt::format("{:016x}", hash);
}

uint32_t number(std::string_view text) {
  uint32_t value = 0;
  const auto [end, failed] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (failed != std::errc() || end != text.data() + text.size() || value >= scheduler::kSlotsMax)
    throw error(ErrorKind::corrupt, "\"{}\" is no slot", text);
  return value;
}

// As to_line() begins; -1 for what is no record.
int64_t step_of(std::string_view line) {
  constexpr std::string_view begin = "{\"step\":";
  int64_t step = -1;
  if (line.starts_with(begin)) std::from_chars(line.data() + begin.size(), line.data() + line.size(), step);
  return step;
}

// The whole lines of a file, one after another.
class Lines {
 public:
  // A file that is not there has none. This and next() throw Error(file) for one that cannot be read.
  explicit Lines(const std::filesystem::path& path) : path_(path), in_(path) {
    std::error_code none;
    if (!in_.is_open() && std::filesystem::exists(path, none)) refuse();
    next();
  }
  bool there() const { return there_; }
  int64_t step() const { return step_; }
  const std::string& line() const { return line_; }
  uint64_t end() const { return end_; }  // of the line, in bytes
  void next() {
    do {
      there_ = std::getline(in_, line_) && !in_.eof();  // what a crash left half written has no end
      end_ += line_.size() + 1;
      step_ = step_of(line_);
    } while (there_ && step_ < 0);
    if (in_.bad()) refuse();
  }
  std::ifstream release() { return std::move(in_); }  // the end of their use

 private:
  [[noreturn]] void refuse() const {
    throw error(ErrorKind::file, "cannot read {}: {}", path_.string(), std::strerror(errno));
  }

  std::filesystem::path path_;
  std::ifstream in_;
  std::string line_;
  int64_t step_ = -1;
  uint64_t end_ = 0;
  bool there_ = false;
};

bool is_whole(const std::string& line) {
  try {
    parse_line(line);
    return true;
  } catch (const Error&) {
    return false;
  }
}

// All that was written to the file, through whatever stream.
void sync_file(const std::filesystem::path& path) {
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  const bool synced = descriptor >= 0 && ::fdatasync(descriptor) == 0;
  const int reason = errno;
  if (descriptor >= 0) ::close(descriptor);
  if (!synced)
    throw error(ErrorKind::file, "cannot sync the ledger {}: {}", path.string(), std::strerror(reason));
}

// Where both have a step, ours.
void write_merged(const std::filesystem::path& to, Lines ours, Lines theirs) {
  std::ofstream out(to, std::ios::trunc);
  while (ours.there() || theirs.there()) {
    const bool own = ours.there() && (!theirs.there() || ours.step() <= theirs.step());
    if (own && theirs.there() && ours.step() == theirs.step()) theirs.next();
    Lines& from = own ? ours : theirs;
    out << from.line() << '\n';
    from.next();
  }
  if (!out.flush())
    throw error(ErrorKind::file, "cannot write the ledger {}: {}", to.string(), std::strerror(errno));
}

}  // namespace

std::string to_ranges(const scheduler::SlotSet& slots) {
  std::string text;
  const std::vector<uint32_t> all = slots.to_vector();
  for (size_t i = 0; i < all.size();) {
    size_t last = i;
    while (last + 1 < all.size() && all[last + 1] == all[last] + 1) ++last;
    if (!text.empty()) text += ',';
    text += last == i ? fmt::format("{}", all[i]) : fmt::format("{}-{}", all[i], all[last]);
    i = last + 1;
  }
  return text;
}

scheduler::SlotSet from_ranges(const std::string& text) {
  scheduler::SlotSet slots;
  std::string_view rest = text;
  while (!rest.empty()) {
    const std::string_view part = rest.substr(0, rest.find(','));
    rest.remove_prefix(std::min(part.size() + 1, rest.size()));
    const size_t dash = part.find('-');
    const uint32_t first = number(part.substr(0, dash));
    const uint32_t last = dash == std::string_view::npos ? first : number(part.substr(dash + 1));
    if (last < first) throw error(ErrorKind::corrupt, "\"{}\" is no range of slots", part);
    for (uint32_t slot = first; slot <= last; ++slot) slots.insert(slot);
  }
  return slots;
}

std::string to_line(const LedgerRecord& record) {
  nlohmann::ordered_json by = nlohmann::ordered_json::object();
  for (const auto& [node, slots] : record.computed_by) by[node] = to_ranges(slots);
  nlohmann::ordered_json line = {{"step", record.step},
                                 {"view", fmt::format("{}/{}", record.view.number, record.view.leader)},
                                 {"by", by},
                                 {"packs", record.packs},
                                 {"tokens", record.target_tokens},
                                 {"skipped", record.skipped},
                                 {"chain", record.chain},
                                 {"at", record.committed_us}};
  line["check"] = checksum_of(line.dump());
  return line.dump();
}

LedgerRecord parse_line(const std::string& line) {
  try {
    auto json = nlohmann::ordered_json::parse(line);
    const std::string check = json.at("check");
    json.erase("check");
    if (check != checksum_of(json.dump())) throw error(ErrorKind::corrupt, "its checksum is wrong");
    LedgerRecord record;
    record.step = json.at("step");
    const std::string view = json.at("view");
    if (std::sscanf(view.c_str(), "%lu/%u", &record.view.number, &record.view.leader) != 2)
      throw error(ErrorKind::corrupt, "\"{}\" is no view", view);
    for (const auto& [node, slots] : json.at("by").items()) record.computed_by[node] = from_ranges(slots);
    record.packs = json.at("packs").get<std::vector<uint64_t>>();
    record.target_tokens = json.at("tokens");
    record.skipped = json.at("skipped");
    record.chain = json.at("chain");
    record.committed_us = json.at("at");
    return record;
  } catch (const nlohmann::json::exception&) {
    throw error(ErrorKind::corrupt, "it is not a whole record");
  }
}

std::filesystem::path ledger_path(const std::filesystem::path& out, const std::string& node) {
  return out / "ledger" / (node + ".jsonl");
}

int64_t ledger_complete_until(const std::filesystem::path& path) {
  int64_t step = 0;
  for (Lines lines(path); lines.there() && lines.step() <= step; lines.next())
    if (lines.step() == step) ++step;
  return step;
}

// Steps ascend in a file.
std::optional<LedgerRange> LedgerRange::find(const std::filesystem::path& path, int64_t first, int64_t end) {
  Lines lines(path);
  uint64_t from = 0, until = 0;
  int64_t newest = -1;
  for (; lines.there() && newest < end - 1; lines.next()) {
    newest = lines.step();
    if (newest < first || newest >= end) continue;
    if (until == 0) from = lines.end() - lines.line().size() - 1;
    until = lines.end();
  }
  if (newest < end - 1) return std::nullopt;
  return LedgerRange(lines.release(), from, until - from);
}

std::string LedgerRange::read(uint64_t at, size_t bytes_max) {
  if (at >= bytes_) return {};
  std::string out(std::min<uint64_t>(bytes_max, bytes_ - at), '\0');
  in_.clear();
  in_.seekg(std::streamoff(begin_ + at));
  if (!in_.read(out.data(), std::streamsize(out.size())))
    throw error(ErrorKind::file, "the ledger cannot be read any more");
  return out;
}

void sync_ledger(const std::filesystem::path& path) {
  if (!std::filesystem::exists(path)) return;
  sync_file(path);
  sync_folder(path.parent_path().string());  // where its name is
}

void merge_ledger(const std::filesystem::path& path, const std::filesystem::path& other) {
  const std::filesystem::path part = path.string() + ".part";
  std::filesystem::create_directories(path.parent_path());
  try {
    write_merged(part, Lines(path), Lines(other));
    sync_file(part);
    std::error_code failed;
    std::filesystem::rename(part, path, failed);
    if (failed)
      throw error(ErrorKind::file, "cannot write the ledger {}: {}", path.string(), failed.message());
  } catch (...) {
    std::error_code none;
    std::filesystem::remove(part, none);
    throw;
  }
  sync_folder(path.parent_path().string());
}

LedgerWriter::LedgerWriter(const std::filesystem::path& path, int64_t step) : path_(path) {
  std::filesystem::create_directories(path.parent_path());
  std::uintmax_t keep = 0;
  std::string last;
  for (Lines lines(path); lines.there() && lines.step() < step; lines.next()) {
    keep = lines.end();
    last = lines.line();
  }
  if (!last.empty() && !is_whole(last)) keep -= last.size() + 1;
  std::error_code none;
  if (std::filesystem::exists(path, none)) std::filesystem::resize_file(path, keep);
  out_.open(path, std::ios::app);
  if (!out_)
    throw error(ErrorKind::file, "cannot write the ledger {}: {}", path.string(), std::strerror(errno));
}

void LedgerWriter::append(const LedgerRecord& record) {
  out_ << to_line(record) << '\n' << std::flush;
  if (!out_)
    throw error(ErrorKind::file, "cannot write the ledger {}: {}", path_.string(), std::strerror(errno));
}

}  // namespace troupe::actors
