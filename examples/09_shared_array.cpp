// SPDX-License-Identifier: BSL-1.0
//
// Large data without a copy: a shared_array lies in memory that all processes see, so that tasks fill it and read it in
// place. transform_reduce combines the partial results inside the workers.

#include <cstddef>
#include <cstdint>
#include <functional>
#include <iostream>
#include <numeric>
#include <ranges>

#include <procpool/procpool.hpp>

constexpr std::size_t array_size = 8'000'000;
constexpr std::size_t blocks = 16;
constexpr std::size_t block_size = array_size / blocks;

struct fill_squares {
  procpool::shared_array<std::uint64_t> values;

  void operator()(std::size_t i) const {
    for (std::size_t k = i * block_size; k < (i + 1) * block_size; ++k) values[k] = k * k;
  }
};

struct sum_of_block {
  procpool::shared_array<std::uint64_t> values;

  std::uint64_t operator()(std::size_t i) const {
    const std::uint64_t* first = values.data() + i * block_size;
    return std::accumulate(first, first + block_size, std::uint64_t{0});
  }
};

int main() {
  procpool::process_pool pool{4};
  const auto squares = pool.make_shared_array<std::uint64_t>(array_size);  // 64 MB, sent as a handle

  const auto all_blocks = std::views::iota(std::size_t{0}, blocks);
  pool.map(fill_squares{squares}, all_blocks);
  std::cout << "7 * 7 = " << squares[7] << '\n';

  const auto sum = pool.transform_reduce(all_blocks, std::uint64_t{0}, std::plus<>{}, sum_of_block{squares});
  std::cout << "sum modulo 2^64: " << sum << '\n';
}
