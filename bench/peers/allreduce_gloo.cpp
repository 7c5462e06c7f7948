// Gloo's allreduce of floats over TCP on loopback, for the rows of bench/allreduce_bench.cpp: forks its
// processes, prints one JSON line. usage: allreduce_gloo ring|bcube PROCESSES BYTES ROUNDS
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include <gloo/allreduce.h>
#include <gloo/math.h>
#include <gloo/rendezvous/context.h>
#include <gloo/rendezvous/file_store.h>
#include <gloo/transport/tcp/device.h>
#include <sys/wait.h>
#include <unistd.h>

namespace {

void measure(const std::string& mode, int rank, int ranks, long bytes, long rounds,
             const std::string& folder) {
  gloo::transport::tcp::attr where;
  where.hostname = "127.0.0.1";
  auto device = gloo::transport::tcp::CreateDevice(where);
  gloo::rendezvous::FileStore store(folder);
  auto context = std::make_shared<gloo::rendezvous::Context>(rank, ranks);
  context->connectFullMesh(store, device);

  std::vector<float> values(size_t(bytes / 4), 1.0f);
  std::vector<double> seconds;
  for (long i = 0; i <= rounds; ++i) {
    gloo::AllreduceOptions options(context);
    options.setOutput(values.data(), values.size());
    options.setAlgorithm(mode == "ring" ? gloo::AllreduceOptions::Algorithm::RING
                                        : gloo::AllreduceOptions::Algorithm::BCUBE);
    void (*sum)(void*, const void*, const void*, size_t) = &gloo::sum<float>;
    options.setReduceFunction(sum);
    const auto begin = std::chrono::steady_clock::now();
    gloo::allreduce(options);
    if (i > 0)
      seconds.push_back(std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
  }
  std::sort(seconds.begin(), seconds.end());
  const double middle = seconds[seconds.size() / 2];
  if (rank == 0)
    std::printf(
        "{\"system\":\"gloo\",\"mode\":\"tcp, %s\",\"processes\":%d,\"bytes\":%ld,\"gb_per_s\":%.3f,"
        "\"us\":%.1f}\n",
        mode.c_str(), ranks, bytes, 2.0 * (ranks - 1) / ranks * double(bytes) / middle * 1e-9, middle * 1e6);
  std::fflush(stdout);
}

}  // namespace

int main(int count, char** words) {
  if (count != 5) return 2;
  const int ranks = std::atoi(words[2]);
  std::string folder = (std::filesystem::temp_directory_path() / "gloo-XXXXXX").string();
  if (mkdtemp(folder.data()) == nullptr) {
    std::perror(folder.c_str());
    return 1;
  }
  for (int rank = 0; rank < ranks; ++rank)
    if (fork() == 0) {
      measure(words[1], rank, ranks, std::atol(words[3]), std::atol(words[4]), folder);
      _exit(0);  // its device's threads do not end by themselves
    }
  int failed = 0, status = 0;
  while (wait(&status) > 0) failed |= status;
  std::filesystem::remove_all(folder);
  return failed == 0 ? 0 : 1;
}
