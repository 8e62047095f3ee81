// SPDX-License-Identifier: BSL-1.0
// How a benchmark is told how much to do, and how it tells what it found: one line of JSON for each result.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <numeric>
#include <string>
#include <vector>

namespace bench {

/// The environment's BENCH_SCALE, by which counts of repetitions are multiplied.
inline double scale() {
  static const double value = [] {
    const char* text = std::getenv("BENCH_SCALE");
    const double given = text != nullptr ? std::atof(text) : 1.0;
    return std::isfinite(given) && given > 0 ? given : 1.0;
  }();
  return value;
}

/// Whether BENCH_FULL is 1: the largest sizes too.
inline bool full() {
  const char* text = std::getenv("BENCH_FULL");
  return text != nullptr && text[0] == '1';
}

/// `count` times the scale, but at least `least`.
template <class Count>
Count scaled(Count count, Count least = 1) {
  return std::max(least, static_cast<Count>(static_cast<double>(count) * scale()));
}

/// Measured values of one kind.
class samples {
 public:
  void add(double value) { values_.push_back(value); }
  bool empty() const { return values_.empty(); }
  double mean() const {
    return std::accumulate(values_.begin(), values_.end(), 0.0) / static_cast<double>(values_.size());
  }
  double median() const { return quantile(0.5); }
  double quantile(double q) const {
    if (values_.empty()) return std::nan("");
    std::vector<double> sorted = values_;
    const auto at = static_cast<std::ptrdiff_t>(q * static_cast<double>(sorted.size() - 1) + 0.5);
    std::nth_element(sorted.begin(), sorted.begin() + at, sorted.end());
    return sorted[static_cast<std::size_t>(at)];
  }

 private:
  std::vector<double> values_;
};

inline void emit(const std::string& impl, const std::string& job, const std::string& metric, double value,
                 const std::string& unit) {
  if (!std::isfinite(value)) return;  // not JSON
  std::printf("{\"impl\":\"%s\",\"job\":\"%s\",\"metric\":\"%s\",\"value\":%.6g,\"unit\":\"%s\"}\n", impl.c_str(),
              job.c_str(), metric.c_str(), value, unit.c_str());
  std::fflush(stdout);
}

/// p50, p99 and mean of times in nanoseconds, as microseconds.
inline void emit_latency(const std::string& impl, const std::string& job, const samples& ns) {
  if (ns.empty()) return;
  emit(impl, job, "p50", ns.median() / 1e3, "us");
  emit(impl, job, "p99", ns.quantile(0.99) / 1e3, "us");
  emit(impl, job, "mean", ns.mean() / 1e3, "us");
}

}  // namespace bench
