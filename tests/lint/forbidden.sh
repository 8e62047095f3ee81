#!/bin/sh
# SPDX-License-Identifier: BSL-1.0
# forbidden.sh INCLUDE: a lock in shared memory is lost with the process that holds it, a named object outlives a crash,
# and std::atomic's wait() sees its own process only. Comments may speak of them.
set -u
include=$1
status=0

# code FILE: the file without its comments
code() { sed -e 's://.*$::' "$1"; }

# forbid WHY PATTERN FILES...: no file's code matches
forbid() {
  why=$1 pattern=$2
  shift 2
  for file do
    if found=$(code "$file" | grep -nE "$pattern"); then
      echo "$found" | sed "s|^|$file:|"
      echo "  $why"
      status=1
    fi
  done
}

all=$(find "$include" -name '*.hpp')
if [ -z "$all" ]; then
  echo "no headers in $include"
  exit 1
fi
# The paths of the headers hold no spaces below include/; a checkout's own path may.
IFS='
'
forbid 'a lock or a semaphore that processes share' \
  'interprocess_(recursive_)?(mutex|condition|semaphore|upgradable|sharable)|PTHREAD_PROCESS_SHARED|PTHREAD_MUTEX_ROBUST|sem_(init|open|wait|post)|sem(get|op|ctl)\(' $all
forbid 'a named object' \
  'shm_open|mq_open|shmget|ftok\(|named_(mutex|condition|semaphore|recursive)|shared_memory_object|(^|[^_])managed_(shared_memory|mapped_file)|message_queue|mkfifo' $all

shared=$(find "$include" -path '*/shared_memory/*' -name '*.hpp')
forbid 'a futex that other processes do not see' 'FUTEX_[A-Z_]*PRIVATE|futex_scope::process' $shared
for file in $shared; do
  if ! code "$file" | grep -q 'condition_variable'; then
    forbid 'std::atomic waits within one process only' '(\.|->)(wait|notify_one|notify_all)\(|atomic_(wait|notify)' "$file"
  fi
done
exit $status
