// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <dlfcn.h>
#include <elf.h>
#include <link.h>

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <exception>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include <boost/interprocess/file_mapping.hpp>
#include <boost/interprocess/mapped_region.hpp>

#include <procpool/detail/codec/demangle.hpp>

namespace procpool::detail {

/// The functions of one program or library, from the symbol table of its file, which names those too that it does not
/// export (elf(5)). A file that is not what it should be has none.
class symbol_file {
 public:
  explicit symbol_file(const std::string& path) noexcept {
    try {
      const boost::interprocess::file_mapping file(path.c_str(), boost::interprocess::read_only);
      image_ = boost::interprocess::mapped_region(file, boost::interprocess::read_only);
      read();
    } catch (const std::exception&) {
      symbols_ = {};
    }
  }

  struct found {
    const char* name;
    std::size_t offset;  ///< from the function's start
  };

  /// `where`: an address in memory; `base`: where the file's beginning is mapped.
  std::optional<found> find(std::uintptr_t where, std::uintptr_t base) const noexcept {
    const std::uintptr_t address = where - base + first_address_;
    for (const ElfW(Sym) & each : symbols_) {
      if ((each.st_info & 0xf) != STT_FUNC || address < each.st_value || address - each.st_value >= each.st_size)
        continue;
      if (each.st_name >= names_.size()) continue;
      return found{names_.data() + each.st_name, address - each.st_value};
    }
    return std::nullopt;
  }

 private:
  /// A part of the file as an array; empty if it is not all there.
  template <class T>
  std::span<const T> part(std::size_t offset, std::size_t bytes) const noexcept {
    if (offset > image_.get_size() || bytes > image_.get_size() - offset || offset % alignof(T) != 0) return {};
    const auto* begin = static_cast<const std::byte*>(image_.get_address()) + offset;
    return {reinterpret_cast<const T*>(begin), bytes / sizeof(T)};
  }

  void read() noexcept {
    const auto header = part<ElfW(Ehdr)>(0, sizeof(ElfW(Ehdr)));
    if (header.empty() || std::memcmp(header[0].e_ident, ELFMAG, SELFMAG) != 0) return;
    const auto segments = part<ElfW(Phdr)>(header[0].e_phoff, header[0].e_phnum * sizeof(ElfW(Phdr)));
    for (const auto& each : segments) {
      if (each.p_type != PT_LOAD) continue;
      first_address_ = each.p_vaddr - each.p_offset;
      break;
    }
    const auto sections = part<ElfW(Shdr)>(header[0].e_shoff, header[0].e_shnum * sizeof(ElfW(Shdr)));
    for (const auto& each : sections) {
      if (each.sh_type != SHT_SYMTAB || each.sh_link >= sections.size()) continue;
      symbols_ = part<ElfW(Sym)>(each.sh_offset, each.sh_size);
      const auto& strings = sections[each.sh_link];
      names_ = part<char>(strings.sh_offset, strings.sh_size);
      if (names_.empty() || names_.back() != '\0') symbols_ = {};
    }
  }

  boost::interprocess::mapped_region image_;
  std::uintptr_t first_address_ = 0;  ///< what the file's beginning would have as its address
  std::span<const ElfW(Sym)> symbols_;
  std::span<const char> names_;
};

/// What is at each of the addresses: "parse(int)+0x1d (program)", or "0x55d0 (program)" where no name is known.
/// `frames`: the first is where the program was, the others are return addresses.
inline std::vector<std::string> describe_frames(std::span<void* const> frames) {
  std::map<std::string, std::unique_ptr<symbol_file>> files;
  std::vector<std::string> all;
  for (std::size_t i = 0; i != frames.size(); ++i) {
    // A call may be the last thing in its function: the return address is then the next function's.
    const std::uintptr_t where = reinterpret_cast<std::uintptr_t>(frames[i]) - (i == 0 ? 0 : 1);
    char offset[32];
    Dl_info place{};
    link_map* object = nullptr;
    if (::dladdr1(reinterpret_cast<void*>(where), &place, reinterpret_cast<void**>(&object), RTLD_DL_LINKMAP) == 0 ||
        place.dli_fname == nullptr || object == nullptr) {
      std::snprintf(offset, sizeof(offset), "%p", frames[i]);
      all.emplace_back(offset);
      continue;
    }
    const auto base = reinterpret_cast<std::uintptr_t>(place.dli_fbase);
    // The program itself has no name there; how it was called may be relative to a directory that is no longer current.
    const std::string path = object->l_name[0] == '\0' ? "/proc/self/exe" : place.dli_fname;
    auto& file = files[path];
    if (!file) file = std::make_unique<symbol_file>(path);
    std::string text;
    std::uintptr_t from = base;
    if (const auto symbol = file->find(where, base)) {
      text = demangle(symbol->name);
      from = where - symbol->offset;
    } else if (place.dli_sname != nullptr) {
      text = demangle(place.dli_sname);
      from = reinterpret_cast<std::uintptr_t>(place.dli_saddr);
    }
    std::snprintf(offset, sizeof(offset), "%s0x%zx", text.empty() ? "" : "+",
                  static_cast<std::size_t>(reinterpret_cast<std::uintptr_t>(frames[i]) - from));
    const char* slash = std::strrchr(place.dli_fname, '/');
    all.push_back(text + offset + " (" + (slash == nullptr ? place.dli_fname : slash + 1) + ")");
  }
  return all;
}

}  // namespace procpool::detail
