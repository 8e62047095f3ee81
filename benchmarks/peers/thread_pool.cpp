// SPDX-License-Identifier: BSL-1.0
// thread_pool_bench [JOB...]: a pool of two threads around one mutex, one condition variable and a deque.
#include <condition_variable>
#include <deque>
#include <functional>
#include <future>
#include <memory>
#include <mutex>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

#include "peers/task_pool_jobs.hpp"

namespace {

class thread_pool {
 public:
  explicit thread_pool(int threads) {
    for (int i = 0; i != threads; ++i) threads_.emplace_back([this] { serve(); });
  }
  thread_pool(const thread_pool&) = delete;
  thread_pool& operator=(const thread_pool&) = delete;
  ~thread_pool() {
    {
      const std::lock_guard lock(mutex_);
      closed_ = true;
    }
    changed_.notify_all();
  }

  template <class F>
  auto submit(F fn) -> std::future<std::invoke_result_t<F>> {
    auto task = std::make_shared<std::packaged_task<std::invoke_result_t<F>()>>(std::move(fn));
    auto result = task->get_future();
    {
      const std::lock_guard lock(mutex_);
      queue_.emplace_back([task = std::move(task)] { (*task)(); });
    }
    changed_.notify_one();
    return result;
  }

 private:
  void serve() {
    for (;;) {
      std::function<void()> task;
      {
        std::unique_lock lock(mutex_);
        changed_.wait(lock, [&] { return closed_ || !queue_.empty(); });
        if (queue_.empty()) return;
        task = std::move(queue_.front());
        queue_.pop_front();
      }
      task();
    }
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::function<void()>> queue_;
  bool closed_ = false;
  std::vector<std::jthread> threads_;  // last: they end before the rest does
};

}  // namespace

int main(int argc, char** argv) {
  return bench::run_task_pool_jobs<thread_pool>("condvar-pool", {argv + 1, argv + argc});
}
