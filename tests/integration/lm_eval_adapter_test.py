#!/usr/bin/env python3
"""Tests the calls of the evaluation harness adapter to dsmoe and its parsing; needs neither harness nor dsmoe."""

import importlib.util
import pathlib
import sys
import unittest

sys.dont_write_bytecode = True
SOURCE = pathlib.Path(__file__).resolve().parents[2]
SPEC = importlib.util.spec_from_file_location("lm_eval_adapter", SOURCE / "scripts" / "lm_eval_adapter.py")
adapter = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(adapter)


class AdapterTest(unittest.TestCase):
    def test_scores_come_back_in_the_order_of_the_requests(self):
        items, sizes = adapter.choice_items([("a", " b"), ("a", " c"), ("d", " e"), ("a", " f"), ("a", " g")])
        self.assertEqual([(item["context"], item["choices"]) for item in items],
                         [("a", [" b", " c"]), ("d", [" e", " e"]), ("a", [" f", " g"])])
        lines = ['{"log_likelihoods": [-1.5, -2.5], "greedy": [true, false]}',
                 '{"log_likelihoods": [-3.5, -3.5], "greedy": [false, false]}',
                 '{"log_likelihoods": [-4.5, -5.5], "greedy": [false, true]}']
        self.assertEqual(adapter.read_scores(lines, sizes),
                         [(-1.5, True), (-2.5, False), (-3.5, False), (-4.5, False), (-5.5, True)])

    def test_fewer_scores_than_requests_are_refused(self):
        with self.assertRaises(ValueError):
            adapter.read_scores(['{"log_likelihoods": [-1, -2], "greedy": [true, true]}'], [2, 2])

    def test_a_temperature_applies_only_with_sampling(self):
        self.assertEqual(adapter.prompt_of("p", {"until": "\n", "max_gen_toks": 5, "do_sample": False, "temperature": 0.7}),
                         {"prompt": "p", "max_tokens": 5, "stop": ["\n"], "temperature": 0.0})
        self.assertEqual(adapter.prompt_of("p", {"until": ["a", "b"], "temperature": 0.7, "top_p": 0.9}),
                         {"prompt": "p", "max_tokens": 256, "stop": ["a", "b"], "temperature": 0.7, "top_p": 0.9})

    def test_unknown_options_are_refused_by_name(self):
        with self.assertRaisesRegex(ValueError, "num_beams"):
            adapter.prompt_of("p", {"num_beams": 4})
        with self.assertRaisesRegex(ValueError, "polcy"):
            adapter.Dsmoe("runs/x", polcy="all")


if __name__ == "__main__":
    unittest.main()
