// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <any>
#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <filesystem>
#include <functional>
#include <future>
#include <ios>
#include <memory>
#include <mutex>
#include <new>
#include <optional>
#include <regex>
#include <set>
#include <stdexcept>
#include <string>
#include <system_error>
#include <tuple>
#include <type_traits>
#include <typeinfo>
#include <utility>
#include <variant>
#include <version>
#if defined(__cpp_lib_format)
#include <format>
#endif

#include <procpool/detail/codec/encode.hpp>

namespace procpool::detail {

/// Whether `thrown` is the type that std::throw_with_nested throws for an E; GCC makes another of it for a const E.
template <class E>
bool is_nested_type_of(const std::type_info& thrown) {
  if constexpr (std::is_class_v<E> && !std::is_final_v<E> && !std::is_base_of_v<std::nested_exception, E>) {
#if defined(_LIBCPP_VERSION)
    return thrown == typeid(std::__nested<E>);
#else
    return thrown == typeid(std::_Nested_exception<E>) || thrown == typeid(std::_Nested_exception<const E>);
#endif
  } else {
    return false;
  }
}

/// What an exception to be rebuilt was nested on.
struct inner_exception {
  std::exception_ptr exception{};  ///< null: it was not nested

  /// The exception `outer`, nested as this says.
  template <class E>
  std::exception_ptr wrap(E outer) const {
    if (!exception) return std::make_exception_ptr(std::move(outer));
    try {
      std::rethrow_exception(exception);
    } catch (...) {
      try {
        std::throw_with_nested(std::move(outer));
      } catch (...) {
        return std::current_exception();
      }
    }
  }
};

/// The exceptions that the standard library itself defines and throws. Their index in `types` travels.
class standard_exceptions {
 public:
  static constexpr std::size_t none = static_cast<std::size_t>(-1);

  /// What is sent of an exception beside its text.
  struct parts {
    std::int32_t code = 0;
    std::uint32_t category = 0;
    std::string text{};  // of the std::runtime_error in it, where what() tells more
    std::string path1{};
    std::string path2{};
  };

  /// The index of a type, or of what std::throw_with_nested makes of it; `none` if it is not of the library.
  static std::size_t find(const std::type_info* type) noexcept {
    if (type == nullptr) return none;
    for (std::size_t i = 0; i < count; ++i) {
      if (*table()[i].type == *type || table()[i].wraps(*type)) return i;
    }
    return *type == stream_failure_type() ? stream_failure : none;
  }

  /// Appends the parts. Returns false if one of them cannot travel.
  static bool put(byte_writer& bytes, const std::exception_ptr& thrown) {
    parts found;
    if (!take_apart(thrown, found)) return false;
    bytes.put(found.code);
    bytes.put(found.category);
    encode<std::string>(bytes, found.text);
    encode<std::string>(bytes, found.path1);
    encode<std::string>(bytes, found.path2);
    return true;
  }

  static parts get(byte_reader& bytes, std::size_t index) {
    if (index >= count && index != stream_failure) {
      throw make_error<serialization_error>("decoding an exception: no such type", std::string("std::exception"));
    }
    parts found;
    found.code = bytes.get<std::int32_t>();
    found.category = bytes.get<std::uint32_t>();
    found.text = decode<std::string>(bytes);
    found.path1 = decode<std::string>(bytes);
    found.path2 = decode<std::string>(bytes);
    return found;
  }

  /// The exception again. Its text may differ where the library lets nobody choose it.
  static std::exception_ptr make(std::size_t index, const std::string& what, const parts& from,
                                 const inner_exception& inner) {
    if (index == stream_failure) return make_stream_failure(what, from);
    return table()[index].make(what, from, inner);
  }

