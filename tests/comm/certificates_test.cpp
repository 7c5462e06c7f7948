// Certificates: what `troupe certs` makes, and every way in which files can be the wrong ones.
#include "comm/certificates.hpp"

#include <fstream>

#include <doctest/doctest.h>
#include <sys/stat.h>

#include "comm/security.hpp"
#include "kernels/base/error.hpp"
#include "tests/comm/certificate_files.hpp"
#include "tests/support/process.hpp"

namespace troupe::comm::test {

namespace {

CertificateOptions for_nodes(const std::string& folder, std::vector<std::string> names) {
  CertificateOptions options;
  options.folder = folder;
  options.cluster = "test";
  for (std::string& name : names) options.nodes.push_back({std::move(name), {}});
  return options;
}

std::string content(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

}  // namespace

TEST_CASE("certificates of a cluster load for their own nodes, and keys are private") {
  const troupe::test::TemporaryFolder folder;
  auto options = for_nodes(folder / "certs", {"n1", "node-2_b.example"});
  options.nodes[0].hosts = {"localhost", "127.0.0.1", "::1", "machine.example"};
  const mode_t before = umask(077);  // modes do not depend on it
  const auto written = make_certificates(options);
  umask(before);
  CHECK(written.size() == 6);
  for (const std::string& path : written) {
    CAPTURE(path);
    struct stat status {};
    REQUIRE(stat(path.c_str(), &status) == 0);
    CHECK((status.st_mode & 0777) == (path.ends_with(".key") ? 0600u : 0644u));
  }
  const auto credentials = load_credentials(files_of(folder / "certs", "n1"), "n1");
  CHECK(credentials.ca_pem == content(folder / "certs/ca.pem"));
  CHECK_NOTHROW(load_credentials(files_of(folder / "certs", "node-2_b.example"), "node-2_b.example"));
  CHECK_NOTHROW(load_credentials(files_of(folder / "certs", "n1"), ""));
}

TEST_CASE("nothing is overwritten, and a node that comes later is signed by the same authority") {
  const troupe::test::TemporaryFolder folder;
  make_certificates(for_nodes(folder.path(), {"n1"}));
  const std::string authority = content(folder / "ca.pem"), key = content(folder / "n1.key");
  CHECK_THROWS_WITH_AS(make_certificates(for_nodes(folder.path(), {"n2", "n1"})),
                       doctest::Contains("n1.pem exists"), Error);
  CHECK(content(folder / "n2.pem").empty());  // nothing half done
  make_certificates(for_nodes(folder.path(), {"n2"}));
  CHECK(content(folder / "ca.pem") == authority);
  CHECK(content(folder / "n1.key") == key);
  CHECK_NOTHROW(load_credentials(files_of(folder.path(), "n2"), "n2"));
}

TEST_CASE("impossible requests are refused before anything is written") {
  const troupe::test::TemporaryFolder folder;
  const std::string inside = folder / "certs";
  const auto refuses = [&](const CertificateOptions& options) {
    CHECK_THROWS_AS(make_certificates(options), Error);
    CHECK(content(inside + "/ca.pem").empty());
  };
  refuses(for_nodes(inside, {}));
  for (const char* name : {"", "ca", "a b", "../n1", "-n", "10.0.0.1", "n/1"})
    refuses(for_nodes(inside, {name}));
  refuses(for_nodes(inside, {"n1", "n1"}));
  auto options = for_nodes(inside, {"n1"});
  options.nodes[0].hosts = {"no host"};
  refuses(options);
  options = for_nodes(inside, {"n1"});
  options.days = 0;
  refuses(options);
  std::ofstream(folder / "file") << "x";
  CHECK_THROWS_AS(make_certificates(for_nodes(folder / "file/certs", {"n1"})), Error);
}

TEST_CASE("files that are missing, mixed up, foreign or out of date are named") {
  const troupe::test::TemporaryFolder folder;
  make_certificates(for_nodes(folder / "a", {"n1", "n2"}));
  make_certificates(for_nodes(folder / "b", {"n1"}));
  const Security good = files_of(folder / "a", "n1");
  const auto refuses = [&](const Security& security, const std::string& file, const std::string& what) {
    CAPTURE(what);
    CHECK_THROWS_WITH_AS(load_credentials(security, "n1"), doctest::Contains(what.c_str()), Error);
    CHECK_THROWS_WITH_AS(load_credentials(security, "n1"), doctest::Contains(file.c_str()), Error);
  };
  Security security = good;
  security.key_file = "";
  refuses(security, "key", "three files");
  security = good;
  security.ca_file = folder / "nowhere.pem";
  refuses(security, "nowhere.pem", "cannot open");
  security = good;
  security.key_file = folder / "a/n2.key";
  refuses(security, "n2.key", "does not belong");
  security = good;
  security.ca_file = folder / "b/ca.pem";
  refuses(security, "n1.pem", "not one of the authority");
  refuses(files_of(folder / "a", "n2"), "n2.pem", "not for node 'n1'");
  security = good;
  security.certificate_file = folder / "a/n1.key";
  refuses(security, "n1.key", "no PEM certificate");
  security = good;
  security.key_file = folder / "a/n1.pem";
  refuses(security, "n1.pem", "no PEM key");
  std::ofstream(folder / "large.pem") << std::string(2 << 20, 'x');
  security = good;
  security.ca_file = folder / "large.pem";
  refuses(security, "large.pem", "1 MiB");
}

TEST_CASE("a name of a node is checked before it gets anywhere") {
  for (const char* good : {"a", "n1", "node-1.example_x", "1a"}) CHECK(valid_node_name(good));
  for (const char* bad : {"", "1", "10.0.0.1", "-a", ".a", "a b", "a/b", "a:b", "\xc3\xa4"})
    CHECK(!valid_node_name(bad));
  CHECK(!valid_node_name(std::string(64, 'a')));
}

}  // namespace troupe::comm::test
