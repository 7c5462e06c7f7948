#include "actors/roles/blob_assembly.hpp"

#include <algorithm>
#include <cstring>
#include <fstream>

#include "comm/messages.hpp"
#include "kernels/base/error.hpp"
#include "kernels/base/hash.hpp"

namespace troupe::actors {

namespace {

constexpr scheduler::Microseconds kAskAgainUs = 1'000'000;  // who has never answered
constexpr scheduler::Microseconds kSilenceUs = 10'000'000;  // of one who has: a slow line is no lost question
constexpr size_t kAskedAtOnce = 8;                          // pieces, of each giver
constexpr uint64_t kBlobBytesMax = uint64_t{1} << 40;

}  // namespace

void BlobAssembly::begin(std::vector<scheduler::Rank> givers, std::filesystem::path file) {
  *this = BlobAssembly();
  givers_ = std::move(givers);
  file_ = std::move(file);
}

bool BlobAssembly::has_giver(scheduler::Rank rank) const {
  return std::find(givers_.begin(), givers_.end(), rank) != givers_.end();
}

void BlobAssembly::drop_giver(scheduler::Rank rank) {
  std::erase(givers_, rank);
  std::erase_if(asked_, [&](const auto& asked) { return asked.second.giver == rank; });
}

void BlobAssembly::hear(scheduler::Rank rank, scheduler::Microseconds now_us) {
  heard_[rank] = now_us;
}

uint32_t BlobAssembly::pieces() const {
  return uint32_t((*bytes_total_ + wire::kPieceBytes - 1) / wire::kPieceBytes);
}

bool BlobAssembly::overdue(const Asked& asked, scheduler::Microseconds now_us) const {
  const auto heard = heard_.find(asked.giver);
  if (heard == heard_.end()) return now_us - asked.at_us >= kAskAgainUs;
  return now_us - std::max(asked.at_us, heard->second) >= kSilenceUs;
}

std::vector<BlobAssembly::Question> BlobAssembly::due(scheduler::Microseconds now_us) {
  std::vector<Question> due;
  if (!begun()) {  // how large it is, whoever says it first
    for (scheduler::Rank giver : givers_) {
      const auto greeted = greeted_.find(giver);
      if (greeted != greeted_.end() && !overdue({giver, greeted->second}, now_us)) continue;
      greeted_[giver] = now_us;
      due.push_back({giver, 0});
    }
    return due;
  }
  std::erase_if(asked_, [&](const auto& asked) { return overdue(asked.second, now_us); });
  std::map<scheduler::Rank, size_t> under_way;
  for (const auto& [index, asked] : asked_) ++under_way[asked.giver];
  for (uint32_t index = first_missing_; index < pieces(); ++index) {
    if (here_[index] || asked_.contains(index)) continue;
    const auto idlest =
        std::min_element(givers_.begin(), givers_.end(),
                         [&](scheduler::Rank a, scheduler::Rank b) { return under_way[a] < under_way[b]; });
    if (idlest == givers_.end() || under_way[*idlest] >= kAskedAtOnce) break;
    ++under_way[*idlest];
    asked_[index] = {*idlest, now_us};
    due.push_back({*idlest, index});
  }
  // Whoever is idle now was slower than the rest: next time the question goes to another first.
  if (!givers_.empty()) std::rotate(givers_.begin(), givers_.begin() + 1, givers_.end());
  return due;
}

bool BlobAssembly::take(scheduler::Rank from, const wire::Piece& piece) {
  if (!has_giver(from)) return false;
  const auto refuse = [&] {
    asked_.erase(piece.index());  // to be asked for at once
    return false;
  };
  if (checksum64(piece.data().data(), piece.data().size()) != piece.checksum()) return refuse();
  if (!begun()) {
    if (piece.blob_bytes() == 0 || piece.blob_bytes() > kBlobBytesMax) return false;
    bytes_total_ = piece.blob_bytes();
    missing_ = pieces();
    here_.assign(missing_, false);
    if (!file_.empty()) std::ofstream(file_, std::ios::binary | std::ios::trunc);
  }
  const uint64_t at = uint64_t(piece.index()) * wire::kPieceBytes;
  if (piece.index() >= here_.size() || piece.blob_bytes() != *bytes_total_ ||
      piece.data().size() != std::min<uint64_t>(wire::kPieceBytes, *bytes_total_ - at))
    return refuse();
  if (here_[piece.index()]) return true;
  put(at, piece.data());
  here_[piece.index()] = true;
  --missing_;
  asked_.erase(piece.index());
  while (first_missing_ < here_.size() && here_[first_missing_]) ++first_missing_;
  return true;
}

void BlobAssembly::put(uint64_t at, const std::string& data) {
  if (file_.empty()) {
    memory_.resize(size_t(*bytes_total_));
    std::memcpy(memory_.data() + at, data.data(), data.size());
    return;
  }
  std::fstream out(file_, std::ios::binary | std::ios::in | std::ios::out);
  out.seekp(std::streamoff(at));
  if (!out.write(data.data(), std::streamsize(data.size())) || !out.flush())
    throw error(ErrorKind::file, "cannot write {}: {}", file_.string(), std::strerror(errno));
}

}  // namespace troupe::actors
