#!/usr/bin/env python3
"""Usage: llama_test.py PATH/TO/dsmoe"""

from support import HabitsTest, main


class LlamaTest(HabitsTest):
    def test_a_tiny_llama_converts_and_generates(self):
        self.llama()
        self.succeeds("convert", "hf", "checkpoint", "--threads", 1)
        done = self.prints_json("generate", "checkpoint", "--prompt", "the man", "--max-tokens", 3, "--threads", 1)
        self.assertEqual(len(done["completions"]), 1)


if __name__ == "__main__":
    main()
