"""Running programs whose output a test waits for."""

import re
import subprocess
import threading


class Watched(subprocess.Popen):
    """A program whose standard error is read line by line while it runs."""

    def __init__(self, arguments, **options):
        super().__init__([str(argument) for argument in arguments], stderr=subprocess.PIPE, text=True, **options)

    def wait_for_line(self, pattern, seconds=60):
        """Returns the next line with `pattern`. Without one, because the output ended or time is up, the test fails."""
        lines = []
        timer = threading.Timer(seconds, self.kill)
        timer.start()
        try:
            for line in self.stderr:
                if re.search(pattern, line):
                    return line
                lines.append(line)
        finally:
            timer.cancel()
        raise AssertionError(f"no line with {pattern!r} within {seconds} s, the last ones are:\n" + "".join(lines[-10:]))
