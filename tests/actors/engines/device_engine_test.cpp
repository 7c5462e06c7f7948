// Engines of several devices, emulated ones here, against that of one; groups of devices with threads in the
// place of NCCL.
#include "actors/engines/device_engine.hpp"

#include "kernels/cuda/emulated.hpp"
#include "model/fitting.hpp"
#include "tests/actors/engines/engine_fixture.hpp"
#include "tests/actors/engines/group_of_threads.hpp"

using namespace troupe;
using namespace troupe::testing;

namespace {

// The devices of one node alone; fails, or adds what is wrong on the last device, from the call on that it is
// told.
class GroupInside final : public comm::DeviceGroup {
 public:
  enum class Fault { none, fails, wrong };
  GroupInside(Fault fault, int after) : fault_(fault), left_(after) {}
  std::string place() const override { return "here"; }
  std::string new_id() const override { return "id"; }
  void join(const comm::GroupPlace& place, std::shared_ptr<const std::atomic<bool>>,
            comm::Deadline) override {
    CHECK(place.first == 0);
    size_ = place.size;
  }
  void add(std::span<const comm::Addend> devices, int64_t count, comm::Deadline deadline) override {
    REQUIRE(devices.size() == size_);
    adder_.add(devices, count, deadline);
    if (fault_ == Fault::none || --left_ >= 0) return;
    const std::vector<int64_t> wrong(size_t(count), int64_t{1} << 30);
    devices.back().runtime->copy_in(devices.back().values, wrong.data(), wrong.size() * sizeof(int64_t));
    if (fault_ == Fault::fails) throw error(ErrorKind::device, "a link has failed");
  }
  void wait(std::span<const comm::Addend>, comm::Deadline) override {}
  void leave() override { size_ = 0; }

