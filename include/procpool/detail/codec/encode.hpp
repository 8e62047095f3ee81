// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <cxxabi.h>

#include <exception>
#include <new>
#include <string>
#include <type_traits>

#include <procpool/detail/codec/bytes.hpp>
#include <procpool/detail/codec/std_types.hpp>

namespace procpool::detail {

/// The text of an error of ours without the leading "procpool: ".
inline std::string bare_text(const std::exception& error) {
  const std::string text = error.what();
  return text.starts_with("procpool: ") ? text.substr(10) : text;
}

enum class direction { encoding, decoding };

/// Throws the serialization_error for what encoding or decoding a T threw; passes on what is not about T. To be called
/// in a catch block.
template <class T>
[[noreturn]] void rethrow_as_unserializable(direction doing) {
  const auto text = [doing](const std::string& why) {
    return (doing == direction::encoding ? "encoding " : "decoding ") + type_name<T>() + ": " + why;
  };
  try {
    throw;
  } catch (const serialization_error& error) {
    if (error.type_name() != "bytes") throw;  // it names a part of T
    throw make_error<serialization_error>(text(bare_text(error)), type_name<T>());
  } catch (const out_of_shared_memory&) {
    throw;
  } catch (const std::bad_alloc& error) {
    if (doing == direction::encoding) throw;
    throw make_error<serialization_error>(text(error.what()), type_name<T>());
  } catch (const std::exception& error) {
    throw make_error<serialization_error>(text(error.what()), type_name<T>());
  } catch (abi::__forced_unwind&) {
    throw;
  } catch (...) {
    throw make_error<serialization_error>(text("an exception that is no std::exception"), type_name<T>());
  }
}

/// Appends the bytes of a value. Throws serialization_error, what the writer throws, and std::bad_alloc.
template <class T>
void encode(byte_writer& bytes, const T& value) {
  if constexpr (check_transferable<T>()) {
    if constexpr (route_of<T> == route::by_bytes) {
      plain_output out(bytes);
      put_value<T>(out, value);
    } else {
      try {
        std::conditional_t<decodes_in_place<T>, plain_output, output_archive> out(bytes);
        put_value<T>(out, value);
      } catch (...) {
        rethrow_as_unserializable<T>(direction::encoding);
      }
    }
  }
}

/// Reads a value back. Throws serialization_error; the reader may then stand anywhere.
template <class T>
T decode(byte_reader& bytes) {
  static_assert(std::is_same_v<T, std::remove_cvref_t<T>>);
  if constexpr (check_transferable<T>()) {
    try {
      std::conditional_t<decodes_in_place<T>, plain_input, input_archive> in(bytes);
      return get_value<T>(in);
    } catch (...) {
      rethrow_as_unserializable<T>(direction::decoding);
    }
  }
}

}  // namespace procpool::detail
