// MPI_Allreduce of floats, for the rows of bench/allreduce_bench.cpp: started by mpirun, prints one JSON
// line. usage: allreduce_openmpi MODE BYTES ROUNDS
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include <mpi.h>

int main(int count, char** words) {
  MPI_Init(&count, &words);
  if (count != 4) MPI_Abort(MPI_COMM_WORLD, 2);
  const long bytes = std::atol(words[2]), rounds = std::atol(words[3]);
  int rank = 0, ranks = 1;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_size(MPI_COMM_WORLD, &ranks);
  std::vector<float> values(size_t(bytes / 4), 1.0f);
  std::vector<double> seconds;
  for (long i = 0; i <= rounds; ++i) {
    const double begin = MPI_Wtime();
    MPI_Allreduce(MPI_IN_PLACE, values.data(), int(values.size()), MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD);
    if (i > 0) seconds.push_back(MPI_Wtime() - begin);
  }
  std::sort(seconds.begin(), seconds.end());
  const double middle = seconds[seconds.size() / 2];
  char version[MPI_MAX_LIBRARY_VERSION_STRING];
  int length = 0, major = 0, minor = 0, release = 0;
  MPI_Get_library_version(version, &length);
  std::sscanf(version, "Open MPI v%d.%d.%d", &major, &minor, &release);
  if (rank == 0)
    std::printf(
        "{\"system\":\"openmpi\",\"version\":\"%d.%d.%d\",\"mode\":\"%s\",\"processes\":%d,\"bytes\":%ld,"
        "\"gb_per_s\":%.3f,\"us\":%.1f}\n",
        major, minor, release, words[1], ranks, bytes,
        2.0 * (ranks - 1) / ranks * double(bytes) / middle * 1e-9, middle * 1e6);
  MPI_Finalize();
}
