#include "nodes.hpp"

#include <tuple>

#include <doctest/doctest.h>

#include "training.hpp"

namespace troupe::test {

std::string cluster_text(const std::string& alpha, const std::string& beta, const std::string& more) {
  return "[cluster]\nname = \"test\"\n" + more + "[[nodes]]\nname = \"alpha\"\naddress = \"" + alpha +
         "\"\nthreads = 1\n[[nodes]]\nname = \"beta\"\naddress = \"" + beta + "\"\nthreads = 1\n";
}

namespace {

// "NAME listens on ADDRESS", as a node says it.
std::pair<std::string, std::string> name_and_address(Process& process) {
  constexpr std::string_view words = " listens on ";
  const bool came = process.wait_for_output(std::string(words), kRunDeadline);
  CAPTURE(process.err());
  REQUIRE(came);
  const std::string said = process.out() + process.err();
  const size_t at = said.find(words), end = said.find('\n', at);
  REQUIRE(end != std::string::npos);  // a line is written in one piece
  const size_t name = said.rfind(' ', at - 1) + 1, address = at + words.size();
  return {said.substr(name, at - name), said.substr(address, end - address)};
}

std::vector<std::string> node_command(std::vector<std::string> words) {
  words.insert(words.begin(), {TROUPE_PROGRAM, "node"});
  return words;
}

std::vector<std::string> with(std::vector<std::string> first, const std::vector<std::string>& more) {
  first.insert(first.end(), more.begin(), more.end());
  return first;
}

}  // namespace

Node::Node(const TemporaryFolder& folder, const std::string& name, const std::string& more,
           std::vector<std::string> words)
    : process(node_command(with(
          {"--cluster", folder.write(name + ".toml", cluster_text(kAnyPort, kAnyPort, more)), "--name", name},
          words))),
      address(name_and_address(process).second) {}

FreeNode::FreeNode(std::vector<std::string> words) : process(node_command(std::move(words))) {
  std::tie(name, address) = name_and_address(process);
}

std::string cluster_file(const TemporaryFolder& folder, const Node& alpha, const Node& beta,
                         const std::string& more) {
  return folder.write("cluster.toml", cluster_text(alpha.address, beta.address, more));
}

}  // namespace troupe::test
