// SPDX-License-Identifier: BSL-1.0
//
// Searches files with std::regex, one task per file, and finishes although std::regex does not always: on a line of
// some 30,000 characters libstdc++'s overflows the stack and takes its process along, and a pattern such as (a|aa)+$ may
// take for ever. Here that costs one file.

#include <getopt.h>
#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <clocale>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <cwchar>
#include <exception>
#include <filesystem>
#include <iostream>
#include <map>
#include <memory>
#include <optional>
#include <ranges>
#include <regex>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include <procpool/procpool.hpp>

namespace {

namespace fs = std::filesystem;

constexpr std::string_view usage =
    R"(Usage: crashproof_grep [OPTION]... PATTERN PATH...
Search the files PATH, and all regular files below the directories PATH, for lines that match PATTERN, an ECMAScript
regular expression, and print them as 'grep -rnEI' does: in the same form and order, binary files left out. Each file
is a task of its own in a pool of processes: one that kills its process, or takes too long, is listed on standard
error at the end, all others are searched.

  --processes N   search with N processes; the default is as many as there are CPUs to use
  --timeout S     give up on a file that takes longer than S seconds
  --summary       say at the end, on standard error, what was done and how long it took (run it again with
                  --processes 1 for the speed-up):
                    crashproof_grep: F files searched, L lines found, W workers lost, S s with N processes
  --help          print this text and exit

Exit status: 0 if a line was found, 1 if none was, 2 if a file failed or something else went wrong.
)";

// ---- in the workers: one file -------------------------------------------------------------------------------------

/// What one file adds to the output.
struct found {
  std::string text{};
  std::size_t lines = 0;
};

[[noreturn]] void throw_errno(const char* call) { throw std::system_error(errno, std::generic_category(), call); }

using file_handle = std::unique_ptr<std::FILE, decltype([](std::FILE* file) { std::fclose(file); })>;

/// Calls `visit` on each line of a file, without its newline, up to the first block that holds a NUL byte: what follows
/// is binary, as grep has it.
template <class Visit>
void for_each_line(std::FILE* file, Visit visit) {
  constexpr std::size_t block = 96 * 1024;  // grep's, until it meets a longer line
  std::string text;                         // what has been read and not been visited
  for (std::size_t count = block; count == block;) {
    const std::size_t old = text.size();
    text.resize(old + block);
    count = std::fread(text.data() + old, 1, block, file);
    if (std::ferror(file)) throw_errno("read");
    text.resize(old + count);
    if (text.find('\0', old) != std::string::npos) return;

    std::size_t begin = 0;
    for (std::size_t end = old; (end = text.find('\n', end)) != std::string::npos; begin = ++end) {
      visit(std::string_view(text).substr(begin, end - begin));
    }
    text.erase(0, begin);
  }
  if (!text.empty()) visit(std::string_view(text));
}

/// Compiles a pattern, once in each worker.
const std::regex& compiled(const std::string& pattern) {
  static std::optional<std::pair<std::string, std::regex>> last;
  if (!last || last->first != pattern) last.emplace(pattern, std::regex(pattern));
  return last->second;
}

/// Whether a line is text in the locale's encoding: grep prints no other.
bool well_encoded(std::string_view line) {
  if (MB_CUR_MAX == 1) return true;
  for (std::mbstate_t state{}; !line.empty();) {
    const std::size_t length = std::mbrlen(line.data(), line.size(), &state);
    if (length > line.size()) return false;
    line.remove_prefix(length);
  }
  return true;
}

/// The task. An aggregate travels by its fields, also when it is what is called.
struct search {
  std::string pattern;
  bool with_path;

