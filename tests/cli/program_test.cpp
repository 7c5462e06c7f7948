#include <doctest/doctest.h>

#include "tests/support/process.hpp"

using namespace troupe::test;

TEST_CASE("the program says what it is and how it is used") {
  const ProcessResult version = run({TROUPE_PROGRAM, "--version"});
  CHECK(version.code == 0);
  CHECK(version.out == "0.1.0\n");
  const ProcessResult help = run({TROUPE_PROGRAM, "--help"});
  CHECK(help.code == 0);
  for (const char* command :
       {"prepare", "train", "node", "translate", "evaluate", "digest", "certs", "doctor"})
    CHECK(help.out.find(command) != std::string::npos);
}

TEST_CASE("help is of the command that is named, and a word that is none is refused also beside --help") {
  const ProcessResult help = run({TROUPE_PROGRAM, "ledger", "verify", "--help"});
  CHECK(help.code == 0);
  CHECK(help.out.find("--data") != std::string::npos);
  struct Wrong {
    std::vector<std::string> words;
    const char* says;
  };
  const Wrong mistakes[] = {
      {{"nonsense"}, "there is no command \"nonsense\"; see troupe --help"},
      {{"nonsense", "--help"}, "there is no command \"nonsense\"; see troupe --help"},
      {{"--job", "my.toml"}, "A subcommand is required; see troupe --help"},
      {{"ledger", "bogus"}, "there is no command \"ledger bogus\"; see troupe ledger --help"},
      {{"ledger"}, "A subcommand is required; see troupe ledger --help"},
      {{"ledger", "verify"}, "out is required; see troupe ledger verify --help"},
  };
  for (const Wrong& mistake : mistakes) {
    std::vector<std::string> command{TROUPE_PROGRAM};
    command.insert(command.end(), mistake.words.begin(), mistake.words.end());
    const ProcessResult result = run(command);
    CHECK(result.code == 2);
    CHECK(result.err == std::string("troupe: ") + mistake.says + "\n");
  }
}

TEST_CASE("output that nothing takes is a failure") {
  for (const char* words : {"--version", "--help", "doctor"}) {
    CAPTURE(words);
    const ProcessResult result =
        run({"sh", "-c", std::string("'" TROUPE_PROGRAM "' ") + words + " > /dev/full"});
    CHECK(result.code == 1);
    CHECK(result.err.find("troupe: cannot write to standard output") != std::string::npos);
  }
}

TEST_CASE("certificates of a cluster file are for its hosts, IPv6 addresses too") {
  const TemporaryFolder folder;
  const std::string cluster = folder.write("cluster.toml",
                                           "[[nodes]]\nname = \"a\"\naddress = \"[fd00::1]:7000\"\n"
                                           "[[nodes]]\nname = \"b\"\naddress = \"b.example:7000\"\n");
  const ProcessResult result =
      run({TROUPE_PROGRAM, "certs", "--cluster", cluster, "--out", folder / "certs"});
  CAPTURE(result.err);
  CHECK(result.code == 0);
  const auto certificate = [&](const std::string& name) {
    return run({"openssl", "x509", "-noout", "-text", "-in", folder / ("certs/" + name + ".pem")}).out;
  };
  CHECK(certificate("a").find("IP Address:FD00:0:0:0:0:0:0:1") != std::string::npos);
  CHECK(certificate("b").find("DNS:b.example") != std::string::npos);
}

TEST_CASE("certificates are made all or none, so that the same command can be tried again") {
  const TemporaryFolder folder;
  const std::string words = "'" TROUPE_PROGRAM "' certs --node a --out " + (folder / "certs");
  // Of 512 bytes, in which a key has room and a certificate has not.
  const ProcessResult full = run({"sh", "-c", "ulimit -f 1; exec " + words});
  CAPTURE(full.err);
  CHECK(full.code == 1);
  CHECK(full.err.find("ca.pem: File too large") != std::string::npos);
  CHECK(run({"ls", folder / "certs"}).out.empty());
  CHECK(run({"sh", "-c", words}).code == 0);
}

TEST_CASE("doctor finds nothing wrong here, and names a node that cannot be reached") {
  const ProcessResult good = run({TROUPE_PROGRAM, "doctor"});
  CAPTURE(good.out);
  CHECK(good.code == 0);
  CHECK(good.out.find("nothing is wrong") != std::string::npos);
  const TemporaryFolder folder;
  const std::string cluster =
      folder.write("cluster.toml", "[[nodes]]\nname = \"far\"\naddress = \"[fe80::1]:7000\"\n");
  const ProcessResult bad = run({TROUPE_PROGRAM, "doctor", "--cluster", cluster});
  CHECK(bad.code == 1);
  CHECK(bad.out.find("WRONG node far") != std::string::npos);
  CHECK(bad.out.find("WRONG security           will not use far at [fe80::1]:7000") != std::string::npos);
  const std::string nowhere =
      folder.write("nowhere.toml", "[security]\ncertificates = \"nowhere\"\n[[nodes]]\nname = \"a\"\n");
  const ProcessResult secret = run({TROUPE_PROGRAM, "doctor", "--cluster", nowhere});
  CHECK(secret.code == 1);
  CHECK(secret.out.find("nowhere/ca.pem") != std::string::npos);
  const std::string unbracketed =
      folder.write("unbracketed.toml", "[[nodes]]\nname = \"a\"\naddress = \"::1:7000\"\n");
  const ProcessResult misread = run({TROUPE_PROGRAM, "doctor", "--cluster", unbracketed});
  CHECK(misread.code == 1);
  CHECK(misread.out.find("WRONG cluster file") != std::string::npos);
  CHECK(misread.out.find("things are wrong") != std::string::npos);
  const ProcessResult small = run({"/bin/sh", "-c", "ulimit -f 20000; exec " TROUPE_PROGRAM " doctor"});
  CHECK(small.code == 1);
  CHECK(small.out.find("WRONG shared memory") != std::string::npos);
}

TEST_CASE("prepare gives the same bytes for any number of loaders") {
  const TemporaryFolder folder;
  std::string source, target;
  for (int i = 0; i < 400; ++i) {
    source += "the number " + std::to_string(i * i) + " follows " + std::to_string(i) + "\n";
    target += "le nombre " + std::to_string(i * i) + " suit " + std::to_string(i) + "\n";
  }
  const std::string a = folder.write("a.txt", source), b = folder.write("b.txt", target);
  std::string first;
  for (const char* threads : {"1", "2", "5"}) {
    const std::string out = folder / (std::string("out") + threads);
    const ProcessResult result = run({TROUPE_PROGRAM, "prepare", "--out", out, "--aligned", a, b,
                                      "--vocabulary", "300", "--threads", threads});
    CAPTURE(result.err);
    REQUIRE(result.code == 0);
    const std::string hashes =
        run({"sh", "-c", "cd " + out + " && find . -type f | sort | xargs sha256sum"}).out;
    CHECK(hashes.size() > 100);
    if (first.empty()) first = hashes;
    CHECK(hashes == first);
  }
}
