// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <cxxabi.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <exception>
#include <memory>
#include <new>
#include <string>
#include <type_traits>
#include <typeinfo>
#include <utility>

#include <procpool/detail/codec/encode.hpp>
#include <procpool/detail/codec/std_exceptions.hpp>

namespace procpool::detail {

// ---- registered types ----------------------------------------------------------------------------------------------

/// One type of register_exception(). The list only grows at its head, so a fork at any moment leaves it whole, and it
/// is read without a lock.
struct registered_exception {
  const std::type_info* type;
  bool (*wraps)(const std::type_info&);  // of what std::throw_with_nested throws
  void (*put)(byte_writer&, const std::exception_ptr&);
  std::exception_ptr (*get)(byte_reader&, const inner_exception&);
  registered_exception* next = nullptr;

  static std::atomic<registered_exception*>& first() noexcept {
    static constinit std::atomic<registered_exception*> head{nullptr};
    return head;
  }

  template <class Predicate>
  static const registered_exception* find(Predicate matches) noexcept {
    const registered_exception* at = first().load(std::memory_order_acquire);
    while (at != nullptr && !matches(*at)) at = at->next;
    return at;
  }
};

template <class E>
struct exception_registration {
  static void put(byte_writer& bytes, const std::exception_ptr& thrown) {
    try {
      std::rethrow_exception(thrown);
    } catch (const E& caught) {
      encode<E>(bytes, caught);
    }
  }
  static std::exception_ptr get(byte_reader& bytes, const inner_exception& inner) {
    return inner.wrap(decode<E>(bytes));
  }

  static void enter() {
    static registered_exception entry{&typeid(E), &is_nested_type_of<E>, &put, &get};
    static const bool entered = [] {
      entry.next = registered_exception::first().load(std::memory_order_relaxed);
      while (!registered_exception::first().compare_exchange_weak(entry.next, &entry, std::memory_order_release,
                                                                  std::memory_order_relaxed)) {
      }
      return true;
    }();
    static_cast<void>(entered);
  }
};

// ---- the bytes of an exception -------------------------------------------------------------------------------------

// A level: its form, whether another level follows that it is nested on, the C++ name, what(), and what the form adds.
// Then the next level.
enum class exception_form : std::uint8_t { standard = 1, registered = 2, remote = 3, failure = 4 };
enum class exception_nesting : std::uint8_t { none = 0, followed = 1 };

/// Levels of std::throw_with_nested that are kept; what is deeper is dropped.
inline constexpr int max_exception_levels = 64;

inline void put_text(byte_writer& bytes, const std::string& text) { encode<std::string>(bytes, text); }

/// What is known of an exception without knowing its type.
struct exception_facts {
  const std::type_info* type = nullptr;
  std::string name;
  std::string what;
  std::exception_ptr nested;