  found operator()(const std::string& path) const {
    const std::regex& regex = compiled(pattern);
    const file_handle file(std::fopen(path.c_str(), "rbe"));
    if (!file) throw_errno("open");
    struct stat in, out;
    if (::fstat(fileno(file.get()), &in) != 0 || ::fstat(STDOUT_FILENO, &out) != 0) throw_errno("fstat");
    if (S_ISREG(in.st_mode) && in.st_dev == out.st_dev && in.st_ino == out.st_ino) {
      throw std::runtime_error("input file is also the output");
    }
    const off_t hole = ::lseek(fileno(file.get()), 0, SEEK_HOLE);
    if (hole >= 0 && hole < in.st_size) return {};  // reads as NUL bytes: grep takes the whole file for binary
    std::rewind(file.get());

    found result;
    for_each_line(file.get(), [&, number = 0UL, match = std::cmatch{}](std::string_view line) mutable {
      ++number;
      if (!std::regex_search(line.data(), line.data() + line.size(), match, regex)) return;
      ++result.lines;
      if (!well_encoded(line)) return;
      if (with_path) result.text.append(path).append(":");
      result.text.append(std::to_string(number)).append(":").append(line).append("\n");
    });
    return result;
  }
};

// ---- in the parent: which files, and what became of them ----------------------------------------------------------

/// Standard error: messages, and a progress line if it is a terminal.
class console {
 public:
  void say(const auto&... parts) {
    clear();
    std::cout.flush();
    ((std::cerr << "crashproof_grep: ") << ... << parts) << '\n';
  }

  void complain(const auto&... parts) {
    say(parts...);
    troubled_ = true;
  }

  bool troubled() const { return troubled_; }

  /// Shows how far the search is, ten times a second at most.
  void progress(std::size_t done, std::size_t total, std::size_t failed) {
    const auto now = std::chrono::steady_clock::now();
    if (!terminal_ || now < due_) return;
    clear();
    std::cerr << done << " of " << total << " files searched, " << failed << " failed" << std::flush;
    shown_ = true;
    due_ = now + std::chrono::milliseconds(100);
  }

  void clear() {
    if (std::exchange(shown_, false)) std::cerr << "\r\033[K" << std::flush;
  }

 private:
  const bool terminal_ = ::isatty(STDERR_FILENO) == 1;
  std::chrono::steady_clock::time_point due_{};
  bool shown_ = false;
  bool troubled_ = false;
};

