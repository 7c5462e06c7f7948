// The subcommands of `troupe`: each function adds one to the command line. A subcommand's callback sets
// `code`.
#pragma once

#include <string>

#include <CLI/App.hpp>

#include "kernels/base/say.hpp"

namespace troupe::cli {

// What a program tells the shell.
enum ExitCode : int { kDone = 0, kFailed = 1, kUsage = 2, kInterrupted = 130 };

// Says what is wrong but ends nothing.
inline void warn(const std::string& message) {
  say("troupe: " + message);
}

// This executable, which local nodes run too.
std::string own_program();

void add_prepare(CLI::App& app, int& code);
void add_translate(CLI::App& app, int& code);
void add_evaluate(CLI::App& app, int& code);
void add_export(CLI::App& app, int& code);
void add_train(CLI::App& app, int& code);
void add_node(CLI::App& app, int& code);
void add_digest(CLI::App& app, int& code);
void add_drill(CLI::App& app, int& code);
void add_ledger(CLI::App& app, int& code);
void add_certs(CLI::App& app, int& code);
void add_doctor(CLI::App& app, int& code);

}  // namespace troupe::cli
