// Runs apt-get update with a configuration and folders of its own: nothing of the system is touched, no root
// is needed.
#include <algorithm>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <thread>

#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include "data/files.hpp"
#include "data/sources.hpp"
#include "kernels/base/error.hpp"
#include "kernels/base/say.hpp"

namespace troupe::data {
namespace {

constexpr int kDownloadSecondsMax = 600;
constexpr std::chrono::milliseconds kAskAgain{100};  // whether to go on

std::string apt_configuration(const std::string& folder, const std::vector<std::string>& languages) {
  std::string listed;
  for (const auto& language : languages) listed += fmt::format("\"{}\"; ", language);
  return fmt::format(
      "Dir::State::Lists \"{0}/lists\";\n"
      "Dir::State::status \"/dev/null\";\n"
      "Dir::Cache \"{0}/cache\";\n"
      "Dir::Etc::parts \"{0}/none\";\n"
      "Dir::Etc::main \"{0}/none.conf\";\n"
      "Acquire::Languages {{ {1}}};\n"
      "Acquire::GzipIndexes \"false\";\n"
      "Acquire::Retries \"3\";\n"
      "Acquire::http::Timeout \"30\";\n"
      "Acquire::https::Timeout \"30\";\n"
      "APT::Sandbox::User \"\";\n",
      folder, listed);
}

// For the end of a child; what `progress` throws meanwhile ends it. Returns its exit code.
int wait_for(pid_t child, const ProgressFunction& progress) {
  int status = 0;
  try {
    for (pid_t ended = 0; ended != child;) {
      ended = ::waitpid(child, &status, progress ? WNOHANG : 0);
      if (ended < 0 && errno != EINTR) break;
      if (ended != 0) continue;
      progress({"download", 0, 0});
      std::this_thread::sleep_for(kAskAgain);
    }
  } catch (...) {
    ::kill(child, SIGTERM);  // which timeout passes on
    ::waitpid(child, nullptr, 0);
    throw;
  }
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128;
}

// Runs apt-get with this configuration, its output in `log`. Returns its exit code; 127 when there is no
// apt-get.
int run_apt_get(const std::string& configuration, const std::string& log, const ProgressFunction& progress) {
  std::vector<std::string> environment;
  for (char** entry = environ; *entry != nullptr; ++entry)
    if (!std::string_view(*entry).starts_with("APT_CONFIG=") &&
        !std::string_view(*entry).starts_with("LC_ALL="))
      environment.emplace_back(*entry);
  environment.push_back("APT_CONFIG=" + configuration);
  environment.push_back("LC_ALL=C");
  std::vector<char*> pointers;
  for (auto& entry : environment) pointers.push_back(entry.data());
  pointers.push_back(nullptr);

  std::string bound = std::to_string(kDownloadSecondsMax), timeout = "timeout", program = "apt-get",
              update = "update";
  char* arguments[] = {timeout.data(), bound.data(), program.data(), update.data(), nullptr};
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_addopen(&actions, 1, log.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0644);
  posix_spawn_file_actions_adddup2(&actions, 1, 2);
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  sigset_t none;
  sigemptyset(&none);
  posix_spawnattr_setsigmask(&attributes, &none);  // this process may hold back what is to end the child
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK);
  pid_t child = 0;
  const int failed = posix_spawnp(&child, timeout.c_str(), &actions, &attributes, arguments, pointers.data());
  posix_spawn_file_actions_destroy(&actions);
  posix_spawnattr_destroy(&attributes);
  return failed != 0 ? 127 : wait_for(child, progress);
}

// The first line of apt's log that tells of an error; empty when none does.
std::string apt_reason(const std::string& log) {
  const std::string text = read_file(log);
  for (const std::string_view mark : {"\nE: ", "\nErr:", "\nW: "}) {
    const size_t at = ("\n" + text).find(mark);
    if (at != std::string::npos) return text.substr(at, text.find('\n', at) - at);
  }
  return {};
}

bool has_translations(const std::string& lists, const std::string& language) {
  for (const auto& entry : std::filesystem::directory_iterator(lists))
    if (entry.path().filename().string().ends_with("Translation-" + language)) return true;
  return false;
}

}  // namespace

std::string download_apt_lists(const std::string& folder, const std::vector<std::string>& languages,
                               bool kept, const ProgressFunction& progress) {
  const std::string path = std::filesystem::absolute(folder).lexically_normal().string();
  if (path.find_first_of("\"\\\n") != std::string::npos)
    throw error(ErrorKind::usage, "cannot keep apt's lists in {}: choose a folder without quotes in its name",
                path);
  make_folder(path + "/lists/partial");
  make_folder(path + "/cache/archives/partial");
  make_folder(path + "/none");
  write_file(path, "apt.conf", apt_configuration(path, languages), false);
  const int code = run_apt_get(path + "/apt.conf", path + "/apt.log", progress);
  constexpr std::string_view advice =
      "the Debian corpus needs a Debian system with apt and a way to its mirror (see /etc/apt/sources.list). "
      "Without one, give a folder with downloaded lists (--apt-lists), or files of your own (--aligned, "
      "--tsv "
      "or --text)";
  if (code == 126 || code == 127)
    throw error(ErrorKind::usage, "cannot fetch Debian's package descriptions: there is no apt-get here; {}",
                advice);
  const auto missing = std::find_if(languages.begin(), languages.end(), [&](const std::string& language) {
    return !has_translations(path + "/lists", language);
  });
  const std::string reason = apt_reason(path + "/apt.log");
  if (missing == languages.end()) {  // another repository of the system may have failed
    if (code != 0 || read_file(path + "/apt.log").find("Failed to fetch") != std::string::npos)
      say(fmt::format(
          "troupe: not all of Debian's package lists could be fetched, and those that are there are used:{}",
          reason));
    return path + "/lists";
  }
  if (code != 0 || !reason.empty())
    throw error(
        ErrorKind::network, "cannot fetch Debian's package descriptions: apt-get update {} ({}{}); {}",
        code == 124 ? "took too long" : fmt::format("ended with code {}", code), reason,
        kept ? fmt::format("; log in {}/apt.log", path) : "; with --cache DIR its log is kept", advice);
  throw error(ErrorKind::usage,
              "cannot fetch Debian's package descriptions: the mirror has none in \"{}\"; use a language "
              "code such as "
              "en, fr or de",
              *missing);
}

}  // namespace troupe::data
