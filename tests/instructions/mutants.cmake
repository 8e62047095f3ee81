# SPDX-License-Identifier: BSL-1.0
# cmake -DINCLUDE=DIR -DOUT=DIR -P mutants.cmake
# Copies some of the library's headers and seeds bugs into the copies, each behind a condition SEEDED(name).
include("${CMAKE_CURRENT_LIST_DIR}/../../cmake/patch_headers.cmake")
file(REMOVE_RECURSE "${OUT}")

# seed(TEXT REPLACEMENT): in ${header}
function(seed text replacement)
  patch_header("shared_memory/${header}" "${text}" "${replacement}" "\"seeded.hpp\"")
endfunction()

set(header lane_protocol.hpp)
seed([[  replies.claimed.store(number, std::memory_order_seq_cst);]]
     [[  if (!SEEDED(no_claim)) replies.claimed.store(number, std::memory_order_seq_cst);]])
seed([[  if (requests.limit.load(std::memory_order_seq_cst)]]
     [[  if (SEEDED(no_second_look) || requests.limit.load(std::memory_order_seq_cst)]])
seed([[  replies.claimed.store(number - 1, ]]
     [[  if (!SEEDED(no_step_back)) replies.claimed.store(number - 1, ]])
seed([[  requests.slots[(slot + 1) % ]]
     [[  if (!SEEDED(stale_slot)) requests.slots[(slot + 1) % ]])
seed([[  if (replies.claimed.load(]]
     [[  if (SEEDED(blind_take_back) || replies.claimed.load(]])
seed([[  replies.published.store(number, std::memory_order_release);
}]]
     [[  replies.published.store(number + (SEEDED(publish_two) ? 1 : 0), std::memory_order_release);
}]])
seed([[  replies.published.store(number, std::memory_order_release);
  replies.claimed.store(number + 1, ]]
     [[  replies.published.store(number + (SEEDED(series_publish_two) ? 1 : 0), std::memory_order_release);
  if (!SEEDED(series_no_claim)) replies.claimed.store(number + 1, ]])
seed([[  if (requests.limit.load(std::memory_order_acquire) > number)]]
     [[  if (SEEDED(series_no_second_look) || requests.limit.load(std::memory_order_acquire) > number)]])
seed([[  replies.claimed.store(number, std::memory_order_relaxed);]]
     [[  if (!SEEDED(series_no_step_back)) replies.claimed.store(number, std::memory_order_relaxed);]])
seed([[  replies.timed_since.store(]]
     [[  if (SEEDED(late_time)) replies.timed.store(number, std::memory_order_release);
  replies.timed_since.store(]])
seed([[  if (!condition()) sleep_while(requests, seen);]]
     [[  if (SEEDED(blind_sleep) || !condition()) sleep_while(requests, seen);]])
seed([[  return told_to_leave(requests) && !allowed(requests, number);]]
     [[  if (SEEDED(hasty_leave)) return told_to_leave(requests);
  return told_to_leave(requests) && !allowed(requests, number);]])

set(header worker_loop.hpp)
seed([[      if (!protocol::claim(requests_, replies_, number)) continue;]]
     [[      if (!SEEDED(late_claim) && !protocol::claim(requests_, replies_, number)) continue;]])
seed([[      number = published_ + 1;]]
     [[      number = published_ + 1;
      if (SEEDED(late_claim)) static_cast<void>(protocol::claim(requests_, replies_, number));]])
seed([[    std::byte* at = place(reply_room());]]
     [[    if (SEEDED(early_publish)) protocol::publish(replies_, number);
    std::byte* at = place(reply_room());]])
seed([[      end_of_series(at).store(]]
     [[      if (!SEEDED(series_no_end)) end_of_series(at).store(]])
seed([[    if (!claimed || protocol::begins(requests_, next_slot_, next)]]
     [[    if (!claimed || (!SEEDED(series_stale_chunk) && protocol::begins(requests_, next_slot_, next))]])
seed([[    if (std::exchange(to_ring_, false)) ring();]]
     [[    if (std::exchange(to_ring_, false) && !SEEDED(no_ring_for_chunk)) ring();]])
seed([[      std::memcpy(replies_.ring + before % ring_bytes, &wrap, sizeof(wrap));]]
     [[      if (!SEEDED(no_wrap)) std::memcpy(replies_.ring + before % ring_bytes, &wrap, sizeof(wrap));]])
seed([[    if (!fits()) {]]
     [[    if (!SEEDED(no_room) && !fits()) {]])
seed([[    if (!result_.attachments().empty()) send_attachments(socket_, number, result_.attachments(), 0);]]
     [[    if (!SEEDED(late_arrays) && !result_.attachments().empty()) {
      send_attachments(socket_, number, result_.attachments(), 0);
    }]])
seed([[    result_.restart();]]
     [[    if (SEEDED(late_arrays) && !result_.attachments().empty()) {
      protocol::publish(replies_, number);
      send_attachments(socket_, number, result_.attachments(), 0);
    }
    result_.restart();]])
seed([[    result_.restart();
    published_ = number;]]
     [[    result_.restart();
    published_ = number;
    if (SEEDED(early_ring) && requests_.sleeping.load(std::memory_order_relaxed) == 0) {
      protocol::publish(replies_, number);
      return;
    }]])

set(header reply_writer.hpp)
seed([[handed_over_.front().number <= taken) {]]
     [[handed_over_.front().number <= taken + (SEEDED(early_free) ? 1 : 0)) {]])

set(header worker_main.hpp)
seed([[  const bool initialized = initialize(]]
     [[  if (SEEDED(early_ready)) replies.state.store(worker_state::ready, std::memory_order_release);
  const bool initialized = initialize(]])
seed([[  finalize(plan.setup.finalizer);]]
     [[  if (SEEDED(early_left)) replies.state.store(worker_state::left, std::memory_order_release);
  finalize(plan.setup.finalizer);]])
seed([[  std::memcpy(replies.failure, text, size);]]
     [[  if (SEEDED(torn_failure)) {
    replies.failure_size = size;
    replies.state.store(worker_state::failed, std::memory_order_release);
  }
  std::memcpy(replies.failure, text, size);]])
