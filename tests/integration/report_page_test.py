#!/usr/bin/env python3
"""Tests the report page in a real browser: no console errors, both colour schemes, no sideways scrolling on a phone, size.

Usage: report_page_test.py PATH/TO/dsmoe
"""

import html
import json
import math
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

DSMOE = os.path.abspath(sys.argv.pop(1))
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
N_STEPS, N_LAYERS, N_EXPERTS = 5000, 4, 16
PHONE = 390  # CSS pixels


def metrics_line(step):
    load = [[(1 + math.sin(step / 300 + layer + expert)) / 2 for expert in range(N_EXPERTS)] for layer in range(N_LAYERS)]
    layers = [0.5 + 0.1 * layer for layer in range(N_LAYERS)]
    return {"step": step, "tokens": 2048 * step, "lm_loss": 2 + 4 * math.exp(-step / 900), "learning_rate": 1e-3,
            "gradient_norm": 0.4 + 0.1 * math.cos(step), "tokens_per_second": 9000 + step % 7, "mfu": 0.5,
            "peak_memory_bytes": 3 << 28,
            "moe_routing": {"load": load, "mutual_information": layers, "token_entropy": layers}}


def write_run(directory):
    directory.mkdir()
    lines = [metrics_line(step) for step in range(1, N_STEPS + 1)]
    experts = {"moe": [{"active": 3 + layer} for layer in range(N_LAYERS)]}
    lines += [{"step": step, "validation_loss": 2.1, "experts": experts} for step in range(500, N_STEPS + 1, 500)]
    lines.append({"step": 77, "event": "spike", "text": "a <b>spike</b> of " + "x" * 300})
    (directory / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (directory / "config.yaml").write_text("run_dir: here\n# " + "a long line " * 40 + "\n")


class ReportPageTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.directory = pathlib.Path(tempfile.mkdtemp(prefix="dsmoe-report-"))
        cls.addClassCleanup(shutil.rmtree, cls.directory)
        write_run(cls.directory / "run")
        cls.page = cls.directory / "report.html"
        sample = cls.directory / "sample.txt"
        sample.write_text("ROMEO: <script>nothing.here()</script>\n" + "longword" * 200 + "\n" + "line\n" * 500)
        done = subprocess.run([DSMOE, "report", cls.directory / "run", "--samples", sample, "--out", cls.page], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr

    def browse(self, page, *options):
        """The page after its scripts ran, and what the browser's console said."""
        if not BROWSER:
            self.skipTest("no Chromium is installed")
        done = subprocess.run([BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr",
                               f"--user-data-dir={self.directory}/profile", *options, "--dump-dom", page.as_uri()],
                              capture_output=True, text=True, timeout=120)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]

    def with_script(self, name, script):
        page = self.directory / name
        page.write_text(self.page.read_text().replace("</body>", f"<script>{script}</script></body>"))
        return page

    def test_a_run_of_5000_logged_steps_is_below_2_megabytes(self):
        self.assertLess(self.page.stat().st_size, 2_000_000)

    def test_the_console_stays_empty_and_every_plot_is_drawn(self):
        seen = self.with_script("drawn.html", "const boxes = [...document.querySelectorAll('svg')].map("
                                "svg => svg.getBoundingClientRect()); document.title = boxes.length + ' ' +"
                                "boxes.filter(box => box.width > 100 && box.height > 50).length;")
        dom, console = self.browse(seen)
        self.assertEqual(console, [])
        n_plots, n_drawn = map(int, re.search(r"<title>(\d+) (\d+)</title>", dom).groups())
        self.assertGreaterEqual(n_plots, 4 + N_LAYERS)
        self.assertEqual(n_drawn, n_plots)
        broken = self.with_script("broken.html", "nothing.here()")
        self.assertTrue(self.browse(broken)[1], "the test would not see an error")

    def test_a_sample_text_is_there_letter_by_letter(self):
        page = self.with_script("sample.html", "document.title = document.querySelector('.sample').textContent.length;")
        dom, _ = self.browse(page)
        self.assertEqual(int(re.search(r"<title>(\d+)</title>", dom)[1]),
                         len((self.directory / "sample.txt").read_text()))

    def test_text_and_ground_follow_the_colour_scheme(self):
        page = self.with_script("colours.html", "const style = getComputedStyle(document.body);"
                                "document.title = [style.color, style.backgroundColor].map("
                                "colour => colour.match(/\\d+/)[0]).join(' ');")
        found = {}
        for name, scheme in (("dark", 0), ("light", 1)):
            dom, _ = self.browse(page, f"--blink-settings=preferredColorScheme={scheme}")
            found[name] = tuple(map(int, re.search(r"<title>(\d+) (\d+)</title>", dom).groups()))
        self.assertGreater(found["dark"][0], found["dark"][1] + 100)
        self.assertGreater(found["light"][1], found["light"][0] + 100)

    def test_a_phone_scrolls_down_only(self):
        frame = self.directory / "phone.html"
        frame.write_text(f'<!doctype html><iframe width="{PHONE}" height="800" style="border:0" '
                         f'srcdoc="{html.escape(self.page.read_text())}" onload="document.title = '
                         "this.contentDocument.documentElement.scrollWidth + ' ' + this.contentWindow.innerWidth"
                         '"></iframe>')
        dom, _ = self.browse(frame)
        scroll_width, width = map(int, re.search(r"<title>(\d+) (\d+)</title>", dom).groups())
        self.assertEqual(width, PHONE)
        self.assertLessEqual(scroll_width, width)


if __name__ == "__main__":
    unittest.main()
