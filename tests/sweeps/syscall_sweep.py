#!/usr/bin/env python3
# SPDX-License-Identifier: BSL-1.0
"""syscall_sweep.py WORKLOAD: runs the workload again and again, each time with another system call failing in another way.

strace makes the n-th call of a name fail, once or from then on, in the program and all that it forks, in the zygote and
what that forks, or in one worker; n = 1, 2, ... until a run passes without being hit. The bar for each run: it ends by
itself, every step ends in its result or in a documented error, and nothing is left behind.
"""
import argparse
import concurrent.futures
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time

TARGETS = ('parent', 'zygote', 'worker')  # where it begins; what that process forks from then on is hit as well
PATIENCE = 40  # seconds; the workload itself gives up after 20
MARK = 'PROCPOOL_SWEEP'  # in the environment of every process of a run

# What each call may plausibly answer. A kernel does not interrupt a call for ever, nor say for ever that it would block on
# a socket that is ready: those come once. futex is swept in another way, as a FUTEX_WAKE does not fail; nor does a write
# to an eventfd, unless it is interrupted.
CALLS = {
    'clone': 'EAGAIN ENOMEM',
    'clone3': 'EAGAIN ENOMEM ENOSYS EPERM',
    'fork': 'EAGAIN ENOMEM ENOSYS',
    'vfork': 'EAGAIN ENOMEM',
    'mmap': 'ENOMEM EAGAIN EPERM',
    'munmap': 'ENOMEM',
    'mprotect': 'ENOMEM EACCES EPERM',
    'madvise': 'ENOMEM EAGAIN EINVAL EFAULT EPERM ENOSYS',
    'memfd_create': 'EMFILE ENOMEM ENOSYS EPERM',
    'ftruncate': 'EINTR ENOMEM EPERM',
    'fcntl': 'EMFILE EPERM',
    'socketpair': 'EMFILE ENFILE ENOMEM EPERM',
    'sendmsg': 'EINTR EAGAIN ENOMEM ENOBUFS EPERM',
    'recvmsg': 'EINTR EAGAIN ENOMEM EPERM',
    'eventfd2': 'EMFILE ENFILE ENOMEM',
    'epoll_create1': 'EMFILE ENFILE ENOMEM',
    'epoll_ctl': 'ENOMEM ENOSPC',
    'epoll_wait': 'EINTR',
    'pidfd_open': 'EMFILE ENOMEM ENOSYS EPERM',
    'pidfd_send_signal': 'ENOSYS EPERM',
    'close_range': 'ENOSYS',
    'openat': 'EINTR EMFILE ENFILE ENOMEM EPERM',
    'dup2': 'EINTR EBUSY',
    'prctl': 'EPERM EINVAL',
    'setpgid': 'EPERM EACCES',
    'wait4': 'EINTR',
    'waitid': 'EINTR',
    'kill': 'EPERM',
    'ppoll': 'EINTR EAGAIN ENOMEM',
    'poll': 'EINTR EAGAIN ENOMEM',
    'write': 'EINTR',
    'read': 'EINTR EAGAIN ENOMEM EPERM',
}


def passes(call, error):
    """Whether the error is none that stays."""
    return error == 'EINTR' or (call, error) == ('recvmsg', 'EAGAIN')


lock = threading.Lock()
runs = hits = refusals = 0
spent = {}  # seconds by call and error
failures = []


def traced(pid):
    """Whether something traces the process."""
    with open(f'/proc/{pid}/status') as status:
        return any(line.startswith('TracerPid') and line.split()[1] != '0' for line in status)


def await_target(program, said):
    """The process that the workload wants to have traced."""
    while program.poll() is None:
        said.seek(0)
        line = said.readline()
        if line.endswith('\n'):
            return int(line.split()[1]) if line.startswith('target ') else None
        time.sleep(0.0005)
    return None


def end_run(mark):
    """Kills what is left of a run, whatever session it is in: its environment tells. Whether there was something."""
    found = False
    for name in filter(str.isdigit, os.listdir('/proc')):
        try:
            with open(f'/proc/{name}/environ', 'rb') as environment:
                if f'{MARK}={mark}\0'.encode() in environment.read():
                    found = True
                    os.kill(int(name), signal.SIGKILL)
        except OSError:
            pass
    return found


