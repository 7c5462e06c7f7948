#include "actors/roles/kept_totals.hpp"

#include <algorithm>
#include <fstream>
#include <utility>

#include "kernels/base/error.hpp"

namespace troupe::actors {

namespace {

// How many totals more the disk is to have room for: a checkpoint is as large as three.
constexpr uintmax_t kReserve = 8;

}  // namespace

KeptTotals::KeptTotals(Limits limits, std::filesystem::path folder)
    : limits_(limits), folder_(std::move(folder)) {
  clear();  // of what a process of before has left
}

void KeptTotals::keep(int64_t step, Bytes total) {
  if (step != first_ + int64_t(totals_.size())) clear();
  if (totals_.empty()) first_ = step;
  memory_bytes_ += total->size();
  const size_t size = total->size();
  totals_.push_back({std::move(total), size});
  while (memory_bytes_ > limits_.memory && totals_.size() - filed_ > 1) file_oldest();
  while (file_bytes_ > limits_.files) drop_first();
}

void KeptTotals::file_oldest() {
  Kept& oldest = totals_[filed_];
  const std::filesystem::path path = path_of(first_ + int64_t(filed_));
  const Bytes bytes = std::move(oldest.bytes);
  memory_bytes_ -= oldest.size;
  file_bytes_ += oldest.size;
  ++filed_;
  std::error_code failed;
  std::filesystem::create_directories(folder_, failed);
  const auto space = std::filesystem::space(folder_, failed);
  if (!failed && space.available >= kReserve * bytes->size()) {
    std::ofstream out(path, std::ios::binary | std::ios::trunc);
    out.write(reinterpret_cast<const char*>(bytes->data()), std::streamsize(bytes->size()));
    if (out.flush()) return;
  }
  while (filed_ > 0) drop_first();
  throw error(ErrorKind::file, "cannot write {}, of {} bytes: {}", path.string(), bytes->size(),
              failed ? failed.message() : "the disk is full, or nearly so");
}

// REQUIRES one in a file.
void KeptTotals::drop_first() {
  std::error_code none;
  std::filesystem::remove(path_of(first_), none);
  file_bytes_ -= totals_.front().size;
  totals_.pop_front();
  --filed_;
  ++first_;
}

std::optional<KeptTotals::Part> KeptTotals::read(int64_t step, size_t offset, size_t bytes) const {
  const int64_t index = step - first_;
  if (index < 0 || index >= int64_t(totals_.size())) return std::nullopt;
  const Kept& kept = totals_[size_t(index)];
  offset = std::min(offset, kept.size);
  Part part{std::string(std::min(bytes, kept.size - offset), '\0'), kept.size};
  if (kept.bytes) {
    std::copy_n(reinterpret_cast<const char*>(kept.bytes->data()) + offset, part.data.size(),
                part.data.begin());
    return part;
  }
  std::ifstream in(path_of(step), std::ios::binary);
  in.seekg(std::streamoff(offset));
  if (!in.read(part.data.data(), std::streamsize(part.data.size()))) return std::nullopt;
  return part;
}

void KeptTotals::clear() {
  totals_.clear();
  filed_ = memory_bytes_ = file_bytes_ = 0;
  std::error_code none;
  std::filesystem::remove_all(folder_, none);
}

bool TotalsInMemory::have_room() {
  std::erase_if(given_, [](const auto& total) { return total.expired(); });
  size_t bytes = 0;
  for (const auto& each : given_)
    if (const auto total = each.lock()) bytes += total->size();
  return given_.size() < 3 || bytes < bytes_max_;
}

KeptTotals::Bytes TotalsInMemory::add(std::vector<std::byte> total) {
  auto bytes = std::make_shared<const std::vector<std::byte>>(std::move(total));
  given_.push_back(bytes);
  return bytes;
}

}  // namespace troupe::actors
