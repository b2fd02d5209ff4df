"""Run Python with some arguments under a limit of memory, and print its peak memory at the end.

python tests/foreign/measured.py -m rsna_seq index ...
"""

import resource
import subprocess
import sys

ADDRESS_SPACE = 16 << 30
"""Libraries reserve several GiB that they never touch; a bomb asks for more than this."""


def main() -> int:
    """The exit code of what was run; the last line of standard error is its peak memory."""
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    code = subprocess.run([sys.executable, *sys.argv[1:]], check=False).returncode
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024
    print(f"\npeak_mib={peak}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
