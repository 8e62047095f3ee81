// SPDX-License-Identifier: BSL-1.0
//
// What happens next: then() runs a function on the result, or on the error, in the program's own process, and gives a
// future of what that returns; as_completed() yields futures as they finish.

#include <exception>
#include <iostream>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <procpool/procpool.hpp>

int half(int x) {
  if (x % 2 != 0) throw std::invalid_argument(std::to_string(x) + " is odd");
  return x / 2;
}

std::string explain(std::exception_ptr error) {
  try {
    std::rethrow_exception(error);
  } catch (const std::exception& reason) {
    return std::string("no half: ") + reason.what();
  }
}

int main() {
  procpool::process_pool pool{2};
  const auto describe = [](int value) { return "half: " + std::to_string(value); };

  procpool::future<std::string> even = pool.apply_async(half, 10).then(describe, explain);
  procpool::future<std::string> odd = pool.apply_async(half, 11).then(describe, explain);
  std::cout << even.get() << '\n' << odd.get() << '\n';

  std::vector<procpool::future<int>> futures;
  for (const int x : {20, 40, 60}) futures.push_back(pool.apply_async(half, x));
  for (procpool::future<int>& next : procpool::as_completed(std::move(futures))) {
    std::cout << "finished: " << next.get() << '\n';
  }
}
