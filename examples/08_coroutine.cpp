// SPDX-License-Identifier: BSL-1.0
//
// co_await a future: the coroutine goes on in the pool's callback thread once the result is there. Any coroutine type
// will do; the one here is about the smallest.

#include <coroutine>
#include <csignal>
#include <exception>
#include <future>
#include <iostream>
#include <utility>

#include <procpool/procpool.hpp>

/// A coroutine that starts at once and whose result another thread can wait for.
template <class T>
class async {
 public:
  struct promise_type {
    std::promise<T> result{};

    async get_return_object() { return async(result.get_future()); }
    std::suspend_never initial_suspend() noexcept { return {}; }
    std::suspend_never final_suspend() noexcept { return {}; }
    void return_value(T value) { result.set_value(std::move(value)); }
    void unhandled_exception() { result.set_exception(std::current_exception()); }
  };

  T get() { return result_.get(); }

 private:
  explicit async(std::future<T> result) : result_(std::move(result)) {}

  std::future<T> result_;
};

int square(int x) { return x * x; }
int crash(int) { return std::raise(SIGKILL); }

async<int> sum_of_squares(procpool::process_pool<>& pool, int x, int y) {
  auto first = pool.apply_async(square, x);  // both run now
  auto second = pool.apply_async(square, y);
  const int left = co_await std::move(first);
  const int right = co_await std::move(second);
  co_return left + right;
}

async<int> square_or_zero(procpool::process_pool<>& pool, int x) {
  try {
    co_return co_await pool.apply_async(crash, x);
  } catch (const procpool::worker_crashed&) {  // errors come out of co_await
  }
  co_return 0;
}

int main() {
  procpool::process_pool pool{2};
  std::cout << sum_of_squares(pool, 3, 4).get() << '\n';
  std::cout << square_or_zero(pool, 3).get() << '\n';
}
