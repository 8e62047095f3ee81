// SPDX-License-Identifier: BSL-1.0
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include <catch2/catch.hpp>
#include <procpool/detail/slab_allocated.hpp>

using procpool::detail::slab_allocated;

namespace {

template <std::size_t Size, std::size_t Alignment>
struct alignas(Alignment) item final : slab_allocated<item<Size, Alignment>> {
  explicit item(unsigned char with) { std::memset(bytes, with, Size); }
  bool holds(unsigned char what) const {
    return std::all_of(bytes, bytes + Size, [what](unsigned char each) { return each == what; });
  }
  unsigned char bytes[Size];
};

template <class Item>
using items = std::vector<std::unique_ptr<Item>>;

template <class Item>
items<Item> make(std::size_t n) {
  items<Item> all;
  for (std::size_t i = 0; i != n; ++i) all.push_back(std::make_unique<Item>(static_cast<unsigned char>(i)));
  return all;
}

template <class Item>
bool all_hold(const items<Item>& all) {
  for (std::size_t i = 0; i != all.size(); ++i) {
    if (all[i] && !all[i]->holds(static_cast<unsigned char>(i))) return false;
  }
  return true;
}

}  // namespace

TEMPLATE_TEST_CASE("objects of a slab are aligned and do not overlap, whichever have ended", "[slab_allocated]",
                   (item<1, 1>), (item<16, 16>), (item<184, 8>), (item<300, 16>)) {
  items<TestType> all = make<TestType>(1000);
  CHECK(std::ranges::all_of(
      all, [](const auto& each) { return reinterpret_cast<std::uintptr_t>(each.get()) % alignof(TestType) == 0; }));
  CHECK(all_hold(all));
  for (std::size_t i = 0; i < all.size(); i += 3) all[i].reset();
  CHECK(all_hold(all));
  const items<TestType> more = make<TestType>(1000);
  CHECK(all_hold(all));
  CHECK(all_hold(more));
}

TEST_CASE("objects may outlive the thread that has made them", "[slab_allocated]") {
  using some = item<100, 8>;
  items<some> all;
  std::thread([&all] { all = make<some>(50); }).join();  // the last slab is not full
  CHECK(all_hold(all));
  std::thread([&all] { all.erase(all.begin(), all.begin() + 25); }).join();
  for (std::size_t i = 0; i != all.size(); ++i) CHECK(all[i]->holds(static_cast<unsigned char>(i + 25)));
}

TEST_CASE("objects may be made while their thread ends", "[slab_allocated]") {
  using some = item<200, 8>;
  static items<some> all;
  struct late {
    ~late() { all = make<some>(50); }
  };
  std::thread([] {
    static thread_local const late last;  // begins first, ends last
    static_cast<void>(&last);
    make<some>(1);
  }).join();
  CHECK(all_hold(all));
  all.clear();
}

TEST_CASE("many objects are made and ended by several threads at once", "[slab_allocated]") {
  using some = item<64, 8>;
  std::vector<items<some>> of_each(4);
  std::vector<std::thread> threads;
  for (auto& mine : of_each) threads.emplace_back([&mine] { mine = make<some>(5000); });
  for (auto& each : threads) each.join();
  threads.clear();
  for (std::size_t t = 0; t != of_each.size(); ++t) {
    threads.emplace_back([&of_each, t] {
      for (std::size_t i = t; i < 5000; i += of_each.size()) {
        for (auto& others : of_each) others[i].reset();
      }
    });
  }
  for (auto& each : threads) each.join();
  for (const auto& mine : of_each) CHECK(std::ranges::none_of(mine, [](const auto& each) { return each != nullptr; }));
}
