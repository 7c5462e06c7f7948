#include "nodes.hpp"

#include <doctest/doctest.h>

#include "training.hpp"

namespace troupe::test {

std::string cluster_text(const std::string& alpha, const std::string& beta, const std::string& more) {
  return "[cluster]\nname = \"test\"\n" + more + "[[nodes]]\nname = \"alpha\"\naddress = \"" + alpha +
         "\"\nthreads = 1\n[[nodes]]\nname = \"beta\"\naddress = \"" + beta + "\"\nthreads = 1\n";
}

Node::Node(const TemporaryFolder& folder, const std::string& name, const std::string& more)
    : process({TROUPE_PROGRAM, "node", "--cluster",
               folder.write(name + ".toml", cluster_text(kAnyPort, kAnyPort, more)), "--name", name}) {
  const std::string words = name + " listens on ";
  REQUIRE(process.wait_for_output(words, kRunDeadline));
  const std::string said = process.out() + process.err();
  const size_t begin = said.find(words) + words.size(), end = said.find('\n', begin);
  REQUIRE(end != std::string::npos);  // a line is written in one piece
  address = said.substr(begin, end - begin);
}

std::string cluster_file(const TemporaryFolder& folder, const Node& alpha, const Node& beta,
                         const std::string& more) {
  return folder.write("cluster.toml", cluster_text(alpha.address, beta.address, more));
}

}  // namespace troupe::test