def run(workload, call, error, when, target):
    """One run: whether a call was made to fail, and what was wrong, if anything."""
    begun = time.monotonic()
    with (tempfile.NamedTemporaryFile('r') as log, tempfile.TemporaryFile('w+') as said,
          tempfile.TemporaryFile('w+') as noise):
        mark = os.path.basename(log.name)
        mappings = ['unchecked'] if call == 'munmap' else []
        program = subprocess.Popen([workload, target, *mappings], stdin=subprocess.DEVNULL, stdout=said, stderr=noise,
                                   env={**os.environ, MARK: mark})
        pid = await_target(program, said)
        if pid is None:
            end_run(mark)
            program.wait()
            return False, 'did not begin'
        strace = subprocess.Popen(
            ['strace', '-f', '-qq', '-o', log.name, '-p', str(pid), '-e', 'trace=' + call, '-e', 'signal=none',
             '-e', f'inject={call}:error={error}:when={when}'],
            stdin=subprocess.DEVNULL, stdout=noise, stderr=noise)
        while not traced(pid) and strace.poll() is None:
            time.sleep(0.0005)
        program.send_signal(signal.SIGUSR1)
        wrong = []
        try:
            program.wait(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            program.kill()
            program.wait()
            wrong.append('hung')
        said.seek(0)
        last = (said.read().splitlines() or [''])[-1]
        if program.returncode == -signal.SIGALRM:
            wrong.append('hung')
        elif program.returncode != 0:
            noise.seek(0)
            wrong.append(f'status {program.returncode}: {last} {noise.read()[-500:]}')
        elif strace.poll() is None:
            try:
                strace.wait(timeout=2)
            except subprocess.TimeoutExpired:
                wrong.append('a process is left')
        if end_run(mark) and not wrong:
            wrong.append('a process is left')
        try:
            strace.wait(timeout=5)
        except subprocess.TimeoutExpired:
            strace.kill()
            strace.wait()
        text = log.read()
        noise.seek(0)
        if 'attach:' in (complaint := noise.read()):
            wrong.append(complaint)
        global runs, hits, refusals
        with lock:
            runs += 1
            hits += text.count('(INJECTED)')
            refusals += not wrong and ' 0 refused' not in last
            spent[f'{call} {error} {target}'] = spent.get(f'{call} {error} {target}', 0) + time.monotonic() - begun
        return '(INJECTED)' in text, ', '.join(wrong)


def sweep(workload, call, error, target, persistent, most):
    """Every n until a run passes untouched."""
    n = 1
    while n <= most:
        when = f'{n}+' if persistent else str(n)
        hit, wrong = run(workload, call, error, when, target)
        if wrong:
            with lock:
                failures.append(f'{call} {error} when={when} in {target}: {wrong}')
                print('WRONG', failures[-1], flush=True)
        if not hit:
            return
        n += n if persistent else 1  # 1, 2, 4, ...: what fails from n on hides what is behind


def main():
    options = argparse.ArgumentParser()
    options.add_argument('workload')
    options.add_argument('--calls', default=','.join(CALLS), help='only these, separated by commas')
    options.add_argument('--errors', default='', help='only these')
    options.add_argument('--targets', default=','.join(TARGETS), help='only these')
    options.add_argument('--most', type=int, default=24, help='the last n at which to stop at any rate')
    options.add_argument('--jobs', type=int, default=os.cpu_count())
    options.add_argument('--expect-failure', action='store_true', help='succeed only if some run goes wrong')
    options.add_argument('--at-least', type=int, default=0, help='so many runs, or the sweep has not swept')
    chosen = options.parse_args()
    errors = set(chosen.errors.split(',')) - {''}
    begun = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(chosen.jobs) as threads:
        sweeps = [
            threads.submit(sweep, chosen.workload, call, error, target, persistent, chosen.most)
            for target in chosen.targets.split(',') for call in chosen.calls.split(',') for error in CALLS[call].split()
            for persistent in (False, True)
            if not (persistent and passes(call, error)) and (not errors or error in errors)
        ]
        for each in sweeps:
            each.result()
    print(f'{runs} runs, {hits} calls made to fail, {refusals} runs with a documented error, {len(failures)} wrong, '
          f'{time.monotonic() - begun:.0f} s')
    slowest = sorted(spent.items(), key=lambda item: -item[1])[:5]
    print('longest: ' + ', '.join(f'{name} {seconds:.0f} s' for name, seconds in slowest))
    if hits == 0 or runs < chosen.at_least:
        sys.exit('that is not what a sweep is')
    sys.exit(bool(failures) != chosen.expect_failure)


if __name__ == '__main__':
    main()
