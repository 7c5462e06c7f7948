// troupe: one program, a subcommand for each job. Every error ends in one line on standard error and an exit code:
// 0 done, 1 the work failed, 2 wrong usage or configuration, 130 interrupted.
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <exception>
#include <new>

#include <CLI/CLI.hpp>
#include <fmt/format.h>

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

int report(const char* what, int code) {
  fmt::print(stderr, "troupe: {}\n", what);
  return code;
}

// CLI11 explains a wrong command line on several lines; we say it on one and name where help is.
int report_usage(const CLI::App& app, const CLI::ParseError& problem, int argc, char** argv) {
  if (problem.get_exit_code() == 0) return app.exit(problem);  // --help, --version
  const CLI::App* command = &app;
  while (!command->get_subcommands().empty()) command = command->get_subcommands().front();
  const std::string name = command == &app ? "troupe" : "troupe " + command->get_name();
  if (command == &app && argc > 1 && argv[1][0] != '-')
    return report(fmt::format("there is no command \"{}\"; see troupe --help", argv[1]).c_str(), cli::kUsage);
  return report(fmt::format("{}; see {} --help", problem.what(), name).c_str(), cli::kUsage);
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
  try {
    app.parse(argc, argv);
    return code;
  } catch (const CLI::ParseError& problem) {
    return report_usage(app, problem, argc, argv);
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

}  // namespace

int main(int argc, char** argv) {
  const int code = run(argc, argv);
  const bool flushed = std::fflush(stdout) == 0;
  if (code != cli::kDone || (flushed && std::ferror(stdout) == 0)) return code;
  return report(fmt::format("cannot write to standard output: {}",
                            flushed ? "some of it was lost" : std::strerror(errno)).c_str(), cli::kFailed);
}
