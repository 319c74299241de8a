#!/usr/bin/env python3
"""Usage: missing_test.py PATH/TO/dsmoe

Tests that errors name any missing file or tensor.
"""

import json
import shutil

from support import CONFIG, TEXT, HabitsTest, llama_shapes, main


class MissingTest(HabitsTest):
    def without(self, directory, file):
        """A copy of a directory that lacks one file."""
        copy = self.directory / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(directory, copy)
        (copy / file).unlink()
        return copy

    def test_every_file_of_a_checkpoint(self):
        run = self.tiny_run("run", "--train.steps=1", "--train.schedule.warmup_steps=0", tokenizer="train:bpe:300")
        checkpoint = next((run / "checkpoints").iterdir())
        files = sorted(path.name for path in checkpoint.iterdir())
        self.assertGreaterEqual(len(files), 6, files)
        for file in files:
            copy = self.without(checkpoint, file)
            with self.subTest(file=file):
                for command in (("generate", copy, "--prompt", "a"), ("inspect", copy), ("eval", copy, "--data", "run-text.txt"),
                                ("convert", copy, "converted"), ("export", copy, "exported", "--to", "gguf"),
                                ("train", "tiny.yaml", "--run_dir=next", "--data.train=run-data", "--resume", copy),
                                ("train", "tiny.yaml", "--run_dir=next", "--data.train=run-data", f"--train.init_from={copy}")):
                    self.refused(*command, says=[file])

    def test_every_file_of_a_data_set(self):
        self.write("text.txt", TEXT)
        self.succeeds("tokenize", "--input", "text.txt", "--tokenizer", "train:bpe:300", "--out", "data", "--shard-tokens", 2000, "--threads", 1)
        self.tiny_run("run", "--train.steps=1", "--train.schedule.warmup_steps=0")
        files = sorted(path.name for path in (self.directory / "data").iterdir())
        self.assertGreaterEqual(len(files), 5, files)
        for file in files:
            copy = self.without(self.directory / "data", file)
            with self.subTest(file=file):
                self.refused("train", "tiny.yaml", "--run_dir=next", f"--data.train={copy}", says=[file])
                self.refused("eval", "run", "--data", copy, says=[file])

    def test_every_file_of_a_hugging_face_directory(self):
        self.llama()
        for file, says in (("config.json", "config.json"), ("model.safetensors", "model.safetensors"), ("tokenizer.json", "tokenizer.json")):
            self.refused("convert", self.without(self.directory / "hf", file), "ck", says=[says])

    def test_every_tensor_of_a_hugging_face_directory(self):
        config = json.loads((self.llama() / "config.json").read_text())
        for name in llama_shapes(config):
            with self.subTest(tensor=name):
                self.llama("fewer", drop=[name])
                self.refused("convert", "fewer", "ck", says=["missing: " + name])
        self.llama("more", extra={"model.layers.0.self_attn.q_proj.bias": [32]})
        self.refused("convert", "more", "ck", says=["unused: model.layers.0.self_attn.q_proj.bias"])
        self.llama("biased", config={"attention_bias": True, "mlp_bias": True})
        self.refused("convert", "biased", "ck", says=["missing: model.layers.0.self_attn.q_proj.bias"])

    def test_a_converted_checkpoint_has_no_state_to_resume_from(self):
        self.llama()
        self.succeeds("convert", "hf", "ck")
        self.write("text.txt", TEXT)
        self.succeeds("tokenize", "--input", "text.txt", "--tokenizer", "hf/tokenizer.json", "--out", "data", "--threads", 1)
        self.write("tiny.yaml", CONFIG)
        self.refused("train", "tiny.yaml", "--resume", "ck", says=["state-rank-00000.json", "train.init_from"])


if __name__ == "__main__":
    main()
