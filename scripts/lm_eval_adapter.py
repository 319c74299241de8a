#!/usr/bin/env python3
"""Runs tasks of the public evaluation harness (Python package lm-eval, 0.4.13) on a dsmoe checkpoint; `dsmoe` scores them.

Opt-in: needs a separate Python environment, without PyTorch. Run it from the root of the repository; this is a small task:

    python3 -m venv .venv-lm-eval
    .venv-lm-eval/bin/pip install -r scripts/requirements-lm-eval.txt
    .venv-lm-eval/bin/python scripts/lm_eval_adapter.py run --model dsmoe \\
        --model_args checkpoint=runs/quickstart policy=threshold=0.48 --batch_size 8 \\
        --include_path tests/integration/lm_eval --tasks dsmoe_questions

Model arguments: checkpoint; binary (default build/dsmoe); policy, execution, dtype and threads as in `dsmoe eval
--help`; --device too. One run of the program answers all requests of a kind; a perplexity needs one run per text.
Limits: no chat templates; the last window of a text longer than the context has only its own tokens as context; a
tokenizer that adds no BOS leaves the first token of a text unscored; a prompt for generation must be shorter than the
context.
"""

import itertools
import json
import logging
import pathlib
import subprocess
import tempfile

LOG = logging.getLogger("dsmoe")
MODEL_OPTIONS = ("policy", "execution", "device", "dtype", "threads")


class Dsmoe:
    """The program, bound to a checkpoint."""

    def __init__(self, checkpoint, binary="build/dsmoe", batch_size=8, **options):
        unknown = sorted(set(options) - set(MODEL_OPTIONS))
        if unknown:
            raise ValueError(f"model_args: expected checkpoint, binary, {', '.join(MODEL_OPTIONS)}, got {', '.join(unknown)}")
        if not str(batch_size).isdigit():
            raise ValueError(f"batch_size: expected a whole number, got {batch_size}")
        self._checkpoint = str(checkpoint)
        self._binary = str(binary)
        self._batch = str(batch_size)
        self._options = [text for name, value in options.items() for text in ("--" + name, str(value))]

    def _run(self, command, *arguments):
        line = [self._binary, command, self._checkpoint, *self._options, *map(str, arguments)]
        done = subprocess.run(line, stdout=subprocess.PIPE, text=True, encoding="utf-8")
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(line)}: exit code {done.returncode}")
        return done.stdout

    def score(self, pairs):
        """Maps (context, continuation) pairs to (log-likelihood in nats, is greedy), in order."""
        items, sizes = choice_items(pairs)
        with tempfile.TemporaryDirectory() as directory:
            asked, answered = pathlib.Path(directory, "items.jsonl"), pathlib.Path(directory, "scores.jsonl")
            write_lines(asked, items)
            self._run("eval", "--choices", asked, "--out", answered, "--batch", self._batch, "--json")
            return read_scores(answered.read_text(encoding="utf-8").splitlines(), sizes)

    def score_text(self, text):
        """Returns the log-likelihood in nats of a whole text."""
        with tempfile.TemporaryDirectory() as directory:
            data = pathlib.Path(directory, "text.jsonl")
            write_lines(data, [{"text": text}])
            result = json.loads(self._run("eval", "--data", data, "--batch", self._batch, "--json"))
        if result["tokens_scored"] > result["window"]:
            LOG.warning("a text of %d tokens is scored in windows of %d; unlike the harness's own, the last of them has no "
                        "more context than its own tokens", result["tokens_scored"], result["window"])
        return -result["nats_total"]

    def complete(self, prompts):
        """Maps prompts in the format of `dsmoe generate --prompts` to the generated texts."""
        with tempfile.TemporaryDirectory() as directory:
            asked = pathlib.Path(directory, "prompts.jsonl")
            write_lines(asked, prompts)
            result = json.loads(self._run("generate", "--prompts", asked, "--json"))
        return [completion["text"] for completion in result["completions"]]


def write_lines(path, objects):
    path.write_text("".join(json.dumps(item) + "\n" for item in objects), encoding="utf-8")


def choice_items(pairs):
    """Neighbours of one context become one item; also how many choices of each were asked for.

    `eval --choices` takes two choices or more: one alone is asked for twice, the answer plays no part.
    """
    items, sizes = [], []
    for context, group in itertools.groupby(pairs, key=lambda pair: pair[0]):
        choices = [continuation for _, continuation in group]
        sizes.append(len(choices))
        items.append({"context": context, "choices": choices * (2 if len(choices) == 1 else 1), "answer": 0})
    return items, sizes


def read_scores(lines, sizes):
    scores = []
    for line, size in zip(lines, sizes, strict=True):
        item = json.loads(line)
        scores += list(zip(item["log_likelihoods"], item["greedy"], strict=True))[:size]
    return scores


def prompt_of(context, arguments):
    """A request to generate, with the harness's names for the options, as a line for `generate --prompts`."""
    arguments = dict(arguments)
    stop = arguments.pop("until", None) or []
    max_tokens = next((arguments.pop(name) for name in ("max_gen_toks", "max_new_tokens", "max_tokens") if name in arguments),
                      256)
    draws = arguments.pop("do_sample", arguments.get("temperature", 0) > 0)
    prompt = {"prompt": context, "max_tokens": max_tokens, "stop": [stop] if isinstance(stop, str) else list(stop)}
    temperature = arguments.pop("temperature", 1.0)
    prompt["temperature"] = float(temperature) if draws else 0.0
    for name in ("top_k", "top_p", "min_p", "repetition_penalty", "seed"):
        if name in arguments:
            prompt[name] = arguments.pop(name)
    if arguments:
        raise ValueError(f"generation_kwargs: {', '.join(sorted(arguments))}: no option of dsmoe generate")
    return prompt


def make_model_class():
    """Makes the class that the harness calls; made in a function so that the rest can be imported without the package."""
    from lm_eval.api.model import LM

    class DsmoeModel(LM):
        def __init__(self, checkpoint, max_batch_size=None, device=None, **options):
            super().__init__()
            del max_batch_size  # of the harness's "auto", which Dsmoe refuses
            if device not in (None, "cuda:0"):  # the harness's default where none is given
                options["device"] = device
            self._dsmoe = Dsmoe(checkpoint, **options)

        def _cached(self, kind, requests, results):
            for request, result in zip(requests, results, strict=True):
                self.cache_hook.add_partial(kind, request.args, result)
            return results

        def loglikelihood(self, requests):
            return self._cached("loglikelihood", requests, self._dsmoe.score([request.args for request in requests]))

        def loglikelihood_rolling(self, requests):
            texts = [request.args[0] for request in requests]
            return self._cached("loglikelihood_rolling", requests, [self._dsmoe.score_text(text) for text in texts])

        def generate_until(self, requests):
            prompts = [prompt_of(*request.args) for request in requests]
            return self._cached("generate_until", requests, self._dsmoe.complete(prompts))

    return DsmoeModel


def main():
    from lm_eval.__main__ import cli_evaluate
    from lm_eval.api.registry import register_model

    register_model("dsmoe")(make_model_class())
    cli_evaluate()


if __name__ == "__main__":
    main()
