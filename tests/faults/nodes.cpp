#include "tests/faults/nodes.hpp"

#include <doctest/doctest.h>

#include "tests/faults/training.hpp"

namespace troupe::test {

std::string cluster_text(const std::vector<NodeAddress>& nodes, const std::string& more) {
  std::string out = "[cluster]\nname = \"test\"\n" + more;
  for (const auto& [name, address] : nodes)
    out += "[[nodes]]\nname = \"" + name + "\"\naddress = \"" + address + "\"\nthreads = 1\n";
  return out;
}

std::string cluster_text(const std::string& alpha, const std::string& beta, const std::string& more) {
  return cluster_text({{"alpha", alpha}, {"beta", beta}}, more);
}

std::vector<std::string> node_command(std::vector<std::string> words) {
  words.insert(words.begin(), {TROUPE_PROGRAM, "node"});
  return words;
}

namespace {

std::vector<std::string> named(const std::string& file, const std::string& name,
                               const std::vector<std::string>& more) {
  std::vector<std::string> words = {"--cluster", file, "--name", name};
  words.insert(words.end(), more.begin(), more.end());
  return words;
}

}  // namespace

Node::Node(const TemporaryFolder& folder, const std::string& node, const std::string& more,
           const std::vector<std::string>& words)
    : Node(node_command(
          named(folder.write(node + ".toml", cluster_text(kAnyPort, kAnyPort, more)), node, words))) {}

Node::Node(std::vector<std::string> command) : process(std::move(command)) {
  const std::string words = " listens on ";
  const bool came = process.wait_for_output(words, kRunDeadline);
  CAPTURE(process.err());
  REQUIRE(came);
  const std::string said = process.out() + process.err();
  const size_t at = said.find(words), end = said.find('\n', at);
  REQUIRE(end != std::string::npos);  // a line is written in one piece
  const size_t begin = said.rfind(' ', at - 1) + 1;
  name = said.substr(begin, at - begin);
  address = said.substr(at + words.size(), end - at - words.size());
}

std::string cluster_file(const TemporaryFolder& folder, const Node& alpha, const Node& beta,
                         const std::string& more) {
  return folder.write("cluster.toml", cluster_text(alpha.address, beta.address, more));
}

}  // namespace troupe::test
