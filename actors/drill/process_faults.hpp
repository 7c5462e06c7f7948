// What can be done to a node's process from outside. Throw Error that names the process.
#pragma once

#include <filesystem>
#include <random>
#include <string>

#include <sys/types.h>

namespace troupe::drill {

void send_signal(pid_t process, int signal);

// As if the disk were full: no file of the process can grow; undone with `full` false.
void fill_disk(pid_t process, bool full);

// Changes one random bit of the state of a running node, whose memory map (see write_memory_map) is the file.
// Returns what it hit, in words. Throws Error(file) when there is no map, as while the node starts.
std::string flip_bit(pid_t process, const std::filesystem::path& map, std::mt19937_64& random);

}  // namespace troupe::drill
