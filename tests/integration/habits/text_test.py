#!/usr/bin/env python3
"""Tests user texts: arguments, prompts, choices and text files are read byte for byte, equally by every command.

Usage: text_test.py PATH/TO/dsmoe
"""

import gzip
import json
import pathlib
import shutil
import tempfile

from support import HabitsTest, main

GENERATE = ("--max-tokens", 5, "--threads", 1)


class TextTest(HabitsTest):
    @classmethod
    def setUpClass(cls):
        """One run for all tests; no test changes it."""
        maker = cls()
        maker.directory = pathlib.Path(tempfile.mkdtemp(prefix="dsmoe-habits-text-"))
        cls.addClassCleanup(shutil.rmtree, maker.directory, ignore_errors=True)
        cls.model = maker.tiny_run("run", "--train.steps=60")

    def text_of(self, *arguments, **options):
        done = self.prints_json("generate", self.model, "--max-tokens", 40, "--threads", 1, *arguments, **options)
        return done["completions"][0]["text"]

    def documents_of(self, name, data, *options):
        """Documents and bytes that tokenize counts in a file of this name."""
        self.write(name, data)
        done = self.prints_json("tokenize", "--input", name, "--out", f"{name}-{len(options)}-out", "--threads", 1, *options)
        return done["documents"], done["bytes"]

    # Arguments.

    def test_a_stop_text_is_the_argument_byte_for_byte(self):
        free = self.text_of("--prompt", "line")
        self.assertGreater(len(free), 12)
        word = free[6:9]
        self.assertEqual(self.text_of("--prompt", "line", "--stop", word), free[:free.index(word)])
        for stop in (f"[{word}]", f"[x,{word}]", f"{{{word}}}", f"[{word},", "\\n", "%", "++", "{}", "[]"):
            with self.subTest(stop=stop):
                expected = free[:free.index(stop)] if stop in free else free
                self.assertEqual(self.text_of("--prompt", "line", f"--stop={stop}"), expected)
                # Of several, in any place; eval is a command elsewhere.
                self.assertEqual(self.text_of("--prompt", "line", "--stop", "zzzz", stop, "eval"), expected)

    def test_a_prompt_is_the_argument_byte_for_byte(self):
        both = ("", "-5", "[x]", "a=b", "\x1f[")
        spaced = ("--json=", "--stop", "[a,b]", "{}", "++", "eval")
        joined = ("%", "\\n", "~", "$HOME", "--stop=[a]")
        for arguments, prompt in [(("--prompt", text), text) for text in both + spaced] + [((f"--prompt={text}",), text) for text in both + joined]:
            with self.subTest(arguments=arguments):
                done = self.prints_json("generate", self.model, *arguments, *GENERATE)
                self.assertEqual(done["prompt_tokens"], 1 + len(prompt))  # BOS and bytes

    def test_numbers_are_decimal(self):
        drawn = [self.text_of("--prompt", "line", "--temperature", "0.9", "--seed", seed) for seed in ("010", "10", "8", "0x0A", "+10")]
        self.assertEqual(drawn[0], drawn[1])
        self.assertEqual(drawn[3:], [drawn[1]] * 2)
        self.assertNotEqual(drawn[0], drawn[2])
        for option, value in (("--n", "true"), ("--n", "[2]"), ("--temperature", "nan"), ("--temperature", "inf"), ("--seed", "-1")):
            self.refused("generate", self.model, "--prompt", "a", option, value, says=[option, value])

    def test_files_may_have_brackets_in_their_names(self):
        self.write("[draft]", "one two")
        self.write("[b,c]", "three")
        done = self.prints_json("tokenize", "--input", "[draft]", "[b,c]", "--out", "[out]", "--threads", 1)
        self.assertEqual((done["documents"], done["bytes"]), (2, 12))
        self.assertTrue((self.directory / "[out]" / "dataset.json").exists())
        self.succeeds("report", self.model, "--samples", "[draft]", "--out", "[page].html")
        self.assertIn("one two", (self.directory / "[page].html").read_text())
        done = self.prints_json("eval", self.model, "--data", "[draft]", "--data", "[b,c]", "--threads", 1)
        self.assertEqual(done["bytes"], 12)
        self.write("tiny.yaml", "run_dir: a\ndata: {train: '[out]'}\nmodel: {max_seq_len: 8}\n")
        printed = self.succeeds("train", "tiny.yaml", "--run_dir=[run,1]", "--print-config").stdout
        self.assertIn('run_dir: "[run,1]"', printed)
        self.assertIn('train: ["[out]"]', printed)

    # Files of text.

    def test_json_lines_are_recognised_by_file_ending_and_by_a_key(self):
        lines = '{"text":"line one"}\n{"text":"line two"}\n'
        bodies = lines.replace("text", "body")
        for name in ("corpus.json", "CORPUS.JSONL", "corpus.ndjson", "Corpus.Json"):
            self.assertEqual(self.documents_of(name, lines), (2, 16))
            self.assertEqual(self.documents_of(name, bodies, "--field", "body"), (2, 16))
        self.assertEqual(self.documents_of("c.jsonl.GZ", gzip.compress(lines.encode())), (2, 16))
        self.assertEqual(self.documents_of("corpus.txt", bodies, "--field", "body"), (2, 16))
        self.assertEqual(self.documents_of("corpus", bodies, "--field=body"), (2, 16))
        self.assertEqual(self.documents_of("plain.txt", "plain", "--field", "body"), (1, 5))

    def test_json_is_never_silently_read_as_text(self):
        self.write("corpus.txt", '{"text":"line one"}\n')
        done = self.succeeds("tokenize", "--input", "corpus.txt", "--out", "out", "--json")
        self.assertEqual(json.loads(done.stdout)["bytes"], 20)
        self.assertRegex(done.stderr, r"corpus\.txt: .*JSON.*--field")
        self.write("array.json", '[{"text":"line one"}]\n')
        self.write("object.json", '{\n  "text": "line one"\n}\n')
        for name in ("array.json", "object.json"):
            for command in (("tokenize", "--out", "never", "--input"), ("eval", self.model, "--data"), ("eval", self.model, "--choices"),
                            ("generate", self.model, "--prompts")):
                self.refused(*command, name, says=[name, "one JSON object a line", "jq"])
        self.assertFalse((self.directory / "never").exists())

    def test_line_ends_and_byte_order_marks(self):
        mark = b"\xef\xbb\xbf"
        lines = b'{"text":"line one"}\r\n\r\n{"text":"line two"}\r\n'
        self.assertEqual(self.documents_of("a.jsonl", mark + lines), (2, 16))
        # Text for training keeps every byte but the mark and the ends of separators' lines.
        self.assertEqual(self.documents_of("a.txt", mark + b"one\r\n<|endoftext|>\r\ntwo\r\n"), (2, 10))
        self.refused("tokenize", "--input", self.write("b.txt", "ab".encode("utf-16")), "--out", "never", says=["UTF-16", "iconv"])

    def test_every_command_reads_the_same_text_from_any_form(self):
        texts = ["the king said no. " * 12, "no one heard the king. " * 12]
        self.write("plain.txt", "<|endoftext|>".join(texts))
        self.write("marked.txt", b"\xef\xbb\xbf" + "##".join(texts).encode())
        lines = "".join(json.dumps({"body": text}) + "\r\n\r\n" for text in texts)
        self.write("lines.json", lines)
        self.write("lines.txt.gz", gzip.compress(lines.encode()))
        forms = [("plain.txt",), ("marked.txt", "--separator", "##"), ("lines.json", "--field", "body"), ("lines.txt.gz", "--field=body")]
        self.llama()
        self.succeeds("convert", "hf", "dense", "--threads", 1)
        commands = {
            "eval": (("eval", self.model, "--data"), lambda j: (j["nats_total"], j["bytes"])),
            "curve": (("curve", self.model, "--policies", "top_k=1", "--data"), lambda j: j["points"][0]["nats_total"]),
            "check": (("check", self.model, "--policy", "top_k=1", "--data"), lambda j: (j["max_abs_logit"], j["bfloat16_agreement"])),
            "budget": (("budget", self.model, "--candidates", "top_k=1", "--active-parameters", 1e6, "--data"), lambda j: j["perplexity_all"]),
            "convert": (("convert", "dense", "copy", "--text"), lambda j: j["source_perplexity"]),
        }
        for name, (command, figure) in commands.items():
            figures = []
            for form in forms:
                shutil.rmtree(self.directory / "copy", ignore_errors=True)
                figures.append(figure(self.prints_json(*command, *form, "--threads", 1)))
            self.assertEqual(figures, figures[:1] * 4, name)

    def test_a_dash_is_standard_input_once_in_a_line(self):
        line = ["--policy", "all", "--threads", 1]
        self.write("valid.txt", "line one two three\n" * 9)
        text = (self.directory / "valid.txt").read_bytes()
        expected = self.prints_json("eval", self.model, "--data", "valid.txt", *line)
        for content in (text, gzip.compress(text)):
            got = self.prints_json("eval", self.model, "--data", "-", *line, input=content, text=False)
            self.assertEqual((got["nats_total"], got["bytes"]), (expected["nats_total"], len(text)))
        for tokenizer in ("bytes", "chars"):  # chars reads the text twice
            for name, given in (("valid.txt", None), ("-", text)):
                self.succeeds("tokenize", "--input", name, "--tokenizer", tokenizer, "--out", f"{tokenizer}{name}", "--threads", 1,
                              input=given, text=False)
            made = [{path.name: path.read_bytes() for path in (self.directory / f"{tokenizer}{name}").iterdir()}
                    for name in ("valid.txt", "-")]
            self.assertEqual(*made)
            self.assertGreater(len(made[0]), 1)
        self.assertEqual(self.text_of("--prompt-file", "-", input="line"), self.text_of("--prompt", "line"))
        self.refused("eval", self.model, "--data", "-", "--data", "-", says=["expected '-' once"])
        self.refused("eval", self.model, "--data", "-", input="", says=["standard input: expected text, got an empty file"])
        self.refused("tokenize", "--input", "-", "--out", "bad", input="a\nb\xff".encode("latin-1"), text=False,
                     says=["standard input: expected UTF-8"])

    def test_validation_text_of_a_config_may_be_a_file_of_json_lines(self):
        self.write("valid.json", "".join(json.dumps({"body": "the king said no. " * 5}) + "\n" for _ in range(2)))
        self.write("valid.txt", "##".join(["the king said no. " * 5] * 2))
        common = ("--train.validate_every=1", "--train.steps=1", "--train.schedule.warmup_steps=0", "--json")
        losses = []
        for name, key in (("valid.json", "--data.field=body"), ("valid.txt", "--data.separator=##")):
            self.tiny_run(name[6:], "--train.steps=1", "--train.schedule.warmup_steps=0")
            done = self.succeeds("train", "tiny.yaml", f"--run_dir=v-{name}", f"--data.train={name[6:]}-data", f"--data.validation={name}", key, *common)
            losses.append(json.loads(done.stdout)["validation_loss"])
        self.assertEqual(losses[0], losses[1])
        self.assertGreater(losses[0], 0)

    # Prompts.

    def prompts(self, *options, code, name="p.jsonl"):
        done = self.run_dsmoe("generate", self.model, "--prompts", name, *GENERATE, *options)
        self.assertEqual(done.returncode, code, done.stderr)
        return done

    def test_a_prompt_that_cannot_be_run_is_named_and_the_others_finish(self):
        prompts = ["the", "a" * 100, "king"]
        self.write("p.jsonl", "".join(json.dumps({"prompt": prompt}) + "\n" for prompt in prompts) + '{"prompt": 3}\n')
        alone = [self.prints_json("generate", self.model, "--prompt", prompt, *GENERATE)["completions"][0] for prompt in ("the", "king")]
        done = self.prompts("--json", code=1)
        result = json.loads(done.stdout)
        self.assertEqual(result["failed"], 2)
        self.assertEqual([result["completions"][0], result["completions"][2]], alone)
        self.assertEqual([list(result["completions"][i]) for i in (1, 3)], [["error"]] * 2)
        self.assertRegex(result["completions"][1]["error"], r"^p\.jsonl:2: .*101 tokens.* 64")
        self.assertRegex(result["completions"][3]["error"], r"^p\.jsonl:4: 'prompt': expected a text")
        self.assertRegex(done.stderr, r"dsmoe: p\.jsonl: 2 of 4 prompts could not be run; the first is p\.jsonl:2: ")
        self.assertIn("p.jsonl:4: ", done.stderr)

        lines = [json.loads(line) for line in self.prompts("--json-lines", "--n", 2, code=1).stdout.splitlines()]
        errors = {line["request"]: line["error"][:9] for line in lines[:-1] if "error" in line}
        self.assertEqual(errors, {2: "p.jsonl:2", 3: "p.jsonl:2", 6: "p.jsonl:4", 7: "p.jsonl:4"})
        self.assertEqual(sorted(line["request"] for line in lines[:-1]), list(range(8)))
        self.assertEqual(lines[-1]["failed"], 2)

        shown = self.prompts(code=1).stdout
        self.assertRegex(shown, r"^--- 1\nthe[\s\S]*--- 2\nfailed: p\.jsonl:2: .*\n--- 3\nking")

        self.write("p.jsonl", '{"prompt": 3}\n')
        self.assertEqual(self.prompts("--json", code=2).stdout, "")

    def test_prompt_files_of_any_form_hold_the_same_prompts(self):
        mark = b"\xef\xbb\xbf"
        lines = b'{"prompt":"the"}\r\n\r\n{"prompt":"king"}\r\n'
        forms = {"lf.txt": b"the\nking\n", "crlf.txt": mark + b"the\r\n\r\n \r\nking\r\n", "p.jsonl": lines, "P.JSONL": mark + lines, "p.json": lines,
                 "p.txt.gz": gzip.compress(b"the\nking"), "bare": lines.replace(b"prompt", b"text")}
        results = {}
        for name, data in forms.items():
            self.write(name, data)
            options = ("--field", "text") if name == "bare" else ()
            results[name] = json.loads(self.prompts("--json", *options, name=name, code=0).stdout)["completions"]
        self.assertEqual(len(results["lf.txt"]), 2)
        for name, completions in results.items():
            self.assertEqual(completions, results["lf.txt"], name)

    # Choices.

    def test_a_choice_that_cannot_be_scored_is_named_and_left_out(self):
        good = [{"context": "the", "choices": [" king", " xqz"], "answer": 0, "group": "g"}, {"good": "the king", "bad": "king the"}]
        bad = [{"context": "x", "choices": ["a" * 500, "b"], "answer": 0, "group": "g"}, {"context": "x", "choices": ["a"], "answer": 0}]
        self.write("good.jsonl", "".join(json.dumps(item) + "\n" for item in good))
        self.write("q.jsonl", b"\xef\xbb\xbf" + "".join(json.dumps(item) + "\r\n\r\n" for item in (good[0], bad[0], bad[1], good[1])).encode())
        expected = self.prints_json("eval", self.model, "--choices", "good.jsonl", "--out", "good.out", "--threads", 1)
        self.assertEqual((expected["failed"], expected["errors"]), (0, []))
        done = self.run_dsmoe("eval", self.model, "--choices", "q.jsonl", "--out", "q.out", "--threads", 1, "--json")
        self.assertEqual(done.returncode, 1)
        result = json.loads(done.stdout)
        self.assertEqual(result["failed"], 2)
        self.assertRegex(result["errors"][0], r"^q\.jsonl:3: .*500")
        self.assertRegex(result["errors"][1], r"^q\.jsonl:5: ")
        self.assertRegex(done.stderr, r"dsmoe: q\.jsonl: 2 of 4 items could not be scored; the first is q\.jsonl:3: ")
        for key in ("accuracy", "accuracy_normalised", "items", "per_group", "complete"):
            self.assertEqual(result[key], expected[key], key)
        scores = [json.loads(line) for line in (self.directory / "q.out").read_text().splitlines()]
        self.assertEqual([scores[1], scores[2]], [{"error": error} for error in result["errors"]])
        self.assertEqual([scores[0], scores[3]], [json.loads(line) for line in (self.directory / "good.out").read_text().splitlines()])
        self.write("bad.jsonl", json.dumps(bad[0]))
        self.refused("eval", self.model, "--choices", "bad.jsonl", "--threads", 1, says=["bad.jsonl:1", "500"])

    # The one policy that depends on the batch.

    def test_options_with_batch_independent_texts_refuse_threshold_top_k(self):
        self.write("p.txt", "the\nking\n")
        for policy in ("threshold_top_k=0.8", "moe:threshold_top_k=0.8;moa:all"):
            self.refused("generate", self.model, "--prompts", "p.txt", "--policy", policy, says=["--prompts", "threshold_top_k", "leave --prompts out"])
            self.refused("generate", self.model, "--prompt", "a", "--draft", "top_k=1", "--policy", policy, says=["--draft", "threshold_top_k"])
        plain = self.prints_json("generate", self.model, "--prompt", "the", *GENERATE)
        drafted = self.prints_json("generate", self.model, "--prompt", "the", "--draft", "threshold_top_k=0.8", *GENERATE)
        self.assertEqual(drafted["completions"], plain["completions"])
        self.assertFalse(plain["depends_on_batch"])

    def test_numbers_that_depend_on_the_batch_are_marked(self):
        self.write("t.txt", "the king said no. " * 40)
        self.write("q.jsonl", '{"good": "the king", "bad": "king the"}\n')
        for policy, depends in (("threshold_top_k=0.8", True), ("threshold=0.8", False)):
            common = ("--policy", policy, "--threads", 1)
            for command in (("eval", self.model, "--data", "t.txt"), ("eval", self.model, "--choices", "q.jsonl")):
                done = self.prints_json(*command, "--batch", 3, *common)
                self.assertEqual((done["depends_on_batch"], done["batch"]), (depends, 3))
                self.assertEqual("depend on --batch 3" in self.succeeds(*command, "--batch", 3, *common).stdout, depends)
            points = self.prints_json("curve", self.model, "--data", "t.txt", "--policies", policy, "all")["points"]
            self.assertEqual([point["depends_on_batch"] for point in points], [depends, False])
            against = self.prints_json("eval", self.model, "--data", "t.txt", "--policy", "all", "--against-policy", policy)
            self.assertEqual((against["depends_on_batch"], against["against"]["depends_on_batch"]), (False, depends))


if __name__ == "__main__":
    main()