 private:
  // clang-format off
  using types = std::tuple<
      std::exception, std::bad_alloc, std::bad_array_new_length, std::bad_cast, std::bad_any_cast, std::bad_typeid,
      std::bad_exception, std::bad_function_call, std::bad_weak_ptr, std::bad_optional_access, std::bad_variant_access,
      std::logic_error, std::invalid_argument, std::domain_error, std::length_error, std::out_of_range,
      std::runtime_error, std::range_error, std::overflow_error, std::underflow_error, std::future_error,
      std::regex_error, std::system_error, std::ios_base::failure, std::filesystem::filesystem_error
#if defined(__cpp_lib_format)
      , std::format_error
#endif
#if defined(__cpp_lib_chrono) && __cpp_lib_chrono >= 201907L
      , std::chrono::nonexistent_local_time, std::chrono::ambiguous_local_time
#endif
      >;
  // clang-format on
  static constexpr std::size_t count = std::tuple_size_v<types>;
  static constexpr std::size_t stream_failure = count;

  struct entry {
    const std::type_info* type;
    bool (*wraps)(const std::type_info&);
    std::exception_ptr (*make)(const std::string&, const parts&, const inner_exception&);
  };

  static const std::array<entry, count>& table() {
    static const std::array<entry, count> entries = []<class... E>(std::type_identity<std::tuple<E...>>) {
      return std::array<entry, count>{entry{&typeid(E), &is_nested_type_of<E>, &make_one<E>}...};
    }(std::type_identity<types>());
    return entries;
  }

  // ---- categories: by the number of their place here ----
  static const std::error_category* category(std::uint32_t number) {
    const std::array<const std::error_category*, 4> known{&std::generic_category(), &std::system_category(),
                                                          &std::iostream_category(), &std::future_category()};
    return number < known.size() ? known[number] : nullptr;
  }
  static bool find_category(const std::error_category& wanted, std::uint32_t& number) {
    for (number = 0; category(number) != nullptr; ++number) {
      if (*category(number) == wanted) return true;
    }
    return false;
  }
  static std::error_code code_of(const parts& from) {
    const std::error_category* const known = category(from.category);
    if (known == nullptr) {
      throw make_error<serialization_error>("decoding an exception: no such error category",
                                            std::string("std::system_error"));
    }
    return {from.code, *known};
  }

  /// Other numbers are no values of the enumeration: it has no underlying type of its own.
  static std::regex_constants::error_type regex_code_of(const parts& from) {
    constexpr std::int32_t largest = 15;
    if (from.code < 0 || from.code > largest) {
      throw make_error<serialization_error>("decoding an exception: no such error", std::string("std::regex_error"));
    }
    return static_cast<std::regex_constants::error_type>(from.code);
  }

  static bool take_apart(const std::exception_ptr& thrown, parts& found) {
    try {
      std::rethrow_exception(thrown);
    } catch (const std::filesystem::filesystem_error& error) {
      found.text = error.std::runtime_error::what();
      found.path1 = error.path1().native();
      found.path2 = error.path2().native();
      found.code = error.code().value();
      return find_category(error.code().category(), found.category);
    } catch (const std::system_error& error) {
      found.code = error.code().value();
      return find_category(error.code().category(), found.category);
    } catch (const std::regex_error& error) {
      found.code = static_cast<std::int32_t>(error.code());
    } catch (const std::future_error& error) {
      found.code = error.code().value();
      return find_category(error.code().category(), found.category);
    } catch (...) {
    }
    return true;
  }

  // ---- making them again ----
  /// Gives the std::runtime_error in `made` the text: classes derived from it decorate what they are constructed with.
  template <class E>
  static E with_text(E made, const std::string& what) {
    static_cast<std::runtime_error&>(made) = std::runtime_error(what);
    return made;
  }

