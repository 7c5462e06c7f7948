#include <cerrno>
#include <cstring>
#include <exception>
#include <fstream>
#include <functional>
#include <optional>
#include <thread>

#include <CLI/CLI.hpp>
#include <arpa/inet.h>
#include <fmt/format.h>
#include <netdb.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "actors/config/cluster.hpp"
#include "actors/engines/devices.hpp"
#include "actors/security.hpp"
#include "cli/checks.hpp"
#include "cli/commands.hpp"
#include "comm/address.hpp"
#include "comm/shared_memory.hpp"
#include "kernels/base/cores.hpp"
#include "kernels/base/error.hpp"
#include "kernels/base/version.hpp"
#include "kernels/cpu/backend.hpp"

namespace troupe::cli {

namespace {

// Collects findings: each a line; a problem also says how to mend it.
class Examination {
 public:
  void good(const std::string& what, const std::string& value) {
    fmt::print("ok    {:<18} {}\n", what, value);
  }
  void bad(const std::string& what, const std::string& problem, const std::string& cure) {
    fmt::print("WRONG {:<18} {}\n      {:<18} mend: {}\n", what, problem, "", cure);
    ++problems_;
  }
  int problems() const { return problems_; }

 private:
  int problems_ = 0;
};

void examine_processor(Examination& e) {
  using namespace kernels;
  const IsaLevel level = best_isa_level();
  e.good("instruction set", fmt::format("x86-64-{}", to_string(level)));
  try {
    e.good("products", make_cpu_backend(level)->description());
  } catch (const Error& problem) {
    e.bad("products", problem.what(), "run on an x86-64 machine with SSE4.2 or later");
  }
}

void examine_gpus(Examination& e) {
  try {
    e.good("GPUs", actors::describe_gpus());
  } catch (const Error& problem) {
    e.bad("GPUs", problem.what(), "see what nvidia-smi says, or train with device \"cpu\"");
  }
}

void examine_threads(Examination& e) {
  const unsigned cores = std::thread::hardware_concurrency();
  const uint32_t allowed = usable_cores();
  std::string quota = "no quota";
  std::ifstream v2("/sys/fs/cgroup/cpu.max");
  std::string share, period;
  if (v2 >> share >> period && share != "max") quota = fmt::format("quota {} us each {} us", share, period);
  e.good("threads", fmt::format("{} cores, {} allowed to this process, {}", cores, allowed, quota));
}

void examine_limits(Examination& e) {
  rlimit files{};
  getrlimit(RLIMIT_NOFILE, &files);
  if (files.rlim_max < 1024)
    e.bad("open files", fmt::format("at most {}", files.rlim_max), "raise the hard limit: ulimit -Hn 4096");
  else
    e.good("open files", fmt::format("{} now, up to {}", files.rlim_cur, files.rlim_max));
  if (const std::string why = comm::why_no_shared_memory(); !why.empty())
    e.bad("shared memory", why,
          "raise the limit of file sizes (ulimit -f) if there is one, or set transport = \"tcp\" in the "
          "cluster file");
  else
    e.good("shared memory", "anonymous shared memory works");
}

// Resolves host:port and calls `use` with each address until one works; returns the last reason.
std::string with_address(const std::string& address, const std::function<bool(const addrinfo&)>& use) {
  const auto [host, port] = comm::parse_address(address);
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  if (const int code = getaddrinfo(host.c_str(), std::to_string(port).c_str(), &hints, &found); code != 0)
    return gai_strerror(code);
  std::string reason = "no address";
  for (const addrinfo* a = found; a != nullptr; a = a->ai_next) {
    if (use(*a)) {
      reason.clear();
      break;
    }
    reason = std::strerror(errno);
  }
  freeaddrinfo(found);
  return reason;
}

std::string try_listen(const std::string& address) {
  return with_address(address, [](const addrinfo& a) {
    const int s = socket(a.ai_family, a.ai_socktype | SOCK_CLOEXEC, 0);
    const int on = 1;
    setsockopt(s, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    const bool works = s >= 0 && bind(s, a.ai_addr, a.ai_addrlen) == 0 && listen(s, 1) == 0;
    const int reason = errno;
    if (s >= 0) close(s);
    errno = reason;
    return works;
  });
}

std::string try_connect(const std::string& address) {
  return with_address(address, [](const addrinfo& a) {
    const int s = socket(a.ai_family, a.ai_socktype | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    bool works = connect(s, a.ai_addr, a.ai_addrlen) == 0;
    int reason = errno;
    if (!works && reason == EINPROGRESS) {
      pollfd wait{s, POLLOUT, 0};
      socklen_t size = sizeof reason;
      reason = ETIMEDOUT;
      if (poll(&wait, 1, 2000) == 1) getsockopt(s, SOL_SOCKET, SO_ERROR, &reason, &size);
      works = reason == 0;
    }
    if (s >= 0) close(s);
    errno = reason;
    return works;
  });
}

// None: it is wrong.
std::optional<config::ClusterConfig> examine_cluster_file(Examination& e, const std::string& file) {
  try {
    config::ClusterConfig cluster = config::read_cluster_file(file);
    e.good("cluster file",
           fmt::format("{}: {} nodes{}", file, cluster.listed().size(),
                       cluster.guests > 0 ? fmt::format(" and places for {} guests", cluster.guests) : ""));
    return cluster;
  } catch (const Error& problem) {
    e.bad("cluster file", problem.what(), "correct it, and ask again about the cluster");
    return std::nullopt;
  }
}

void examine_security(Examination& e, const config::ClusterConfig& cluster) {
  try {
    const comm::Security security = actors::client_security(cluster);
    if (security.tls()) comm::load_credentials(security, "");
    for (const auto& node : cluster.listed())
      comm::require_allowed(comm::parse_address(node.address), security, "use " + node.name + " at");
    e.good("security", security.tls()      ? "certificates in " + cluster.certificates
                       : security.insecure ? "none, and addresses beyond this machine are allowed"
                                           : "none, on this machine alone");
  } catch (const std::exception& problem) {  // a folder of certificates may be closed to us
    e.bad("security", problem.what(), "see [security] in the cluster file, and troupe certs");
  }
}

void examine_cluster(Examination& e, const std::string& file) {
  const auto read = examine_cluster_file(e, file);
  if (!read) return;
  const config::ClusterConfig& cluster = *read;
  if (actors::level_of(cluster) > kernels::best_isa_level())
    e.bad("instruction set",
          fmt::format("cluster.instruction_set is \"{}\", this machine has {}", cluster.instruction_set,
                      to_string(kernels::best_isa_level())),
          "set it to what all of the cluster's machines have");
  examine_security(e, cluster);
  for (const auto& node : cluster.listed()) {
    const std::string listening = try_connect(node.address);
    const std::string what = "node " + node.name;
    if (listening.empty()) {
      e.good(what, fmt::format("{}: something listens there", node.address));
    } else if (const std::string free = try_listen(node.address); free.empty()) {
      e.good(what, fmt::format("{}: is this machine, and the port is free", node.address));
    } else {
      e.bad(what, fmt::format("{}: cannot connect ({}), nor listen ({})", node.address, listening, free),
            "start it there with troupe node, or correct its address in the cluster file");
    }
  }
}

}  // namespace

void add_doctor(CLI::App& app, int& code) {
  CLI::App* command = app.add_subcommand(
      "doctor", "Look for what is wrong with this machine or a cluster, and how to mend it");
  auto cluster = std::make_shared<std::string>();
  command->add_option("--cluster", *cluster, "Also examine the nodes of this cluster file")
      ->check(not_empty());
  command->callback([cluster, &code] {
    Examination e;
    e.good("troupe", std::string(kVersion));
    examine_processor(e);
    examine_gpus(e);
    examine_threads(e);
    examine_limits(e);
    if (const std::string reason = try_listen("127.0.0.1:0"); reason.empty())
      e.good("loopback ports", "can listen on 127.0.0.1");
    else
      e.bad("loopback ports", reason, "bring the loopback interface up: ip link set lo up");
    if (!cluster->empty()) examine_cluster(e, *cluster);
    fmt::print("{}\n",
               e.problems() == 0 ? "nothing is wrong" : fmt::format("{} things are wrong", e.problems()));
    code = e.problems() == 0 ? kDone : kFailed;
  });
}

}  // namespace troupe::cli
