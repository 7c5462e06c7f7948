// Fetching Debian's lists, with an apt-get of the test's own: no network.
#include <cstdlib>

#include <sys/stat.h>

#include "data/sources.hpp"
#include "tests/data/support.hpp"

using namespace troupe;
using namespace troupe::data;

namespace {

// Puts a folder with a made-up apt-get before everything else on PATH, for as long as it lives.
class FakeApt {
 public:
  explicit FakeApt(const std::string& script) {
    const char* before = std::getenv("PATH");
    before_ = before == nullptr ? "" : before;
    std::filesystem::create_directory(folder_ / "bin");
    if (!script.empty()) {
      const std::string path = folder_.write("bin/apt-get", "#!/bin/sh\n" + script);
      ::chmod(path.c_str(), 0755);
    }
    std::filesystem::create_symlink("/usr/bin/timeout", folder_ / "bin/timeout");
    ::setenv("PATH", (folder_ / "bin").c_str(), 1);
  }
  ~FakeApt() { ::setenv("PATH", before_.c_str(), 1); }

 private:
  test::TemporaryFolder folder_;
  std::string before_;
};

// Reads the folder for the lists out of its configuration, as apt would.
constexpr const char* kFetch =
    "while read -r name value; do\n"
    "  [ \"$name\" = Dir::State::Lists ] && lists=${value#\\\"} && lists=${lists%\\\"\\;}\n"
    "done < \"$APT_CONFIG\"\n"
    "[ \"$1\" = update ] || exit 3\n"
    "for language in en fr; do\n"
    "  printf 'Package: ant\\nDescription-md5: 1\\nDescription-%s: tiny %s\\n' $language $language"
    " > \"$lists/x_Translation-$language\"\n"
    "done\n";

SourceOptions debian(const std::string& from, const std::string& to, const std::string& cache) {
  SourceOptions options;
  options.kind = SourceKind::debian;
  options.source_language = from;
  options.target_language = to;
  options.cache = cache;
  return options;
}

}  // namespace

TEST_CASE("apt fetches the lists into a folder of its own, and they serve when the network is gone") {
  const test::TemporaryFolder folder;
  const SourceOptions options = debian("en", "fr", folder / "cache");
  const auto check = [&] {
    RawDocument document;
    REQUIRE(open_source(options, folder.path(), {})->next(&document));
    CHECK(document.source == std::vector<std::string>{"tiny en"});
    CHECK(document.target == std::vector<std::string>{"tiny fr"});
  };
  {
    const FakeApt apt(kFetch);
    check();
  }
  const std::string configuration = read_file(folder / "cache/apt.conf");
  const std::vector<std::string> parts = {"Acquire::Languages { \"fr\"; \"en\"; }",
                                          "Acquire::GzipIndexes \"false\"",
                                          "Dir::Etc::parts \"" + folder.path() + "/cache/none\""};
  for (const std::string& part : parts) CHECK(configuration.find(part) != std::string::npos);
  const FakeApt offline("echo 'Err:1 http://mirror.test stable InRelease'; exit 0\n");
  check();
}

TEST_CASE("what keeps apt from fetching is said, with the ways around it") {
  const test::TemporaryFolder folder;
  const SourceOptions options = debian("en", "fr", "");
  const auto open = [&] { open_source(options, folder.path(), {}); };
  {
    const FakeApt apt("");
    test::check_error(ErrorKind::usage, {"no apt-get", "--apt-lists"}, open);
  }
  {
    const FakeApt apt("echo 'W: Failed to fetch http://mirror.test/ Temporary failure resolving'; exit 0\n");
    test::check_error(ErrorKind::network, {"Temporary failure resolving", "--cache", "sources.list"}, open);
    const std::string cache = folder / "kept";
    test::check_error(ErrorKind::network, {"Temporary failure resolving", cache + "/apt.log"},
                      [&] { open_source(debian("en", "fr", cache), folder.path(), {}); });
    CHECK(read_file(cache + "/apt.log").find("Temporary failure") != std::string::npos);
  }
  {
    const FakeApt apt("echo 'E: The list of sources could not be read.'; exit 100\n");
    test::check_error(ErrorKind::network, {"code 100", "could not be read"}, open);
  }
  {
    const FakeApt apt("exec /bin/sleep 600\n");
    const auto give_up = [](const PrepareProgress& progress) {
      CHECK(std::string(progress.phase) == "download");
      throw error(ErrorKind::cancelled, "stopped");
    };
    // Long before it ends by itself.
    test::check_error(ErrorKind::cancelled, {"stopped"},
                      [&] { open_source(options, folder.path(), give_up); });
  }
  const FakeApt apt(kFetch);
  const SourceOptions unknown = debian("en", "tlh", "");
  test::check_error(ErrorKind::usage, {"none in \"tlh\""}, [&] { open_source(unknown, folder.path(), {}); });
}