 private:
  Fault fault_;
  int left_;
  size_t size_ = 0;  // 0: not joined
  GroupOfThreads adder_{std::make_shared<Meeting>(1)};
};

std::unique_ptr<kernels::CudaStream> open_emulated(
    const kernels::DeviceMemory& memory = kernels::kEmulatedMemory) {
  return kernels::make_emulated_stream(kernels::ThreadOrder::forward, kernels::kEmulatedLimits, memory);
}

EngineDevices devices(size_t count) {
  EngineDevices devices;
  devices.numerics = "a device";
  for (size_t i = 0; i < count; ++i)
    devices.all.push_back({config::name_of(DeviceKind::emulated, int(i)), open_emulated(), open_emulated()});
  return devices;
}

std::unique_ptr<TrainEngine> engine_of(const Fixture& fixture, EngineDevices devices) {
  auto model = model::make_model(fixture.job.model);
  const auto state = model::first_state(kernels::allocate_host, *model, uint64_t(fixture.job.seed));
  return std::make_unique<DeviceEngine>(std::move(devices), fixture.job, fixture.plan, std::move(model),
                                        state);
}

// A node that adds with others in `meeting`.
std::unique_ptr<TrainEngine> member_of(const Fixture& fixture, size_t count,
                                       const std::shared_ptr<Meeting>& meeting) {
  EngineDevices all = devices(count);
  all.group = std::make_unique<GroupOfThreads>(meeting);
  return engine_of(fixture, std::move(all));
}

std::unique_ptr<TrainEngine> with_inside(const Fixture& fixture, size_t count, GroupInside::Fault fault,
                                         int after) {
  EngineDevices all = devices(count);
  all.inside = std::make_unique<GroupInside>(fault, after);
  return engine_of(fixture, std::move(all));
}

void check_same(TrainEngine& engine, TrainEngine& alone) {
  CHECK(engine.chain() == alone.chain());
  CHECK(engine.total() == alone.total());
  CHECK(digest_of(engine) == digest_of(alone));
  CHECK(engine.holds(alone.snapshot()));  // on every device
}

// A member's sums go to its group, each bucket as soon as its slots have passed it.
void add_buckets(TrainEngine& member, const scheduler::SlotSet& own) {
  const comm::Deadline deadline = comm::deadline_in_ms(60'000);
  for (size_t i = 0; i < member.group_buckets().size(); ++i) {
    while (!member.progress().wait(own, member.group_buckets()[i].begin, std::chrono::milliseconds(5)))
      REQUIRE(comm::Clock::now() < deadline);
    member.add_in_group(i, deadline);
  }
}

// Of every second slot.
scheduler::SlotSet slots_of(const Fixture& fixture, uint32_t first, int64_t step) {
  scheduler::SlotSet slots;
  for (uint32_t slot = first; slot < fixture.plan.slots(step); slot += 2) slots.insert(slot);
  return slots;
}

// What a member of a group has run.
struct Part {
  int64_t step = 0;
  std::vector<uint32_t> slots;
};

// What each of the members has against the sum of all, if anything.
std::vector<std::string> finish_together(const Fixture& fixture, const std::vector<Part>& parts) {
  const auto meeting = std::make_shared<Meeting>(int(parts.size()));
  std::vector<std::unique_ptr<TrainEngine>> members;
  for (const Part& part : parts) {
    TrainEngine& member = *members.emplace_back(member_of(fixture, 1, meeting));
    for (int64_t step = 0; step < part.step; ++step) run_step(fixture, member, step);
    for (const uint32_t slot : part.slots)
      member.run_slot(0, part.step, slot, fixture.batch(part.step, slot));
  }
  std::vector<std::string> refusals(parts.size());
  std::vector<std::thread> threads;
  for (size_t i = 0; i < parts.size(); ++i)
    threads.emplace_back([&, i] {
      scheduler::SlotSet own;
      for (const uint32_t slot : parts[i].slots) own.insert(slot);
      add_buckets(*members[i], own);
      try {
        members[i]->finish_in_group(parts.size(), comm::deadline_in_ms(60'000));
      } catch (const Error& refusal) {
        refusals[i] = refusal.what();
      }
    });
  for (std::thread& thread : threads) thread.join();
  return refusals;
}

// Two members whose group is formed, beside one device.
void check_in_group(const Fixture& fixture, const std::vector<std::unique_ptr<TrainEngine>>& members,
                    TrainEngine& alone) {
  for (int64_t step = 0; step < 2; ++step) {
    run_step(fixture, alone, step);
    std::vector<comm::SumMeta> sums(2);
    std::vector<std::thread> running, threads;
    for (uint32_t i = 0; i < 2; ++i)
      running.emplace_back([&, i] { run_slots(fixture, *members[i], step, i, 2); });
    for (uint32_t i = 0; i < 2; ++i)
      threads.emplace_back([&, i] {
        for (int again = 0; again < 2; ++again) {  // as after a view that was given up
          add_buckets(*members[i], slots_of(fixture, i, step));
          if (running[i].joinable()) running[i].join();
          sums[i] = members[i]->finish_in_group(2, comm::deadline_in_ms(60'000));
        }
      });
    for (std::thread& thread : threads) thread.join();
    CHECK(sums[0] == sums[1]);
    for (const auto& member : members) {
      commit(*member, sums[0], true);
      check_same(*member, alone);
    }
  }
}

}  // namespace

TEST_CASE("one, two and three devices of a node give the same bits, whoever of them runs which slots") {
  const Fixture fixture;
  for (const DeviceKind kind : kinds()) {
    if (kind == DeviceKind::cpu) continue;
    CAPTURE(int(kind));
    const auto alone = fixture.engine(kind);
    std::vector<std::unique_ptr<TrainEngine>> several;
    for (const uint32_t count : {2u, 3u}) several.push_back(fixture.engine(kind, count));
    if (kind == DeviceKind::emulated)
      for (const size_t count : {2, 3})
        several.push_back(with_inside(fixture, count, GroupInside::Fault::none, 0));
    for (int64_t step = 0; step < 3; ++step) {
      run_step(fixture, *alone, step);
      for (const auto& engine : several) {
        const uint32_t last = engine->workers() - 1;
        for (uint32_t slot = 0; slot < fixture.plan.slots(step); ++slot) {
          // In turn; all by the last device; by the first, but one.
          const uint32_t worker = step == 0 ? slot % (last + 1) : step == 1 || slot == 1 ? last : 0;
          engine->run_slot(worker, step, slot, fixture.batch(step, slot));
        }
        share(*engine, engine->verify_work());
        commit(*engine, engine->own_sum(), false);
        check_same(*engine, *alone);
      }
    }
  }
}

TEST_CASE("a node of two devices and a node of one, joined by a ring, give the bits of one device") {
  const Fixture fixture;
  auto fault = GroupInside::Fault::none;
  int after = 0;
  SUBCASE("the devices add among themselves") {}
  SUBCASE("their group fails at once, and the host adds") {
    fault = GroupInside::Fault::fails;
  }
  SUBCASE("their group fails in the middle of a sum") {
    fault = GroupInside::Fault::fails;
    after = 1;
  }
  const auto alone = fixture.engine(DeviceKind::emulated), one = fixture.engine(DeviceKind::emulated);
  const auto two = with_inside(fixture, 2, fault, after);
  for (int64_t step = 0; step < 2; ++step) {
    run_step(fixture, *alone, step);
    run_slots(fixture, *one, step, 0, 2);
    run_slots(fixture, *two, step, 1, 2);
    reduce(*one, *two);  // as in a view that was given up
    const comm::SumMeta sum = reduce(*one, *two);
    for (TrainEngine* engine : {one.get(), two.get()}) {
      commit(*engine, sum, true);
      check_same(*engine, *alone);
    }
  }
}

TEST_CASE("devices of several nodes that add in one group give the bits of one, and keep their own sums") {
  const Fixture fixture;
  const auto alone = fixture.engine(DeviceKind::emulated);
  const auto meeting = std::make_shared<Meeting>(2);
  std::vector<std::unique_ptr<TrainEngine>> members;
  SUBCASE("one and one") {
    for (const size_t count : {1, 1}) members.push_back(member_of(fixture, count, meeting));
  }
  SUBCASE("two and one") {
    for (const size_t count : {2, 1}) members.push_back(member_of(fixture, count, meeting));
  }
  SUBCASE("two and three") {
    for (const size_t count : {2, 3}) members.push_back(member_of(fixture, count, meeting));
  }
  check_in_group(fixture, members, *alone);
}

TEST_CASE("GPUs of two nodes add over NCCL with the bits of one") {
  if (kinds().back() != DeviceKind::cuda) return;  // which kinds() has said
  const std::vector<int> gpus = find_devices({DeviceKind::cuda, {}}).indices;
  const Fixture fixture;
  std::vector<std::unique_ptr<TrainEngine>> members;
  std::vector<std::string> places;
  if (gpus.size() >= 2) {
    const std::vector<int> others(gpus.begin() + 1, gpus.end());
    for (const std::vector<int>& part : {std::vector<int>{gpus[0]}, others})
      places.push_back(members.emplace_back(fixture.engine({DeviceKind::cuda, part}))->group()->place());
  }
  if (!comm::can_form_group(places)) {
    MESSAGE("not tested: there is one GPU, or no NCCL in this program");
    return;
  }
  const std::string id = members[0]->group()->new_id();
  std::vector<std::thread> threads;
  for (size_t i = 0; i < 2; ++i)
    threads.emplace_back([&, i] {
      members[i]->group()->join(comm::place_among(places, i, id),
                                std::make_shared<const std::atomic<bool>>(false),
                                comm::deadline_in_ms(60'000));
    });
  for (std::thread& thread : threads) thread.join();
  check_in_group(fixture, members, *fixture.engine(DeviceKind::cuda));
}

TEST_CASE(
    "members that come to a group with different steps, or other slots, are found out, by all of them") {
  const Fixture fixture;
  std::vector<Part> parts;
  bool whole = false;
  SUBCASE("of one step, with each slot once") {
    parts = {{0, {0, 2, 4}}, {0, {1, 3}}, {0, {5}}};
    whole = true;
  }
  SUBCASE("of a step, the one before and the one after") {
    parts = {{0, {0, 1, 4}}, {1, {2}}, {2, {3, 5}}};
  }
  SUBCASE("with one slot twice, as if by another seal") {
    parts = {{0, {0, 2, 4}}, {0, {1, 3, 5, 4}}};
  }
  SUBCASE("with no one's slot, as if by another seal") {
    parts = {{0, {0, 2, 4}}, {0, {1, 3}}};
  }
  REQUIRE(fixture.plan.slots(0) == 6);
  for (const std::string& said : finish_together(fixture, parts))
    CHECK((whole ? said.empty() : said.find("different steps, or not with each slot once") != said.npos));
}

TEST_CASE("a group is formed of devices that are apart and add in the same way") {
  using Places = std::vector<std::string>;
  CHECK(comm::can_form_group(Places{"a NCCL 1", "b NCCL 1"}));
  CHECK(comm::can_form_group(Places{"a,b,c NCCL 1", "d NCCL 1"}));
  CHECK_FALSE(comm::can_form_group(Places{}));
  CHECK_FALSE(comm::can_form_group(Places{"a NCCL 1", ""}));
  CHECK_FALSE(comm::can_form_group(Places{"a NCCL 1", "a NCCL 1"}));      // two processes on one GPU
  CHECK_FALSE(comm::can_form_group(Places{"a,b NCCL 1", "c,b NCCL 1"}));  // which both have among others
  CHECK_FALSE(comm::can_form_group(Places{"a NCCL 1", "b NCCL 2"}));
}

TEST_CASE("ranks in a group go by the members' places and then by their devices") {
  const std::vector<std::string> places = {"a,b NCCL 1", "c NCCL 1", "d,e,f NCCL 1"};
  const size_t first[] = {0, 2, 3};
  for (size_t i = 0; i < 3; ++i) {
    const comm::GroupPlace place = comm::place_among(places, i, "id");
    CHECK(place.id == "id");
    CHECK(place.first == first[i]);
    CHECK(place.size == 6);
  }
}

TEST_CASE("a total or a state that came from elsewhere comes to every device") {
  const Fixture fixture;
  const auto engine = fixture.engine(DeviceKind::emulated, 2);
  const auto behind = fixture.engine(DeviceKind::emulated, 3),
             later = fixture.engine(DeviceKind::emulated, 2);
  run_slots(fixture, *engine, 0);
  const comm::SumMeta sum = engine->own_sum();
  commit(*engine, sum, false);
  behind->set_total(engine->total());
  commit(*behind, sum, true);
  check_same(*behind, *engine);
  CHECK_FALSE(later->holds(engine->snapshot()));
  later->replace_state(engine->snapshot());
  CHECK(later->holds(engine->snapshot()));
  for (TrainEngine* any : {engine.get(), behind.get(), later.get()}) run_step(fixture, *any, 1);
  check_same(*behind, *engine);
  check_same(*later, *engine);
}

TEST_CASE("a bit that flips on the second device is found in the same step, with its tensor and device") {
  const Fixture fixture;
  const auto engine = fixture.engine(DeviceKind::emulated, 2);
  run_step(fixture, *engine, 0);
  const model::Parameter& parameter = engine->model().parameters().all()[3];
  const std::vector<MemoryRegion> regions = engine->memory_map();
  REQUIRE(regions.size() == 8);
  const int64_t place = parameter.offset + parameter.rows * parameter.cols / 2;
  const auto flip = [&](size_t region) {  // of the second device's
    auto* values = static_cast<const float*>(regions[4 + region].data);
    *reinterpret_cast<unsigned char*>(const_cast<float*>(values + place)) ^= 4;
  };
  const auto named = [&](const std::string& what) {
    return doctest::Contains((what + " of " + parameter.name + " on emulated device 1").c_str());
  };
  share(*engine, engine->verify_work());
  CHECK_NOTHROW(engine->require_sound());
  CHECK(engine->holds(engine->snapshot()));
  SUBCASE("a weight") {
    flip(0);
    CHECK_FALSE(engine->holds(engine->snapshot()));
    share(*engine, engine->verify_work());
    CHECK_THROWS_WITH_AS(engine->require_sound(), named("a weight"), Error);
  }
  SUBCASE("a moment") {
    flip(2);
    CHECK_THROWS_WITH_AS(run_step(fixture, *engine, 1), named("a second moment"), Error);
  }
}

TEST_CASE("devices of a node that were given different totals are found out in the same step") {
  const Fixture fixture;
  const auto engine = with_inside(fixture, 3, GroupInside::Fault::wrong, 0);
  CHECK_THROWS_WITH_AS(run_step(fixture, *engine, 0), doctest::Contains("on emulated device 2"), Error);
}

TEST_CASE("devices that compute other bits than the first are refused by name") {
  const Fixture fixture;
  const auto unlike = fixture.engine(DeviceKind::emulated, 3);
  const MemoryRegion weights = unlike->memory_map()[7];  // of the second, which computes with others
  REQUIRE(std::string(weights.what) == "packed");
  static_cast<unsigned char*>(const_cast<void*>(weights.data))[2] ^= 4;
  CHECK_THROWS_WITH_AS(unlike->probe(fixture.batch(0, 0)),
                       doctest::Contains("emulated device 1 makes other bits"), Error);
  const auto alike = fixture.engine(DeviceKind::emulated, 2), alone = fixture.engine(DeviceKind::emulated);
  alike->probe(fixture.batch(0, 0));
  alone->probe(fixture.batch(0, 0));
  CHECK(alike->probed() == alone->probed());
}

TEST_CASE("memory that one device of several lacks is said with its name and what would fit") {
  const Fixture fixture;
  const auto model = model::make_model(fixture.job.model);
  const size_t state = model::DeviceTrainer::state_bytes(*open_emulated(), *model);
  const auto refusal_with = [&](size_t free) {
    EngineDevices all = devices(3);
    all.all[1].work = open_emulated({free, free});
    try {
      engine_of(fixture, std::move(all))->run_slot(1, 0, 0, fixture.batch(0, 0));
    } catch (const Error& refusal) {
      CHECK(refusal.kind() == ErrorKind::out_of_memory);
      return std::string(refusal.what());
    }
    return std::string("it fits");
  };
  const std::string no_model = refusal_with(state - 1), no_slot = refusal_with(state);
  CHECK(no_model.starts_with("emulated device 1: the model does not fit on the device"));
  CHECK(no_model.find("parameters, and fewer than") != std::string::npos);
  CHECK(no_slot.starts_with("emulated device 1: a slot of"));
  const int64_t fitting = model::tokens_that_fit(*model, state, 64);
  const std::string what =
      fitting > 0 ? fmt::format("activations of {} tokens would fit", fitting) : "of one token";
  CHECK(no_slot.find(what) != std::string::npos);
  CHECK(refusal_with(size_t{1} << 40) == "it fits");
}
