#!/usr/bin/env python3
# SPDX-License-Identifier: BSL-1.0
"""check.py TABLE PROFILES PROGRAM...: counts the instructions of the programs' workloads and compares them with the table.

callgrind counts them, and leaves a profile of each workload in the folder PROFILES. Fails if any is dearer than the table
says by more than the tolerance. Counts do not depend on the machine or what else it does, but on what made the code: where
that is not what the table was made with, nothing is compared (exit status 77).
"""
import argparse
import json
import os
import re
import resource
import shutil
import subprocess
import sys

TOLERANCE = 0.02  # repeated runs differ by a tenth of this at most
SKIPPED = 77
# Lanes are as large as the address space allows: always the same.
ADDRESS_SPACE = 1_600_000 * 1024
COUNTS = 'instructions per element'


def fail(text):
    sys.exit(f'check.py: {text}')


def limit_address_space():
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))


def measure(program, arguments, profiles):
    """The conditions, and the instructions per element of each workload of the program."""
    prefix = os.path.join(profiles, os.path.basename(program))
    command = ['valgrind', '-q', '--vgdb=no', '--tool=callgrind', '--collect-atstart=no', '--compress-strings=no',
               f'--callgrind-out-file={prefix}.%p', program, *arguments]
    # No environment: its size moves the stack.
    environment = {'PATH': os.environ.get('PATH', os.defpath)}
    run = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                         preexec_fn=limit_address_space)
    if run.returncode != 0:
        fail(f'{program} ended with status {run.returncode}:\n{run.stdout}{run.stderr}')
    first, *lines = run.stdout.splitlines()
    conditions = first.removeprefix('conditions: ')
    elements = {name: int(number) for number, name in (line.split(' ', 1) for line in lines)}
    counts = {}
    for file in sorted(os.listdir(profiles)):
        path = os.path.join(profiles, file)
        if not path.startswith(prefix + '.'):
            continue
        with open(path, encoding='utf-8') as profile:
            text = profile.read()
        name = re.search(r'^desc: Trigger: Client Request: (.*)$', text, re.MULTILINE)
        total = re.search(r'^(?:totals|summary): (\d+)$', text, re.MULTILINE)
        if name is None or name[1] not in elements or total is None:
            os.remove(path)  # of what came before or after the workloads, or of another process
            continue
        counts[name[1]] = int(total[1]) / elements[name[1]]
        os.replace(path, os.path.join(profiles, re.sub(r'\W+', '_', name[1]) + '.callgrind'))
    if set(counts) != set(elements) or not counts or min(counts.values()) == 0:
        fail(f'{program}: not all of its workloads were counted: {counts}')
    return conditions, {name: counts[name] for name in elements}


def compare(old, new):
    """Prints every figure. The names of those that are dearer, and of those that are cheaper."""
    dearer, cheaper = [], []
    print(f'{"instructions per element":40} {"table":>12} {"now":>12}')
    for name, count in new.items():
        if name not in old:
            fail(f'{name} is not in the table; refresh it')
        change = count / old[name] - 1
        note = ''
        if change > TOLERANCE:
            dearer.append(name)
            note = '  DEARER'
        elif change < -TOLERANCE:
            cheaper.append(name)
            note = '  cheaper'
        print(f'{name:40} {old[name]:12.1f} {count:12.1f} {change:+8.2%}{note}')
    return dearer, cheaper


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n', 1)[0])
    parser.add_argument('table')
    parser.add_argument('profiles')
    parser.add_argument('programs', nargs='+')
    parser.add_argument('--refresh', action='store_true', help='write the table instead')
    parser.add_argument('--how-to-refresh', default='--refresh', help='a command, for the messages')
    parser.add_argument('--seeded', help='what to have the programs waste')
    options = parser.parse_args()

    shutil.rmtree(options.profiles, ignore_errors=True)
    os.makedirs(options.profiles)
    conditions, new = None, {}
    for program in options.programs:
        conditions, counts = measure(program, [options.seeded] if options.seeded else [], options.profiles)
        new |= counts

    if options.refresh:
        table = {'conditions': conditions, COUNTS: {name: round(count, 1) for name, count in new.items()}}
        with open(options.table, 'w', encoding='utf-8') as file:
            json.dump(table, file, indent=2)
            file.write('\n')
        print(f'{options.table} is written')
        return

    with open(options.table, encoding='utf-8') as file:
        table = json.load(file)
    if conditions != table['conditions']:
        print(f'skipped: the table is for {table["conditions"]}, this is {conditions}')
        sys.exit(SKIPPED)
    dearer, cheaper = compare(table[COUNTS], new)
    if cheaper:
        print(f'Cheaper by more than {TOLERANCE:.0%}; so that it stays so: {options.how_to_refresh}')
    if dearer:
        listed = ''.join(f'  {name}\n' for name in dearer)
        fail(f'dearer by more than {TOLERANCE:.0%}:\n{listed}'
             f'Where the instructions go: callgrind_annotate --auto=no --threshold=100 {options.profiles}/...\n'
             f'If it is worth it: {options.how_to_refresh}')
    if set(table[COUNTS]) != set(new):
        fail(f'in the table, and not measured: {", ".join(sorted(set(table[COUNTS]) - set(new)))}')


if __name__ == '__main__':
    main()
