// SPDX-License-Identifier: BSL-1.0
//
// Own types as arguments and results: an aggregate needs nothing; a class with private members has a `serialize`
// member, as the cereal library wants it, and a default constructor.

#include <iostream>
#include <map>
#include <sstream>
#include <string>
#include <vector>

#include <procpool/procpool.hpp>

struct document {  // an aggregate
  std::string title;
  std::vector<std::string> lines;
};

class word_count {
 public:
  void add(const std::string& word) { ++counts_[word]; }
  void add(const word_count& other) {
    for (const auto& [word, count] : other.counts_) counts_[word] += count;
  }
  const std::map<std::string, int>& counts() const { return counts_; }

  template <class Archive>
  void serialize(Archive& archive) {
    archive(counts_);
  }

 private:
  std::map<std::string, int> counts_;
};

word_count count_words(const document& text) {
  word_count result;
  for (const std::string& line : text.lines) {
    std::istringstream words(line);
    for (std::string word; words >> word;) result.add(word);
  }
  return result;
}

int main() {
  const std::vector<document> documents = {
      {.title = "first", .lines = {"one fish two fish", "red fish"}},
      {.title = "second", .lines = {"one red house", "two"}},
  };
  procpool::process_pool pool{2};

  word_count total;
  for (const word_count& one : pool.map(count_words, documents)) total.add(one);
  for (const auto& [word, count] : total.counts()) std::cout << word << ": " << count << '\n';
}