  template <class E>
  static std::exception_ptr make_one(const std::string& what, const parts& from, const inner_exception& inner) {
    if constexpr (std::is_same_v<E, std::filesystem::filesystem_error>) {
      return inner.wrap(make_filesystem_error(what, from));
    } else if constexpr (std::is_same_v<E, std::system_error>) {
      return inner.wrap(with_text(E(code_of(from)), what));
    } else if constexpr (std::is_same_v<E, std::ios_base::failure>) {
      return inner.wrap(with_text(E("", code_of(from)), what));
    } else if constexpr (std::is_same_v<E, std::regex_error>) {
      return inner.wrap(with_text(E(regex_code_of(from)), what));
    } else if constexpr (std::is_same_v<E, std::future_error>) {
      return inner.wrap(E(static_cast<std::future_errc>(from.code)));
    } else if constexpr (std::is_same_v<E, std::bad_variant_access>) {
      return inner.wrap(make_bad_variant_access(what));
#if defined(__cpp_lib_chrono) && __cpp_lib_chrono >= 201907L
    } else if constexpr (std::is_same_v<E, std::chrono::nonexistent_local_time> ||
                         std::is_same_v<E, std::chrono::ambiguous_local_time>) {
      return inner.wrap(with_text(E(std::chrono::local_seconds(), std::chrono::local_info()), what));
#endif
    } else if constexpr (std::is_constructible_v<E, const std::string&>) {
      return inner.wrap(E(what));
    } else {
      return inner.wrap(E());
    }
  }

  // It writes its text itself, from how many paths it was given: the one that comes out right is taken.
  static std::filesystem::filesystem_error make_filesystem_error(const std::string& what, const parts& from) {
    using error = std::filesystem::filesystem_error;
    const std::error_code code = code_of(from);
    std::string argument = from.text;
    const std::string suffix = ": " + code.message();
    if (argument.ends_with(suffix)) argument.resize(argument.size() - suffix.size());
    if (from.path2.empty()) {
      if (from.path1.empty()) {
        error plain(argument, code);
        if (plain.what() == what) return plain;
      }
      error one(argument, from.path1, code);
      if (one.what() == what) return one;
    }
    return error(argument, from.path1, from.path2, code);
  }

  static std::bad_variant_access make_bad_variant_access(const std::string& what) {
#if defined(__GLIBCXX__)
    // Its text is a literal of the library's, of which there are a few.
    try {
      std::__throw_bad_variant_access(literal(what));
    } catch (const std::bad_variant_access& made) {
      return made;
    }
#else
    static_cast<void>(what);
#endif
    return {};
  }

  static const char* literal(const std::string& text) {
    constexpr std::size_t max_literals = 64;
    constexpr std::size_t longest_literal = 256;  // the bytes may be anybody's, and are kept for ever
    if (text.size() > longest_literal) return "bad variant access";
    static std::mutex mutex;
    static std::set<std::string>* const known = new std::set<std::string>;  // never destroyed: exceptions refer to it
    const std::lock_guard lock(mutex);
    if (known->size() >= max_literals && !known->contains(text)) return "bad variant access";
    return known->insert(text).first->c_str();
  }

  // What streams throw is of a type that the library hides: it derives from std::ios_base::failure. A stream makes one.
  static std::exception_ptr stream_failure_of_the_library() {
    try {
      std::ios stream(nullptr);
      stream.exceptions(std::ios::badbit);
    } catch (...) {
      return std::current_exception();
    }
    return nullptr;
  }

  static const std::type_info& stream_failure_type() {
    static const std::type_info& type = []() -> const std::type_info& {
      try {
        std::rethrow_exception(stream_failure_of_the_library());
      } catch (const std::exception& made) {
        return typeid(made);
      }
    }();
    return type;
  }

  static std::exception_ptr make_stream_failure(const std::string& what, const parts& from) {
    try {
      std::rethrow_exception(stream_failure_of_the_library());
    } catch (std::ios_base::failure& made) {
      static_cast<std::system_error&>(made) = with_text(std::system_error(code_of(from)), what);
      return std::current_exception();
    }
  }
};

}  // namespace procpool::detail