/// Orders a directory as grep does if it has more than 10,000 entries: by inode number, but not on tmpfs.
void sort_like_grep(const fs::path& directory, std::vector<fs::directory_entry>& entries) {
  struct statfs system{};
  if (entries.size() <= 10'000 || ::statfs(directory.c_str(), &system) != 0 || system.f_type == TMPFS_MAGIC) return;
  std::multimap<ino_t, fs::directory_entry> sorted;
  for (auto& entry : entries) {
    struct stat status{};
    ::lstat(entry.path().c_str(), &status);
    sorted.emplace(status.st_ino, std::move(entry));
  }
  std::ranges::move(sorted | std::views::values, entries.begin());
}

/// Adds the regular files below a directory, in the order in which `grep -r` visits them.
void add_files_below(const fs::path& directory, std::vector<std::string>& files, console& terminal) {
  std::vector<fs::directory_entry> entries;
  std::error_code error;
  for (fs::directory_iterator it(directory, error), end; it != end; it.increment(error)) entries.push_back(*it);
  if (error) terminal.complain(directory.native(), ": ", error.message());

  sort_like_grep(directory, entries);
  for (const auto& entry : entries) {
    if (entry.is_symlink(error)) continue;
    if (entry.is_directory(error)) add_files_below(entry.path(), files, terminal);
    if (entry.is_regular_file(error)) files.push_back(entry.path().native());
  }
}

struct options {
  std::optional<int> processes{};
  std::chrono::duration<double> timeout{};  ///< for each file; 0: any time
  bool summary = false;
  std::string pattern{};
  std::vector<std::string> paths{};
};

/// The number that an option's argument is.
template <class Number>
Number number_in(std::string_view text, const char* option) {
  Number number{};
  const auto [end, error] = std::from_chars(text.begin(), text.end(), number);
  if (error != std::errc{} || end != text.end()) throw std::invalid_argument(std::string(option) + " takes a number");
  return number;
}

/// Reads the command line; exits if that is all there is to do.
options parse(int argc, char** argv) {
  static const struct option known[] = {{"processes", required_argument, nullptr, 'p'},
                                        {"timeout", required_argument, nullptr, 't'},
                                        {"summary", no_argument, nullptr, 's'},
                                        {"help", no_argument, nullptr, 'h'},
                                        {}};
  options result;
  for (int key; (key = ::getopt_long(argc, argv, "", known, nullptr)) != -1;) {
    if (key == 'h') std::exit(std::cout << usage ? 0 : 2);
    if (key == '?') std::exit(2);  // getopt_long has said why
    if (key == 's') result.summary = true;
    if (key == 'p') result.processes = number_in<int>(optarg, "--processes");
    if (key == 't') {
      result.timeout = std::chrono::duration<double>(number_in<double>(optarg, "--timeout"));
      if (!(result.timeout.count() > 0 && result.timeout < std::chrono::hours(1'000'000))) {
        throw std::invalid_argument("--timeout takes a number of seconds above 0");
      }
    }
  }
  if (argc - optind < 2) throw std::invalid_argument("a PATTERN and a PATH are needed; see --help");
  result.pattern = argv[optind];
  result.paths.assign(argv + optind + 1, argv + argc);
  return result;
}

/// The whole job; returns the exit status.
int run(const options& wanted) {
  const auto start = std::chrono::steady_clock::now();
  console terminal;
  procpool::process_pool pool{procpool::pool_options{.processes = wanted.processes, .name = "grep"}};
  const procpool::call_options limits{.timeout = std::chrono::duration_cast<std::chrono::nanoseconds>(wanted.timeout),
                                      .buffersize = 1000};
  auto searching = pool.with(limits);
  searching.apply([](const std::string& pattern) { compiled(pattern); }, wanted.pattern);  // a bad pattern ends here

  std::vector<std::string> files;
  for (std::string path : wanted.paths) {
    while (path.ends_with("//")) path.pop_back();
    if (std::error_code error; fs::is_directory(path, error)) {
      add_files_below(path, files, terminal);
    } else {
      files.push_back(path);  // if it cannot be read, its task will say so
    }
  }
  const bool with_path = wanted.paths.size() > 1 || files.empty() || files.front() != wanted.paths.front();

  std::size_t done = 0, lines = 0;
  std::vector<std::string> failures;
  auto results = searching.imap(search{wanted.pattern, with_path}, files);
  for (const std::string& file : files) {
    try {
      const found result = results.next().value();
      lines += result.lines;
      if (!result.text.empty()) terminal.clear();
      std::cout << result.text;
    } catch (const procpool::error& error) {  // worker_crashed and task_timeout, above all
      failures.push_back(file + ": " + error.what());
    } catch (const std::system_error& error) {
      terminal.complain(file, ": ", error.code().message());
    } catch (const std::exception& error) {
      terminal.complain(file, ": ", error.what());
    }
    terminal.progress(++done, files.size(), failures.size());
  }

  if (!std::cout.flush()) terminal.complain("write error");
  for (const std::string& failure : failures) terminal.complain(failure);
  if (wanted.summary) {
    const std::chrono::duration<double> time = std::chrono::steady_clock::now() - start;
    terminal.say(files.size(), " files searched, ", lines, " lines found, ", pool.stats().workers_crashed,
                 " workers lost, ", time.count(), " s with ", pool.processes(), " processes");
  }
  return terminal.troubled() ? 2 : lines > 0 ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  std::setlocale(LC_CTYPE, "");
  try {
    return run(parse(argc, argv));
  } catch (const std::exception& error) {
    std::cerr << "crashproof_grep: " << error.what() << '\n';
    return 2;
  }
}