  explicit exception_facts(const std::exception_ptr& thrown) {
    try {
      std::rethrow_exception(thrown);
    } catch (abi::__forced_unwind&) {
      throw;
    } catch (...) {
      type = abi::__cxa_current_exception_type();
    }
    name = type == nullptr ? "an exception of another language" : demangle(type->name());
    try {
      std::rethrow_exception(thrown);
    } catch (const std::exception& caught) {
      const char* text = caught.what();
      what = text == nullptr ? "" : text;
    } catch (...) {
      what = "an exception of type " + name;
    }
    try {
      std::rethrow_exception(thrown);
    } catch (const std::nested_exception& caught) {
      nested = caught.nested_ptr();
    } catch (...) {
    }
  }
};

inline void encode_exception_level(byte_writer& bytes, const std::exception_ptr& thrown, int level) {
  const exception_facts facts(thrown);
  const bool followed = facts.nested && level + 1 < max_exception_levels;
  const auto begin = [&](exception_form form) {
    bytes.put(form);
    bytes.put(followed ? exception_nesting::followed : exception_nesting::none);
    put_text(bytes, facts.name);
    put_text(bytes, facts.what);
  };

  const std::size_t size = bytes.size();
  const std::size_t attachments = bytes.attachments().size();
  bool done = false;
  const registered_exception* const known = registered_exception::find([&](const registered_exception& each) {
    return facts.type != nullptr && (*each.type == *facts.type || each.wraps(*facts.type));
  });
  if (known != nullptr) {
    try {
      begin(exception_form::registered);
      put_text(bytes, known->type->name());
      // In bytes of its own, so that the other side can copy them before the user's code reads them.
      heap_writer own;
      known->put(own, thrown);
      bytes.put(static_cast<std::uint64_t>(own.size()));
      bytes.write(own.data(), own.size());
      for (const auto& block : own.attachments()) bytes.attach(block);
    } catch (const serialization_error& error) {
      bytes.truncate(size, attachments);
      begin(exception_form::failure);
      put_text(bytes, bare_text(error));
    }
    done = true;
  } else if (const std::size_t index = standard_exceptions::find(facts.type); index != standard_exceptions::none) {
    begin(exception_form::standard);
    bytes.put(static_cast<std::uint32_t>(index));
    done = standard_exceptions::put(bytes, thrown);
    if (!done) bytes.truncate(size, attachments);  // holds what cannot travel: an error_category of the user's
  }
  if (!done) begin(exception_form::remote);
  if (followed) encode_exception_level(bytes, facts.nested, level + 1);
}

inline std::exception_ptr decode_exception_level(byte_reader& bytes, int level);

inline std::exception_ptr rebuild_exception(byte_reader& bytes, exception_form form, const std::string& name,
                                            const std::string& what, exception_nesting nested, int level) {
  // Nested on nothing, an exception is made as if it were not nested: std::rethrow_if_nested() would end the process.
  const auto inner = [&]() -> inner_exception {
    if (nested == exception_nesting::followed) return {decode_exception_level(bytes, level + 1)};
    return {};
  };
  const auto failed = [&](const std::string& why) {
    return make_error<serialization_error>("an exception of type " + name + " cannot travel (" + why + "): " + what,
                                           name);
  };
  switch (form) {
    case exception_form::standard: {
      const auto index = bytes.get<std::uint32_t>();
      const standard_exceptions::parts parts = standard_exceptions::get(bytes, index);
      const inner_exception cause = inner();
      std::exception_ptr made = standard_exceptions::make(index, what, parts, cause);
      if (exception_facts(made).what != what) return cause.wrap(failed("it cannot be made with the same text"));
      return made;
    }
    case exception_form::registered: {
      const std::string type = decode<std::string>(bytes);
      const auto size = bytes.get<std::uint64_t>();
      if (size > bytes.remaining()) throw failed("its bytes are cut short");
      heap_writer own;
      own.write(bytes.take(static_cast<std::size_t>(size)), static_cast<std::size_t>(size));
      const registered_exception* const known =
          registered_exception::find([&](const registered_exception& each) { return each.type->name() == type; });
      const inner_exception cause = inner();
      if (known == nullptr) return cause.wrap(failed("it is not registered here"));
      try {
        byte_reader reader(own.data(), own.size(), bytes.attachments());
        return known->get(reader, cause);
      } catch (const serialization_error& error) {
        return cause.wrap(failed(bare_text(error)));
      }
    }
    case exception_form::failure: {
      const std::string why = decode<std::string>(bytes);
      return inner().wrap(failed(why));
    }
    case exception_form::remote:
      return inner().wrap(error_access::make<remote_error>(what, name));
  }
  throw failed("malformed");
}

inline std::exception_ptr decode_exception_level(byte_reader& bytes, int level) {
  if (level >= max_exception_levels) {
    throw make_error<serialization_error>("decoding an exception: too many levels",
                                          std::string("std::nested_exception"));
  }
  const auto form = bytes.get<exception_form>();
  const auto nested = bytes.get<exception_nesting>();
  const std::string name = decode<std::string>(bytes);
  const std::string what = decode<std::string>(bytes);
  return rebuild_exception(bytes, form, name, what, nested, level);
}

/// Appends what stands for a caught exception. Throws only what the writer throws, and std::bad_alloc.
inline void encode_exception(byte_writer& bytes, const std::exception_ptr& thrown) {
  encode_exception_level(bytes, thrown, 0);
}

/// The exception that the bytes stand for; a serialization_error if they stand for none. Copies before it interprets.
inline std::exception_ptr decode_exception(byte_reader& bytes) {
  try {
    return decode_exception_level(bytes, 0);
  } catch (abi::__forced_unwind&) {
    throw;
  } catch (...) {
    return std::current_exception();
  }
}

/// Appends the report that an argument or the result of a task could not be encoded or decoded.
inline void encode_failure(byte_writer& bytes, const serialization_error& error) {
  put_text(bytes, error.type_name());
  put_text(bytes, bare_text(error));
}

/// The error that such a report stands for, for the task at `place`.
inline serialization_error decode_failure(byte_reader& bytes, const std::string& place) {
  try {
    const std::string type = decode<std::string>(bytes);
    const std::string cause = decode<std::string>(bytes);
    return make_error<serialization_error>(place + ": " + cause, type);
  } catch (const serialization_error& error) {
    return make_error<serialization_error>(place + ": " + bare_text(error), error.type_name());
  }
}

}  // namespace procpool::detail
