#include "actors/ledger.hpp"

#include <charconv>
#include <cstring>

#include <nlohmann/json.hpp>

#include "kernels/base/error.hpp"
#include "kernels/base/hash.hpp"

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

LedgerWriter::LedgerWriter(const std::filesystem::path& path, int64_t step) : path_(path) {
  std::filesystem::create_directories(path.parent_path());
  std::uintmax_t keep = 0;
  std::ifstream in(path);
  for (std::string line; std::getline(in, line) && !in.eof();) {
    try {
      if (parse_line(line).step >= step) break;
    } catch (const Error&) {
      break;
    }
    keep += line.size() + 1;
  }
  in.close();
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
