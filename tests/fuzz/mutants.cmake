# SPDX-License-Identifier: BSL-1.0
# Headers of the library with one check taken out. A fuzzer over such a header must find it within the inputs of one
# part.

include("${PROJECT_SOURCE_DIR}/cmake/patch_headers.cmake")

# mutant(NAME FUZZER HEADER WHAT INSTEAD): text of the header, and what stands there instead; INSTEAD may be empty.
function(mutant name fuzzer header what instead)
  set(original "${PROJECT_SOURCE_DIR}/include/procpool/${header}")
  set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS "${original}")
  file(READ "${original}" content)
  replace_once(content "${what}" "${instead}" "mutant ${name}: ${header}")
  set(directory "${CMAKE_CURRENT_BINARY_DIR}/mutants/${name}/procpool")
  cmake_path(GET header PARENT_PATH folder)
  file(MAKE_DIRECTORY "${directory}/${folder}")
  file(WRITE "${directory}/new.hpp" "${content}")
  file(COPY_FILE "${directory}/new.hpp" "${directory}/${header}" ONLY_IF_DIFFERENT)
  set(target mutant_${name})
  fuzz_program(${target} ${fuzzer}_fuzzer.cpp -O0 "${directory}/..")  # found soon: what takes long is to compile it
  target_compile_options(${target} PRIVATE -w)
  fuzz_command(options ${fuzzer}_fuzzer)
  add_test(NAME fuzz_mutant:${name} COMMAND ${target} -runs=${fuzz_part} -seed=1 ${options}
    "-exact_artifact_path=${directory}/finding")
  set_tests_properties(fuzz_mutant:${name} PROPERTIES
    LABELS fuzz_mutant TIMEOUT ${fuzz_timeout} ENVIRONMENT "${fuzz_environment}"
    PASS_REGULAR_EXPRESSION "ERROR: AddressSanitizer;fuzz: broken;runtime error;ERROR: libFuzzer: out-of-memory")
endfunction()

set(port detail/shared_memory/lane_port.hpp)
set(reader detail/shared_memory/reply_reader.hpp)
mutant(published_unbounded lane_words detail/shared_memory/lane_protocol.hpp "seen > last || " "")
mutant(claimed_unbounded lane_words ${port} "return std::clamp(protocol::claimed(replies_), reading_, last_);"
  "return protocol::claimed(replies_);")
mutant(reply_of_another_number lane_replies ${reader} "if (header.number != number) return std::nullopt;" "")
mutant(reply_over_what_is_read lane_replies ${reader}
  "return position_ + n - requests_.taken_bytes.load(std::memory_order_relaxed) <= ring_bytes;"
  "return n != 0;")
mutant(series_end_unbounded lane_replies ${reader} "std::min(said_end, full)" "said_end")
mutant(small_reply_unbounded lane_replies ${reader} "header.size > ring_payload || " "")
mutant(large_reply_unbounded lane_replies ${reader} "header.size > reply_bytes_ - header.arena || " "")
mutant(large_reply_unbacked lane_replies ${reader}
  "if (size > believed_size && !is_backed(data, size)) return std::nullopt;" "")
mutant(header_fetched_twice lane_replies ${reader}
  "std::memcpy(scratch_.get(), replies_.ring + offset, static_cast<std::size_t>(header.size));"
  "const_cast<reply_header&>(header).size =
      *reinterpret_cast<const volatile std::uint64_t*>(replies_.ring + offset - sizeof(header) + 8);
    std::memcpy(scratch_.get(), replies_.ring + offset, static_cast<std::size_t>(header.size));")
mutant(bytes_unbounded payload detail/codec/bytes.hpp "if (n > remaining()) throw_short(n);" "")
mutant(elements_unbounded payload detail/codec/value.hpp
  "if (size > std::max(bytes_.remaining(), max_elements_without_bytes))"
  "if (false)")
mutant(length_fetched_twice payload detail/codec/std_types.hpp
  "const auto length = in.bytes().template get<std::uint64_t>();"
  "byte_reader again = in.bytes();
  auto length = in.bytes().template get<std::uint64_t>();
  asm volatile(\"\" ::: \"memory\");
  if (length <= in.bytes().remaining()) length = again.template get<std::uint64_t>();")
mutant(event_of_no_lane zygote_messages detail/shared_memory/forked_workers.hpp
  "if (event.lane >= ports_.size()) continue;" "")
mutant(order_for_no_lane zygote_messages detail/shared_memory/zygote.hpp
  "if (request.lane >= workers_.size()) continue;" "")
