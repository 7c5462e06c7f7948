// Makes the dataset folder of a node whole with files from the other nodes, one file after another. Decides
// whom to ask for what; its owner carries questions and answers, and comes several times a second. Writes
// into the folder. One thread.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "actors/roles/blob_assembly.hpp"
#include "data/files.hpp"

namespace troupe::actors {

class DatasetRepair {
 public:
  struct Options {
    std::string folder;
    std::string node;                               // this one
    std::map<scheduler::Rank, std::string> others;  // their names
    std::vector<scheduler::Rank> awaited;  // when all of these say that they lack a file, nobody has it
    std::string problem;                   // why the folder cannot be used as it is
  };
  struct Question {
    scheduler::Rank giver = 0;
    std::string file;
    uint32_t index = 0;  // of the piece
  };

  // `lacking`: what data::lacking_files() says. This, due() and take() throw Error(file) with the problem,
  // the file and what each node said when nobody has it whole, or when the folder cannot be written to.
  DatasetRepair(Options options, std::vector<data::FileEntry> lacking, scheduler::Microseconds now_us);
  ~DatasetRepair();  // removes what it has of a file that is not whole
  DatasetRepair(const DatasetRepair&) = delete;
  DatasetRepair& operator=(const DatasetRepair&) = delete;
  std::vector<Question> due(scheduler::Microseconds now_us);
  // A piece without bytes is a sign of life: whoever sends it will say more.
  void take(scheduler::Rank from, const wire::Piece& piece, scheduler::Microseconds now_us);

  bool whole() const { return lacking_.empty(); }
  bool lacks(const std::string& file) const;

 private:
  void make_folder() const;
  std::string part_path() const;
  void remove_part() const;
  void begin_file(scheduler::Microseconds now_us);
  void finish_file(scheduler::Microseconds now_us);
  void blame_givers(scheduler::Microseconds now_us);
  void forgive_pause(scheduler::Microseconds now_us);
  void give_up_if_due(scheduler::Microseconds now_us) const;
  [[noreturn]] void give_up() const;

  Options options_;
  std::vector<data::FileEntry> lacking_;  // the first is being taken
  BlobAssembly blob_;
  std::vector<scheduler::Rank> one_by_one_;  // asked alone after several together gave nonsense; the last now
  std::map<scheduler::Rank, std::string> absent_;  // who does not have the file, and why
  scheduler::Microseconds heard_us_ = 0;
  scheduler::Microseconds looked_us_ = 0;  // when its owner last came
};

}  // namespace troupe::actors
