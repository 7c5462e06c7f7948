// A blob that a node takes from others piece by piece (a state, a total, a ledger, a file of a dataset), put
// together in memory or in a file. Several givers may have it: each is asked for a few pieces at a time, so
// that the faster ones give more, and what one does not give in time another is asked for. A value with a
// clock from outside; one thread.
#pragma once

#include <cstddef>
#include <filesystem>
#include <map>
#include <optional>
#include <vector>

#include "comm/messages.pb.h"
#include "scheduler/protocol.hpp"

namespace troupe::actors {

class BlobAssembly {
 public:
  struct Question {
    scheduler::Rank giver = 0;
    uint32_t index = 0;  // of the piece
  };

  // Forgets what was there. With a path the pieces go to that file, which is begun anew with the first.
  void begin(std::vector<scheduler::Rank> givers, std::filesystem::path file = {});
  void end() { begin({}); }
  bool wanted() const { return !givers_.empty(); }

  // Who is taken to have it: until the first piece is there, whoever was asked.
  const std::vector<scheduler::Rank>& givers() const { return givers_; }
  bool has_giver(scheduler::Rank rank) const;
  void drop_giver(scheduler::Rank rank);                            // it says that it has not, or is gone
  void hear(scheduler::Rank rank, scheduler::Microseconds now_us);  // anything of it, if only "not yet"

  // What to ask for now, and of whom; each question counts as asked.
  std::vector<Question> due(scheduler::Microseconds now_us);
  // Takes a piece in, wherever it came from. False when it is damaged or does not fit; it stays due. Throws
  // Error(file) when the file cannot be written.
  bool take(scheduler::Rank from, const wire::Piece& piece);
  bool begun() const { return bytes_total_.has_value(); }
  bool whole() const { return begun() && missing_ == 0; }
  std::vector<std::byte> take_bytes() { return std::move(memory_); }  // REQUIRES whole() and no path

 private:
  struct Asked {
    scheduler::Rank giver = 0;
    scheduler::Microseconds at_us = 0;
  };
  uint32_t pieces() const;
  bool overdue(const Asked& asked, scheduler::Microseconds now_us) const;
  void put(uint64_t at, const std::string& data);

  std::vector<scheduler::Rank> givers_;
  std::filesystem::path file_;
  std::vector<std::byte> memory_;
  std::optional<uint64_t> bytes_total_;
  std::vector<bool> here_;  // a piece
  uint32_t missing_ = 0;
  uint32_t first_missing_ = 0;
  std::map<uint32_t, Asked> asked_;                             // pieces that have not come yet
  std::map<scheduler::Rank, scheduler::Microseconds> greeted_;  // when each was asked for the first piece
  std::map<scheduler::Rank, scheduler::Microseconds> heard_;    // when something last came of each
};

}  // namespace troupe::actors
