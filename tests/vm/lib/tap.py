"""Checks that print TAP, for test files in Python; as the shell's in common.sh.

Owns the count. Never ends a file early: a check that fails is printed and the
next one runs.
"""

import re
import time

count = 0


def ok(name, good=True, detail=""):
    global count
    count += 1
    print(f"{'ok' if good else 'not ok'} {count} - {name}", flush=True)
    if not good:
        print("".join(f"# {line}\n" for line in str(detail).splitlines()[:20]), end="", flush=True)
    return good


def same(name, got, wanted):
    return ok(name, got == wanted, f"got {got!r}, wanted {wanted!r}")


def like(name, got, pattern):
    return ok(name, re.search(pattern, got) is not None, f"got {got!r}, wanted /{pattern}/")


def above(name, got, least):
    return ok(name, got > least, f"got {got!r}, wanted more than {least!r}")


def skip(name, why):
    ok(f"{name} # SKIP {why}")


def eventually(condition, seconds=90):
    """True as soon as the condition is, False when time is up."""
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            return False
        time.sleep(0.2)
    return True


def skip_all(why):
    print(f"1..0 # SKIP {why}")
    raise SystemExit(0)


def done():
    print(f"1..{count}")
