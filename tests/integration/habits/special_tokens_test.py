#!/usr/bin/env python3
"""Usage: special_tokens_test.py PATH/TO/dsmoe"""

import json

from support import N_PLAIN_TOKENS, HabitsTest, main

THE_MAN = 5  # ids of "the man" alone: t, he, blank, m, an
BOS, EOS, EOT = N_PLAIN_TOKENS, N_PLAIN_TOKENS + 1, N_PLAIN_TOKENS + 2
SAMPLED = ("--temperature", 1, "--max-tokens", 40)


class SpecialTokensTest(HabitsTest):
    def convert(self, name="hf", **options):
        """A checkpoint of a tiny LLaMA; returns its name."""
        self.llama(name, **options)
        self.succeeds("convert", name, f"{name}-checkpoint", "--threads", 1)
        return f"{name}-checkpoint"

    def generate(self, checkpoint, *arguments, **options):
        return self.prints_json("generate", checkpoint, "--threads", 1, *arguments, **options)

    def prompt_tokens(self, checkpoint, text):
        return self.generate(checkpoint, "--prompt", text, "--max-tokens", 1)["prompt_tokens"]

    def special_tokens(self, checkpoint):
        return self.prints_json("inspect", checkpoint)["tokenizer"]["special_tokens"]

    def json_of(self, path):
        return json.loads((self.directory / path).read_text())

    # add-bos-token
    def test_bos_goes_before_a_text_only_where_the_tokenizer_says_so(self):
        names = {"bos_token": "<|bos|>", "eos_token": "<|eos|>"}
        cases = [
            ("no template, add_bos_token false", {"tokenizer_config": names | {"add_bos_token": False}}, THE_MAN),
            ("no template, no key", {"tokenizer_config": names}, THE_MAN),
            ("no template, no file but config.json", {}, THE_MAN),
            ("no template, add_bos_token true", {"tokenizer_config": names | {"add_bos_token": True}}, THE_MAN + 1),
            ("a template", {"tokenizer_config": names, "template": "<|bos|>"}, THE_MAN + 1),
        ]
        for number, (name, options, expected) in enumerate(cases):
            with self.subTest(name):
                checkpoint = self.convert(f"hf{number}", **options)
                self.assertEqual(self.prompt_tokens(checkpoint, "the man"), expected)
                # A BOS spelled in the text is the only one.
                self.assertEqual(self.prompt_tokens(checkpoint, "<|bos|>the man"), THE_MAN + 1)
                # Nothing to continue: starts from BOS only.
                self.assertEqual(self.prompt_tokens(checkpoint, ""), 1)

    def test_eval_begins_a_text_as_generate_does(self):
        text = self.write("text.txt", "the man")
        for template, scored in (("", THE_MAN - 1), ("<|bos|>", THE_MAN)):
            checkpoint = self.convert(f"hf{len(template)}", template=template)
            result = self.prints_json("eval", checkpoint, "--data", text, "--threads", 1)
            self.assertEqual(result["tokens_scored"], scored)
            self.assertEqual(result["bos"], bool(template))

    def test_documents_of_shards_begin_and_end_as_the_tokenizer_says(self):
        self.write("text.txt", "the man")
        for template, expected in (("", THE_MAN + 1), ("<|bos|>", THE_MAN + 2)):
            self.llama(f"hf{len(template)}", template=template, tokenizer_config={"eos_token": "<|eos|>"})
            tokenizer = f"hf{len(template)}/tokenizer.json"
            done = self.prints_json("tokenize", "--input", "text.txt", "--tokenizer", tokenizer, "--out", f"data{len(template)}")
            self.assertEqual(done["tokens"], expected)

    # padded-vocabulary
    def test_rows_without_a_token_are_never_generated(self):
        n_tokens = N_PLAIN_TOKENS + 2
        checkpoint = self.convert(config={"vocab_size": 640})
        self.write("prompts.txt", "the man\nthe end\n")
        greedy = ("--max-tokens", 30)
        ways = [
            ("--prompt", "the man", *SAMPLED),
            ("--prompt", "the man", *greedy),
            ("--prompts", "prompts.txt", *SAMPLED),
            ("--prompts", "prompts.txt", *greedy),
            ("--prompt", "the man", "--draft", "all", *SAMPLED),
            ("--prompt", "the man", "--repetition-penalty", 0.5, "--top-k", 400, *SAMPLED),
        ]
        for way in ways:
            for seed in (1, 2):
                with self.subTest(way=way, seed=seed):
                    for completion in self.generate(checkpoint, *way, "--seed", seed)["completions"]:
                        self.assertLess(max(completion["ids"]), n_tokens)
                        ended = completion["finish_reason"] == "eos"
                        self.assertTrue(ended or len(completion["ids"]) == way[way.index("--max-tokens") + 1])

    def test_drafts_draw_the_same_ids_with_a_padded_vocabulary(self):
        padded = self.convert("padded", config={"vocab_size": 640})
        way = ("--prompt", "the man", "--max-tokens", 12)
        greedy = self.generate(padded, *way)["completions"][0]["ids"]
        sampled = self.generate(padded, *way, "--temperature", 1, "--seed", 4)["completions"][0]["ids"]
        self.assertEqual(greedy, self.generate(padded, *way, "--draft", "all")["completions"][0]["ids"])
        draft = self.generate(padded, *way, "--temperature", 1, "--seed", 4, "--draft", "all")
        self.assertEqual(sampled, draft["completions"][0]["ids"])

    def test_a_run_with_more_rows_than_bytes_generates(self):
        run = self.tiny_run("run", "--model.vocab_size=384")
        for seed in (1, 2, 3):
            done = self.generate(run, "--prompt", "the", *SAMPLED, "--seed", seed)
            self.assertLess(max(done["completions"][0]["ids"]), 257)

    def test_likelihoods_count_the_padding_as_hugging_face_does(self):
        # 40 rows of equal logits more: log(n) of a uniform model counts every row.
        text = self.write("text.txt", "the man")
        losses = []
        for rows in (N_PLAIN_TOKENS + 2, 640):
            checkpoint = self.convert(f"hf{rows}", config={"vocab_size": rows}, scale=1e-6, template="<|bos|>")
            losses.append(self.prints_json("eval", checkpoint, "--data", text, "--threads", 1)["perplexity"])
        self.assertAlmostEqual(losses[0] / (N_PLAIN_TOKENS + 2), 1, places=3)
        self.assertAlmostEqual(losses[1] / 640, 1, places=3)

    # sentencepiece-added-tokens
    def sentencepiece(self, name="hf", **tokenizer_config):
        """A LLaMA directory with a SentencePiece model and ChatML's two tokens after its pieces; returns their number."""
        if not (self.directory / "pieces" / "tokenizer.model").exists():
            self.write("pieces.txt", "the user said that the man was the king of the men.\n" * 200)
            self.succeeds("tokenize", "--input", "pieces.txt", "--tokenizer", "train:bpe:300", "--out", "pieces", "--threads", 1)
        n_pieces = self.json_of("pieces/dataset.json")["vocab_size"]
        start, end = n_pieces, n_pieces + 1
        self.llama(name, tokenizer=False, config={"vocab_size": n_pieces + 2, "bos_token_id": 1, "eos_token_id": end})
        (self.directory / name / "tokenizer.model").write_bytes((self.directory / "pieces" / "tokenizer.model").read_bytes())
        self.write(f"{name}/added_tokens.json", json.dumps({"<|im_start|>": start, "<|im_end|>": end}))
        config = {"tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": "<|im_end|>", "add_bos_token": True}
        config["added_tokens_decoder"] = {str(id): {"content": text, "special": True} for text, id in
                                          (("<|im_start|>", start), ("<|im_end|>", end))}
        self.write(f"{name}/tokenizer_config.json", json.dumps(config | tokenizer_config))
        self.succeeds("convert", name, f"{name}-checkpoint", "--threads", 1)
        return n_pieces

    def test_tokens_added_to_sentencepiece_are_one_id_each(self):
        n_pieces = self.sentencepiece()
        special = self.special_tokens("hf-checkpoint")
        self.assertEqual(special["eos"], [n_pieces + 1])
        self.assertEqual((special["bos"], special["adds_bos"]), (1, True))
        alone = self.prompt_tokens("hf-checkpoint", "a")
        self.assertEqual(self.prompt_tokens("hf-checkpoint", "<|im_start|>"), 2)
        self.assertEqual(self.prompt_tokens("hf-checkpoint", "a<|im_end|>"), alone + 1)
        self.assertEqual(self.prompt_tokens("hf-checkpoint", "<|im_start|><|im_end|><|im_start|>"), 4)

    def test_drawing_an_added_eos_ends_the_text(self):
        n_pieces = self.sentencepiece()
        reasons = set()
        for seed in range(1, 13):
            done = self.generate("hf-checkpoint", "--prompt", "user", "--temperature", 1.5, "--max-tokens", 60, "--seed", seed)
            ids, reason = done["completions"][0]["ids"], done["completions"][0]["finish_reason"]
            self.assertNotIn(n_pieces + 1, ids[:-1])
            self.assertEqual(reason == "eos", ids[-1] == n_pieces + 1)
            self.assertNotIn("im_end", done["completions"][0]["text"])
            reasons.add(reason)
        self.assertIn("eos", reasons)

    def test_an_export_of_added_tokens_imports_again(self):
        n_pieces = self.sentencepiece()
        self.succeeds("export", "hf-checkpoint", "out", "--to", "hf-llama", "--threads", 1)
        self.assertEqual(self.json_of("out/config.json")["eos_token_id"], n_pieces + 1)
        self.assertEqual(self.json_of("out/generation_config.json")["eos_token_id"], n_pieces + 1)
        config = self.json_of("out/tokenizer_config.json")
        self.assertEqual(config["eos_token"], "<|im_end|>")
        self.assertEqual(config["add_bos_token"], True)
        self.assertEqual(self.json_of("out/added_tokens.json")["<|im_start|>"], n_pieces)
        self.succeeds("convert", "out", "again", "--threads", 1)
        first, second = (self.prints_json("inspect", name)["tokenizer"] for name in ("hf-checkpoint", "again"))
        self.assertEqual(first, second)

    def test_added_tokens_without_a_row_are_left_out_with_a_warning(self):
        n_pieces = self.sentencepiece()
        config = self.json_of("hf/tokenizer_config.json")
        config["added_tokens_decoder"][str(n_pieces + 2)] = {"content": "[PAD]", "special": True}
        self.write("hf/tokenizer_config.json", json.dumps(config | {"pad_token": "[PAD]"}))
        done = self.succeeds("convert", "hf", "again", "--threads", 1)
        self.assertIn("'[PAD]'", done.stderr)
        self.assertEqual(len(self.special_tokens("again")["added"]), len(self.special_tokens("hf-checkpoint")["added"]))

    # several-eos
    def test_every_eos_of_every_file_ends_a_text(self):
        # Greedy decoding of this model soon reaches one of its bytes; the first run shows the byte.
        free = self.generate(self.convert("free", config={"eos_token_id": EOS}), "--prompt", "the man", "--max-tokens", 20)
        ids = free["completions"][0]["ids"]
        end = next(id for id in ids[3:] if id < 256 and id not in ids[:3])
        until = ids[: ids.index(end) + 1]
        names = {"eos_token": "<|eos|>"}
        cases = [
            ("first of config.json's list", {"config": {"eos_token_id": [end, EOS]}}),
            ("second of config.json's list", {"config": {"eos_token_id": [EOS, end]}}),
            ("generation_config.json's list", {"generation_config": {"eos_token_id": [EOS, end]}}),
            ("generation_config.json's number", {"generation_config": {"eos_token_id": end}, "tokenizer_config": names}),
            ("config.json beside others", {"config": {"eos_token_id": end}, "tokenizer_config": names,
                                           "generation_config": {"eos_token_id": EOS}}),
        ]
        self.write("prompts.txt", "the man\n")
        for number, (name, options) in enumerate(cases):
            with self.subTest(name):
                checkpoint = self.convert(f"hf{number}", **options)
                for way in (("--prompt", "the man"), ("--prompts", "prompts.txt"), ("--prompt", "the man", "--draft", "all")):
                    completion = self.generate(checkpoint, *way, "--max-tokens", 20)["completions"][0]
                    self.assertEqual(completion["finish_reason"], "eos")
                    self.assertEqual(completion["ids"], until)

    def test_exports_name_every_eos(self):
        checkpoint = self.convert(config={"eos_token_id": [EOS, 200]}, template="<|bos|>",
                                  tokenizer_config={"bos_token": "<|bos|>", "eos_token": "<|eos|>", "pad_token": "<|eos|>"})
        self.succeeds("export", checkpoint, "out", "--to", "hf-llama", "--threads", 1)
        for name in ("config.json", "generation_config.json"):
            config = self.json_of(f"out/{name}")
            self.assertEqual((config["bos_token_id"], config["eos_token_id"], config["pad_token_id"]), (BOS, [EOS, 200], EOS))
        names = {"bos_token": "<|bos|>", "eos_token": "<|eos|>", "pad_token": "<|eos|>"}
        self.assertEqual(self.json_of("out/special_tokens_map.json"), names)
        config = self.json_of("out/tokenizer_config.json")
        self.assertEqual({key: config[key] for key in names}, names)
        self.assertEqual(config["add_bos_token"], True)
        self.assertEqual(config["added_tokens_decoder"][str(EOS)]["content"], "<|eos|>")
        self.succeeds("convert", "out", "again", "--threads", 1)
        self.assertEqual(self.special_tokens("again"), self.special_tokens(checkpoint))

    def test_a_stop_text_that_is_a_special_token_ends_the_text_there(self):
        checkpoint = self.convert(specials=("<|bos|>", "<|eos|>", "<|eot|>"), scale=0.1)
        self.write("prompts.txt", "the\n")
        stopping = []
        for seed in range(1, 9):
            way = ("--prompt", "the", "--max-tokens", 120, "--temperature", 1, "--seed", seed)
            free = self.generate(checkpoint, *way)["completions"][0]
            stopped = self.generate(checkpoint, *way, "--stop", "<|eot|>")["completions"][0]
            if EOT not in free["ids"]:
                self.assertEqual(stopped, free)
                continue
            # The token is the last of the ids, as an EOS is, and no part of the text.
            self.assertEqual(stopped["ids"], free["ids"][: free["ids"].index(EOT) + 1])
            self.assertEqual(stopped["finish_reason"], "stop")
            self.assertTrue(free["text"].startswith(stopped["text"]))
            self.assertNotIn("eot", stopped["text"])
            stopping.append((seed, stopped))
        self.assertTrue(stopping)
        seed, stopped = stopping[0]
        for way in (("--prompts", "prompts.txt"), ("--prompt", "the", "--draft", "all")):
            way += ("--max-tokens", 120, "--temperature", 1, "--seed", seed, "--stop", "<|eot|>")
            self.assertEqual(self.generate(checkpoint, *way)["completions"][0], stopped)


if __name__ == "__main__":
    main()
