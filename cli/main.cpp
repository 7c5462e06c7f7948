// troupe: one program, a subcommand for each job. Every error ends in one line on standard error and an exit code:
// 0 done, 1 the work failed, 2 wrong usage or configuration, 130 interrupted.
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <exception>
#include <new>

#include <CLI/CLI.hpp>
#include <fcntl.h>
#include <fmt/format.h>

#include "cli/checks.hpp"
#include "cli/commands.hpp"
#include "kernels/base/error.hpp"
#include "kernels/base/version.hpp"

namespace {

using namespace troupe;

int exit_code(ErrorKind kind) {
  switch (kind) {
    case ErrorKind::usage: return cli::kUsage;
    case ErrorKind::cancelled: return cli::kInterrupted;
    default: return cli::kFailed;
  }
}

// Neither throws nor allocates: it may be memory that is wanting.
int report(const char* what, int code) {
  for (const char* part : {"troupe: ", what, "\n"}) std::fputs(part, stderr);
  return code;
}

// CLI11 explains a wrong command line on several lines; we say it on one and name where help is.
int report_usage(const CLI::App& app, const CLI::ParseError& problem) {
  const CLI::App* command = &app;
  std::string path;  // " ledger verify"
  while (!command->get_subcommands().empty()) {
    command = command->get_subcommands().front();
    path += " " + command->get_name();
  }
  // A word where a command is wanted is taken for one, also beside --help.
  const std::vector<std::string> unknown = command->remaining();
  if (command->get_require_subcommand_min() > 0 && !unknown.empty() && !unknown.front().starts_with('-'))
    return report(fmt::format("there is no command \"{}\"; see troupe{} --help",
                              (path + " " + unknown.front()).substr(1), path).c_str(), cli::kUsage);
  if (problem.get_exit_code() == 0) return app.exit(problem);  // --help, --version
  return report(fmt::format("{}; see troupe{} --help", problem.what(), path).c_str(), cli::kUsage);
}

int run(int argc, char** argv) {
  CLI::App app("Trains Transformers on machines that come and go, with the same bits whatever happens.", "troupe");
  app.set_version_flag("--version", std::string(kVersion));
  app.require_subcommand(1);
  int code = cli::kDone;
  cli::add_prepare(app, code);
  cli::add_translate(app, code);
  cli::add_evaluate(app, code);
  cli::add_export(app, code);
  cli::add_train(app, code);
  cli::add_node(app, code);
  cli::add_digest(app, code);
  cli::add_drill(app, code);
  cli::add_ledger(app, code);
  cli::add_certs(app, code);
  cli::add_doctor(app, code);
  cli::check_whole_numbers(app);
  try {
    app.parse(argc, argv);
    return code;
  } catch (const CLI::ParseError& problem) {
    return report_usage(app, problem);
  } catch (const Error& problem) {
    return report(problem.what(), exit_code(problem.kind()));
  } catch (const CheckFailure& bug) {
    return report(fmt::format("this is a bug in troupe, please report it: {}", bug.what()).c_str(), cli::kFailed);
  } catch (const std::bad_alloc&) {
    return report("out of memory: use a smaller model, fewer threads or shorter packs", cli::kFailed);
  } catch (const std::exception& problem) {
    return report(problem.what(), cli::kFailed);
  }
}

// What is opened next would take the place of a descriptor that is closed from the start, and a socket or pipe would
// get what is meant for the terminal. What is put there fails when it is used, as one that is closed does; but words on
// standard error may vanish.
void fill_closed_descriptors(int, char**, char**) {
  const int modes[] = {O_WRONLY, O_RDONLY, O_WRONLY};
  for (int descriptor = 0; descriptor < 3; ++descriptor)
    if (fcntl(descriptor, F_GETFD) < 0) open("/dev/null", modes[descriptor]);  // the lowest that is free: this one
}

// Before the initialisers of shared libraries, some of which open descriptors too.
[[gnu::section(".preinit_array"), gnu::used]] void (*const kFirstOfAll)(int, char**, char**) = fill_closed_descriptors;

}  // namespace

int main(int argc, char** argv) {
  // A pipe that nobody reads and a file that may not grow are errors like a full disk.
  signal(SIGPIPE, SIG_IGN);
  signal(SIGXFSZ, SIG_IGN);
  const int code = run(argc, argv);
  const bool flushed = std::fflush(stdout) == 0;
  if (code != cli::kDone || (flushed && std::ferror(stdout) == 0)) return code;
  return report(fmt::format("cannot write to standard output: {}",
                            flushed ? "some of it was lost" : std::strerror(errno)).c_str(), cli::kFailed);
}
