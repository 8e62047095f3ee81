// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <exception>
#include <memory>
#include <new>
#include <string>
#include <type_traits>
#include <utility>

#include <procpool/detail/codec/bytes.hpp>
#include <procpool/detail/codec/encode.hpp>
#include <procpool/detail/codec/exception_codec.hpp>
#include <procpool/detail/codec/value.hpp>
#include <procpool/detail/job.hpp>
#include <procpool/error.hpp>
#include <procpool/outcome.hpp>

namespace procpool::detail {

/// A private copy of what a reader has left, for decoders that look at a byte twice.
class private_copy {
 public:
  explicit private_copy(byte_reader& of) : size_(of.remaining()), attachments_(of.attachments()) {
    const std::byte* from = of.take(size_);
    // Padding goes by the address: the copy keeps it, to the multiple of payload_alignment.
    const std::size_t shift = reinterpret_cast<std::uintptr_t>(from) % payload_alignment;
    bytes_.reset(static_cast<std::byte*>(::operator new(shift + size_ + 1, std::align_val_t{payload_alignment})));
    begin_ = bytes_.get() + shift;
    if (size_ != 0) std::memcpy(begin_, from, size_);
    std::atomic_signal_fence(std::memory_order_seq_cst);  // the copy is what gets read, not the bytes again
  }

  byte_reader reader() const noexcept { return byte_reader(begin_, size_, attachments_); }

 private:
  struct aligned_delete {
    void operator()(std::byte* bytes) const noexcept { ::operator delete(bytes, std::align_val_t{payload_alignment}); }
  };

  std::size_t size_;
  attachment_source* attachments_;
  std::unique_ptr<std::byte, aligned_delete> bytes_;
  std::byte* begin_ = nullptr;
};

/// As decode<R>; its errors name the task.
template <class R>
R decode_result(const job& of, std::size_t element, byte_reader& bytes) {
  try {
    return decode<R>(bytes);
  } catch (const serialization_error& e) {
    throw make_error<serialization_error>(of.place(element) + ": the result: " + bare_text(e), e.type_name());
  }
}

template <class R>
outcome<R> read_value(const job& of, std::size_t element, reply& how) {
  if constexpr (std::is_void_v<R>) {
    return {};
  } else {
    if (how.stable || decodes_in_place<R>)
      return outcome<R>(boost::system::in_place_value, decode_result<R>(of, element, *how.bytes));
    const private_copy copy(*how.bytes);
    byte_reader bytes = copy.reader();
    return outcome<R>(boost::system::in_place_value, decode_result<R>(of, element, bytes));
  }
}

/// The error that a reply of any kind but `value` stands for.
inline std::exception_ptr read_failure(const job& of, std::size_t element, reply& how) {
  switch (how.kind) {
    case reply_kind::exception:
    case reply_kind::unserializable: {
      const private_copy copy(*how.bytes);
      byte_reader bytes = copy.reader();
      if (how.kind == reply_kind::exception) return decode_exception(bytes);
      return std::make_exception_ptr(decode_failure(bytes, of.place(element)));
    }
    case reply_kind::skipped:
      return std::make_exception_ptr(
          make_error<task_cancelled>(of.place(element) + ": not run, as a task before it had failed"));
    case reply_kind::out_of_memory:
      return std::make_exception_ptr(make_error<out_of_shared_memory>(
          of.place(element) + ": the result does not fit in the memory shared with the worker"));
    case reply_kind::value:
    case reply_kind::series:
      break;
  }
  return std::make_exception_ptr(
      make_error<serialization_error>(of.place(element) + ": the worker's reply is malformed", std::string("reply")));
}

/// What a reply stands for: the value, decoded, or the error that the element ends in.
template <class R>
outcome<R> read_reply(const job& of, std::size_t element, reply& how) noexcept {
  try {
    if (how.is_value()) return read_value<R>(of, element, how);
    return outcome<R>(boost::system::in_place_error, how.error ? how.error : read_failure(of, element, how));
  } catch (...) {
    return outcome<R>(boost::system::in_place_error, std::current_exception());
  }
}

}  // namespace procpool::detail
