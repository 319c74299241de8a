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
            "flops_per_second": 4e10, "peak_memory_bytes": 3 << 28, "moe_mi": -1 - 0.2 * math.sin(step / 900),
            "loss_weights": {"lm_loss": 1.0, "moe_mi": 0.01}, "loss_bounds": {"moe_mi": -N_LAYERS * math.log(N_EXPERTS)},
            "seconds": 0.5 * step,
            "moe_routing": {"load": load, "mutual_information": layers, "token_entropy": layers}}


def write_run(directory):
    directory.mkdir()
    lines = [metrics_line(step) for step in range(1, N_STEPS + 1)]
    experts = {"moe": [{"active": 3 + layer} for layer in range(N_LAYERS)]}
    for step in range(500, N_STEPS + 1, 500):
        loss = 2 + 300 / step
        policies = [{"policy": name, "loss": loss + more, "bits_per_byte": loss / math.log(2), "active_parameters": 1e6 * share,
                     "active_share": share, "experts": experts}
                    for name, more, share in (("all", 0, 1), ("threshold=0.48", 0.01, 0.31), ("top_k=4", 0.02, 0.49))]
        if step == 500:
            del policies[2]  # a policy that was added after the first validation
        lines.append({"step": step, "validation_loss": loss, "policies": policies, "experts": experts})
    lines.append({"step": 77, "event": "spike", "text": "a <b>spike</b> of " + "x" * 300})
    (directory / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (directory / "config.yaml").write_text(f"run_dir: here\nname: {directory.name}\n# " + "a long line " * 40 + "\n")
    (directory / "run.json").write_text(json.dumps({
        "parameters_total": 2345678, "parameters_non_embedding": 1751744, "machine": "A machine", "ranks": 1, "threads": 2, "dtype": "float32"}))


class ReportPageTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.directory = pathlib.Path(tempfile.mkdtemp(prefix="dsmoe-report-"))
        cls.addClassCleanup(shutil.rmtree, cls.directory)
        write_run(cls.directory / "run")
        write_run(cls.directory / "other")
        cls.page = cls.directory / "report.html"
        sample = cls.directory / "sample.txt"
        sample.write_text("ROMEO: <script>nothing.here()</script>\n" + "longword" * 200 + "\n" + "line\n" * 500)
        done = subprocess.run([DSMOE, "report", cls.directory / "run", cls.directory / "other", "--samples", sample, "--out", cls.page], capture_output=True, text=True)
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

    def title_after(self, name, script):
        """The page's title, which the script sets."""
        dom, console = self.browse(self.with_script(name, script))
        self.assertEqual(console, [])
        return html.unescape(re.search(r"<title>([^<]*)</title>", dom)[1])

    def test_two_runs_of_5000_logged_steps_are_below_2_megabytes(self):
        self.assertLess(self.page.stat().st_size, 2_000_000)

    def test_the_console_stays_empty_and_every_plot_is_drawn(self):
        seen = self.with_script("drawn.html", "const boxes = [...document.querySelectorAll('.plot svg')].map("
                                "svg => svg.getBoundingClientRect()); document.title = boxes.length + ' ' +"
                                "boxes.filter(box => box.width > 100 && box.height > 50).length;")
        dom, console = self.browse(seen)
        self.assertEqual(console, [])
        n_plots, n_drawn = map(int, re.search(r"<title>(\d+) (\d+)</title>", dom).groups())
        self.assertGreaterEqual(n_plots, 8 + 2 * (5 + N_LAYERS))
        self.assertEqual(n_drawn, n_plots)
        broken = self.with_script("broken.html", "nothing.here()")
        self.assertTrue(self.browse(broken)[1], "the test would not see an error")

    def test_the_pointer_shows_the_values_of_every_line(self):
        # At the right end of the plot of losses: both runs, training and validation.
        shown = self.title_after("hover.html", """
            const plot = document.querySelector('.plot'), box = plot.querySelector('svg').getBoundingClientRect();
            plot.dispatchEvent(new PointerEvent('pointermove', {clientX: box.right - 12, clientY: box.top + 50}));
            document.title = [...plot.querySelectorAll('.values tr')].map(row => row.textContent).join('|');""")
        rows = shown.split("|")
        self.assertEqual(len(rows), 4, shown)
        self.assertRegex(rows[0], r"run training2\.015, perplexity 7\.5\d")
        self.assertRegex(rows[2], r"run validation2\.06, perplexity 7\.846, 2\.972 bits/byte")

    def test_the_axis_switches_between_tokens_steps_and_time(self):
        labels = self.title_after("axis.html", """
            const select = document.querySelector('#controls select');
            const found = [];
            for (const axis of ['tokens', 'step', 'seconds']) {
              select.value = axis;
              select.onchange();
              for (const draw of drawings) draw();
              const texts = [...document.querySelector('.plot').querySelectorAll('text')].map(text => text.textContent);
              found.push(texts.filter(text => /^(10M|5k|40 min|tokens|steps|wall time)$/.test(text)).join(' '));
            }
            document.title = found.join('|');""")
        self.assertEqual(labels, "10M tokens|5k steps|40 min wall time")

    def test_smoothing_changes_the_lines_of_training_alone(self):
        same = self.title_after("smooth.html", """
            const paths = () => [...document.querySelectorAll('.plot')].map(
                plot => [...plot.querySelectorAll('path[stroke-width]')].map(path => path.getAttribute('d')));
            const before = paths();
            state.smoothing = 0.9;
            for (const draw of drawings) draw();
            const after = paths();
            // Training losses are smoothed above their faint values; validations and learning rates are not.
            document.title = [before[0][0] === after[0][0], after[0].includes(before[0][0]), after[0].includes(before[0][2]),
                              after[0].length - before[0].length, before[1][0] === after[1][0],
                              before[2][0] === after[2][0]].join(' ');""")
        self.assertEqual(same, "false true true 2 true true")

    def test_a_run_has_one_colour_in_every_plot_and_can_be_hidden(self):
        colours = self.title_after("colours-of-runs.html", """
            const coloursIn = plot => [...new Set([...plot.querySelectorAll('path[stroke-width], circle')].map(
                mark => mark.getAttribute(mark.tagName === 'path' ? 'stroke' : 'fill')))].join(',');
            const all = [...document.querySelectorAll('#all-runs .plot')].map(coloursIn);
            state.hidden.add(0);
            for (const draw of drawings) draw();
            const rest = [...document.querySelectorAll('#all-runs .plot')].map(coloursIn);
            const own = [...document.querySelectorAll('#run-1 .plot')].map(coloursIn);
            document.title = [...new Set(all)].join(' ') + '|' + [...new Set([...rest, ...own])].join(' ');""")
        self.assertEqual(colours, "#0072b2,#e69f00|#e69f00")

    def test_a_policy_has_no_point_at_a_validation_without_it(self):
        points = self.title_after("points.html", """
            const plot = document.querySelectorAll('#all-runs .plot')[1];
            const heights = [...plot.querySelectorAll('circle')].map(point => +point.getAttribute('cy'));
            document.title = plot.textContent.includes('by policy') + ' ' + heights.length;""")
        self.assertEqual(points, f"true {2 * (10 + 10 + 9)}")

    def test_a_heat_map_has_ticks_and_a_scale(self):
        texts = self.title_after("heat.html", """
            document.title = [...document.querySelector('#loads-0 .plot').querySelectorAll('text')].map(
                text => text.textContent).join(' ');""")
        self.assertRegex(texts, r"^0 1 2 3 4 .*14 15 0 2M .*10M tokens expert, by row 0 0\.5 1$")

    def test_the_tables_have_parameters_time_machine_and_differences(self):
        text = self.page.read_text()
        for cell in ("2,345,678", "41.7 min", "A machine, 1 x 2 threads, float32", "2.9720"):
            self.assertIn(f"<td>{cell}</td>", text)
        self.assertIn("<tr><td>name</td><td>run</td><td>other</td></tr>", text)

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
