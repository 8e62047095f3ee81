// SPDX-License-Identifier: BSL-1.0
// message_queue_bench [JOB...]: two processes that take tasks from one Boost.Interprocess message_queue and put results
// into another, as one would write a pool by hand.
#include <unistd.h>

#include <boost/interprocess/ipc/message_queue.hpp>
#include <boost/version.hpp>

#include <array>
#include <cstddef>
#include <string>
#include <utility>

#include "common/report.hpp"
#include "common/timing.hpp"
#include "common/work.hpp"
#include "floors/child.hpp"
#include "peers/arguments.hpp"

namespace {

using namespace bench;
using boost::interprocess::message_queue;

const std::string impl =
    "boost" + std::to_string(BOOST_VERSION / 100000) + "." + std::to_string(BOOST_VERSION / 100 % 1000) + "-mq-pool";

struct message {
  int number = 0;  // below 0: leave
  int value = 0;
};

constexpr int length = 1000;  // messages that fit into a queue

class pool {
 public:
  pool() {
    for (pid_t& worker : workers_) worker = fork_child([this] { serve(); });
  }
  pool(const pool&) = delete;
  pool& operator=(const pool&) = delete;
  ~pool() {
    for (std::size_t i = 0; i != workers_.size(); ++i) send({-1, 0});
    for (const pid_t worker : workers_) reap(worker);
  }

  void send(message task) { tasks_.queue.send(&task, sizeof task, 0); }
  message receive() { return receive_from(results_.queue); }
  bool try_receive(message& result) {
    std::size_t size = 0;
    unsigned priority = 0;
    return results_.queue.try_receive(&result, sizeof result, size, priority);
  }

 private:
  struct named_queue {
    explicit named_queue(std::string its_name)
        : name(std::move(its_name)), queue(boost::interprocess::create_only, name.c_str(), length, sizeof(message)) {}
    named_queue(const named_queue&) = delete;
    named_queue& operator=(const named_queue&) = delete;
    ~named_queue() { message_queue::remove(name.c_str()); }
    std::string name;
    message_queue queue;
  };

  static message receive_from(message_queue& queue) {
    message received;
    std::size_t size = 0;
    unsigned priority = 0;
    queue.receive(&received, sizeof received, size, priority);
    return received;
  }
  void serve() {
    for (message task; (task = receive_from(tasks_.queue)).number >= 0;) {
      task.value = increment(task.value);
      results_.queue.send(&task, sizeof task, 0);
    }
  }

  const std::string prefix_ = "message_queue_bench_" + std::to_string(::getpid());
  named_queue tasks_{prefix_ + "_tasks"};
  named_queue results_{prefix_ + "_results"};
  std::array<pid_t, 2> workers_{};
};

void time_calls(pool& all) {
  samples ns;
  for (int i = 0; i != scaled(4000, 20); ++i) {
    const stopwatch since;
    all.send({i, i});
    keep(all.receive());
    ns.add(since.ns());
  }
  emit_latency(impl, "J1", ns);
}

void time_tiny_tasks(pool& all) {
  const int tasks = scaled(200'000, 100);
  samples rates;
  for (int round = 0; round != 5; ++round) {
    const stopwatch since;
    int sent = 0;
    int back = 0;
    message result;
    while (back != tasks) {
      if (sent != tasks && sent - back != length) {
        all.send({sent, sent});
        ++sent;
        while (back != sent && all.try_receive(result)) ++back;
      } else {
        result = all.receive();
        ++back;
      }
    }
    rates.add(tasks / since.ms());
  }
  emit(impl, "J2", "rate", rates.median(), "ktask/s");
}

}  // namespace

int main(int argc, char** argv) {
  const asked_jobs asked(argv + 1, argv + argc);
  pool all;
  if (asked.has("J1")) time_calls(all);
  if (asked.has("J2")) time_tiny_tasks(all);
}
