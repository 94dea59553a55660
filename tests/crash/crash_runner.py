# SPDX-License-Identifier: GPL-2.0-or-later
"""Run the tests of crash safety.

The tested QEMU is build/qemu-system-x86_64, or that named by $WSM_QEMU.
"""

import argparse

from tests.crash import matrix
from tests.functional.runner import add_arguments, run_chosen


def main() -> int:
    parser = argparse.ArgumentParser(description='tests of crash safety')
    parser.add_argument('--seed', type=int, default=0, metavar='N',
                        help='what the guest writes (%(default)s)')
    parser.add_argument('--cuts', type=int, metavar='N',
                        help='cut the power at so many points, by default at '
                             'all')
    parser.add_argument('--draws', type=int, default=1, metavar='N',
                        help='draw so many times at each point what of the '
                             'last writes is there (%(default)s)')
    parser.add_argument('--ends', type=int, default=matrix.ENDS, metavar='N',
                        help='bring so many cuts of each kind to an end '
                             '(%(default)s)')
    add_arguments(parser)
    options = parser.parse_args()
    matrix.load(options.seed)
    matrix.load_power_cuts(options.seed, count=options.cuts,
                           draws=options.draws)
    matrix.load_endings(options.seed, count=options.ends)
    return run_chosen(options, 'crash')
