#!/usr/bin/env python3
"""Times the training step of one config in eager PyTorch, for scripts/bench_vs_pytorch.sh.

Reads a resolved config (`dsmoe bench --train --config FILE --print-config`) and prints one JSON
object. Parameters have the names and the order of dsmoe, so that the same seed draws the same weights.
"""

import argparse
import contextlib
import json
import math
import os
import resource
import sys
import time
import types

import numpy as np
import torch
import torch.distributed
import torch.nn.functional as F
import yaml
from torch import nn
from torch.utils.checkpoint import checkpoint

MASK = (1 << 64) - 1
PARTS = ["data", "forward", "loss", "backward", "optimizer", "other"]


def mix_bits(value):
    """SplitMix64 over numpy's uint64 arrays, which wrap around."""
    with np.errstate(over="ignore"):
        value = np.asarray(value, dtype=np.uint64) + np.uint64(0x9E3779B97F4A7C15)
        value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return value ^ (value >> np.uint64(31))


def derive_seed(seed, purpose):
    state = int(mix_bits(seed))
    for letter in purpose.encode():
        state = int(mix_bits(state ^ letter))
    return int(mix_bits(int(mix_bits(state))))


def bench_tokens(config, index):
    """The tokens that `dsmoe bench --train` makes for micro-batch `index`: [batch, seq + 1]."""
    batch, length = config.train.batch_size, config.data.seq_len or config.model.max_seq_len
    count = batch * (length + 1)
    numbers = mix_bits(np.arange(count, dtype=np.uint64) + np.uint64(index * count))
    tokens = (numbers >> np.uint64(33)) % np.uint64(config.model.vocab_size)
    return torch.from_numpy(tokens.astype(np.int64).reshape(batch, length + 1))


def activation(kind):
    return {"gelu": F.gelu, "gelu_tanh": lambda x: F.gelu(x, approximate="tanh")}[kind]


class Norm(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.kind, self.eps = model.norm, model.norm_eps
        self.weight = nn.Parameter(torch.ones(model.d_model))

    def forward(self, x):
        if self.kind == "rms_norm":
            return F.rms_norm(x, self.weight.shape, self.weight, self.eps)
        return F.layer_norm(x, self.weight.shape, self.weight, None, self.eps)


def linear(d_in, d_out):
    return nn.Linear(d_in, d_out, bias=False)


class Router(nn.Module):
    def __init__(self, d_model, n_experts, router, wide):
        super().__init__()
        self.wide = wide
        self.gated = router.kind == "swiglu"
        if self.gated:
            self.gate_proj = linear(d_model, router.d_hidden)
            self.up_proj = linear(d_model, router.d_hidden)
        self.out_proj = linear(router.d_hidden if self.gated else d_model, n_experts)

    def forward(self, x):
        """Logits and probabilities, [batch, seq, n_experts], float32."""
        with torch.autocast(x.device.type, enabled=False) if self.wide else contextlib.nullcontext():
            hidden = F.silu(self.gate_proj(x)) * self.up_proj(x) if self.gated else x
            logits = self.out_proj(hidden).float()
        return logits, F.softmax(logits, dim=-1)


class Ffn(nn.Module):
    def __init__(self, d_model, d_wide, kind):
        super().__init__()
        self.gated = kind == "swiglu"
        self.up_proj = linear(d_model, d_wide)
        if self.gated:
            self.gate_proj = linear(d_model, d_wide)
        else:
            self.activation = activation(kind)
        self.down_proj = linear(d_wide, d_model)

    def hidden(self, x):
        return F.silu(self.gate_proj(x)) * self.up_proj(x) if self.gated else self.activation(self.up_proj(x))

    def forward(self, x):
        return self.down_proj(self.hidden(x))

    def mix(self, x, probs):
        """Every expert, weighted: two wide products."""
        hidden = self.hidden(x)
        weighted = hidden.unflatten(-1, (probs.shape[-1], -1)) * probs.to(hidden.dtype).unsqueeze(-1)
        return self.down_proj(weighted.flatten(-2))


class DenseFfn(Ffn):
    def forward(self, x):
        return super().forward(x), None


class Moe(nn.Module):
    def __init__(self, d_model, moe, kind, wide):
        super().__init__()
        self.router = Router(d_model, moe.n_experts, moe.router, wide)
        self.experts = Ffn(d_model, moe.n_experts * moe.d_expert, kind)

    def forward(self, x):
        logits, probs = self.router(x)
        return self.experts.mix(x, probs), logits


def rotate(x, cos, sin):
    """Rotary positions; x [batch, heads, seq, head_dim], tables [seq, head_dim / 2]."""
    first, second = x.float().chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1).to(x.dtype)


def attend(q, k, v, gqa):
    group = q.shape[1] // k.shape[1]
    if group > 1 and gqa == "expand":
        k, v = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
    return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=group > 1 and gqa == "enable")


class Attention(nn.Module):
    """Dense attention, or a mixture of attention experts that share keys and values."""

    def __init__(self, model, moa, options):
        super().__init__()
        self.gqa, self.head_dim = options.gqa, model.attention.head_dim
        self.n_experts = model.moa.n_experts if moa else 0
        self.kv_heads = model.moa.heads_per_expert if moa else model.attention.n_kv_heads
        heads = self.n_experts * self.kv_heads if moa else model.attention.n_heads
        if moa:
            self.router = Router(model.d_model, self.n_experts, model.moa.router, options.routers == "float32")
        self.q_proj = linear(model.d_model, heads * self.head_dim)
        self.k_proj = linear(model.d_model, self.kv_heads * self.head_dim)
        self.v_proj = linear(model.d_model, self.kv_heads * self.head_dim)
        self.o_proj = linear(heads * self.head_dim, model.d_model)

    def split(self, y):
        return y.unflatten(-1, (-1, self.head_dim)).transpose(1, 2)  # [batch, heads, seq, head_dim]

    def forward(self, x, cos, sin):
        k, v = rotate(self.split(self.k_proj(x)), cos, sin), self.split(self.v_proj(x))
        if self.n_experts == 0:
            y = attend(rotate(self.split(self.q_proj(x)), cos, sin), k, v, self.gqa)
            return self.o_proj(y.transpose(1, 2).flatten(-2)), None
        logits, probs = self.router(x)
        q = self.q_proj(x).unflatten(-1, (self.n_experts, self.kv_heads, self.head_dim))
        # (expert, head) -> (head, expert): heads j of all experts become adjacent over key/value head j.
        q = q.permute(0, 3, 2, 1, 4).flatten(1, 2)
        y = attend(rotate(q, cos, sin), k, v, self.gqa)
        y = y.unflatten(1, (self.kv_heads, self.n_experts)).permute(0, 3, 2, 1, 4)
        weighted = y * probs.to(y.dtype)[..., None, None]  # [batch, seq, n_experts, kv_heads, head_dim]
        return self.o_proj(weighted.flatten(-3)), logits


class Block(nn.Module):
    def __init__(self, model, options):
        super().__init__()
        moa, moe = model.attention.kind == "moa", model.ffn.kind == "moe"
        self.halves = ("moa" if moa else "attention", "moe" if moe else "ffn")
        self.attention_norm = Norm(model)
        self.add_module(self.halves[0], Attention(model, moa, options))
        self.ffn_norm = Norm(model)
        kind = model.ffn.activation
        ffn = (Moe(model.d_model, model.moe, kind, options.routers == "float32") if moe
               else DenseFfn(model.d_model, model.ffn.d_ffn, kind))
        self.add_module(self.halves[1], ffn)

    def forward(self, x, cos, sin):
        attention, ffn = (getattr(self, name) for name in self.halves)
        y, moa_logits = attention(self.attention_norm(x), cos, sin)
        x = x + y
        y, moe_logits = ffn(self.ffn_norm(x))
        return x + y, moa_logits, moe_logits


class Transformer(nn.Module):
    def __init__(self, config, options):
        super().__init__()
        model = config.model
        self.checkpoint = config.train.checkpoint_activations != "none"
        self.embedding = nn.Parameter(torch.empty(model.vocab_size, model.d_model))
        self.blocks = [Block(model, options) for _ in range(model.n_layers)]
        for i, block in enumerate(self.blocks):
            self.add_module(f"blocks_{i}", block)
        self.final_norm = Norm(model)
        seq = config.data.seq_len or model.max_seq_len
        half = torch.arange(0, model.attention.head_dim, 2, dtype=torch.float64) / model.attention.head_dim
        angles = torch.arange(seq, dtype=torch.float64).unsqueeze(1) * model.rope_theta**-half
        self.register_buffer("cos", angles.cos().float())
        self.register_buffer("sin", angles.sin().float())

    def forward(self, tokens):
        x, moa, moe = F.embedding(tokens, self.embedding), [], []
        for block in self.blocks:
            if self.checkpoint:
                x, moa_logits, moe_logits = checkpoint(block, x, self.cos, self.sin, use_reentrant=False)
            else:
                x, moa_logits, moe_logits = block(x, self.cos, self.sin)
            moa.append(moa_logits)
            moe.append(moe_logits)
        return F.linear(self.final_norm(x), self.embedding), moa, moe


def mutual_information_loss(logits):
    """arXiv:2404.05567, equations 4 to 6, with the mean distribution detached."""
    log_probs = F.log_softmax(logits.flatten(0, 1), dim=-1)
    probs = log_probs.exp()
    mean = probs.detach().mean(0)
    return -((probs * log_probs).sum() - (probs * mean.clamp_min(1e-38).log()).sum()) / probs.shape[0]


def total_loss(output, targets, loss):
    logits, moa, moe = output
    total = F.cross_entropy(logits.float().flatten(0, 1), targets.flatten())
    for records, weight in ((moe, loss.moe_mi_weight), (moa, loss.moa_mi_weight)):
        terms = [mutual_information_loss(record) for record in records if record is not None]
        if terms and weight != 0:
            total = total + weight * sum(terms)
    return total


@torch.no_grad()
def init_weights(net, config):
    generator = torch.Generator().manual_seed(derive_seed(config.seed, "weights"))
    for name, parameter in net.named_parameters():
        if "norm" in name:
            parameter.fill_(1.0)
        else:
            is_output = name.endswith((".o_proj.weight", ".down_proj.weight"))
            std = 0.02 / math.sqrt(2 * config.model.n_layers) if is_output else 0.02
            parameter.normal_(0.0, std, generator=generator)


def learning_rate(config, step):
    schedule = config.train.schedule
    if step < schedule.warmup_steps:
        return schedule.peak * (step + 1) / schedule.warmup_steps
    if schedule.kind == "constant":
        return schedule.peak
    done = (step - schedule.warmup_steps) / max(config.train.steps - schedule.warmup_steps, 1)
    height = 0.5 * (1 + math.cos(math.pi * done))
    return schedule.peak * (schedule.final_ratio + (1 - schedule.final_ratio) * height)


def refuse_what_is_not_written(config):
    """Fails if the work differs: its time would not be comparable."""
    model, loss = config.model, config.train.loss
    if (model.dropout or model.bias or model.positions != "rotary" or not model.tie_embeddings
            or model.training_policy != "all" or loss.switch_weight or loss.z_weight or loss.mi_scope != "local"
            or model.moa.router.renormalise or model.moe.router.renormalise
            or config.train.schedule.kind == "wsd"):
        sys.exit("pytorch_step.py: expected rotary positions, a tied head, training_policy all, local mutual-information "
                 "losses and no bias or dropout; the comparison has no other model")


class Step:
    """A step of the whole job: of this process, or of those that torchrun started with it."""

    def __init__(self, config, options):
        self.config, self.steps, self.dtype = config, 0, config.train.compute_dtype
        self.is_shared = torch.distributed.is_initialized()
        self.rank, self.ranks = (torch.distributed.get_rank(), torch.distributed.get_world_size()) if self.is_shared else (0, 1)
        self.net = Transformer(config, options)
        init_weights(self.net, config)
        self.device = options.device
        self.net.to(self.device)
        optimizer = config.train.optimizer
        parameters = list(self.net.parameters())
        groups = [{"params": [p for p in parameters if p.dim() >= 2], "weight_decay": optimizer.weight_decay},
                  {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, betas=(optimizer.beta1, optimizer.beta2), eps=optimizer.eps,
                                           fused=True)
        self.loss = total_loss
        if self.is_shared:
            self.net = nn.parallel.DistributedDataParallel(self.net, gradient_as_bucket_view=True)
        if options.compile:
            self.net = torch.compile(self.net)
            self.loss = torch.compile(total_loss)

    def run(self):
        """One optimizer step: its loss, the wall seconds of its parts, processor seconds."""
        train = self.config.train
        seconds = dict.fromkeys(PARTS, 0.0)
        last = time.perf_counter()

        def lap(part):
            nonlocal last
            now = time.perf_counter()
            seconds[part] += now - last
            last = now

        cpu = time.process_time()
        total = 0.0
        own = train.accumulation // self.ranks
        first = self.steps * train.accumulation + self.rank * own
        batches = [bench_tokens(self.config, first + i).to(self.device) for i in range(own)]
        lap("data")
        for i, tokens in enumerate(batches):
            with self.net.no_sync() if self.is_shared and i + 1 < own else contextlib.nullcontext():
                with torch.autocast(self.device, torch.bfloat16, enabled=self.dtype == "bfloat16"):
                    output = self.net(tokens[:, :-1].contiguous())
                    lap("forward")
                    # DistributedDataParallel takes the mean over ranks.
                    loss = self.loss(output, tokens[:, 1:].contiguous(), train.loss) / own
                lap("loss")
                loss.backward()
                lap("backward")
            total += loss.item()
        if self.is_shared:
            shared = torch.tensor(total / self.ranks)
            torch.distributed.all_reduce(shared)
            total = shared.item()
        lap("other")
        nn.utils.clip_grad_norm_(self.net.parameters(), train.optimizer.clip_norm or math.inf, foreach=True)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.config, self.steps)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.device == "cuda":
            torch.cuda.synchronize()
        lap("optimizer")
        self.steps += 1
        return total, seconds, time.process_time() - cpu


def as_namespace(value):
    if isinstance(value, dict):
        return types.SimpleNamespace(**{key: as_namespace(item) for key, item in value.items()})
    # PyYAML reads a number without a point, 1e-08, as text.
    with contextlib.suppress(ValueError, TypeError):
        return float(value) if isinstance(value, str) else value
    return value


def resident_bytes():
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * resource.getpagesize()


def load_lazy_parts():
    """Runs one step of a tiny model, so that the first-use imports of torch are not counted in a step."""
    net = linear(8, 8)
    optimizer = torch.optim.AdamW(net.parameters(), fused=True)
    with torch.autocast("cpu", torch.bfloat16):
        checkpoint(net, torch.ones(2, 8), use_reentrant=False).float().sum().backward()
    nn.utils.clip_grad_norm_(net.parameters(), 1.0, foreach=True)
    optimizer.step()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--config", type=argparse.FileType(), default=sys.stdin, help="(default: standard input)")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--warmup", type=int, default=3)
    parser.add_argument("--repetitions", type=int, default=10)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--routers", choices=["autocast", "float32"], default="autocast")
    parser.add_argument("--gqa", choices=["expand", "enable"], default="enable")
    options = parser.parse_args()
    config = as_namespace(yaml.safe_load(options.config))
    refuse_what_is_not_written(config)
    torch.set_num_threads(options.threads)
    load_lazy_parts()
    if "RANK" in os.environ:
        torch.distributed.init_process_group("gloo")
    before = resident_bytes()
    step = Step(config, options)
    losses, times, cpu = [], [], []
    for i in range(options.warmup + options.repetitions):
        loss, seconds, cpu_seconds = step.run()
        losses.append(loss)
        if i >= options.warmup:
            times.append(seconds)
            cpu.append(cpu_seconds)
    totals = sorted(sum(seconds.values()) for seconds in times)
    parts = {part: float(np.median([seconds[part] for seconds in times])) for part in PARTS}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    if options.device == "cuda":
        peak, before = torch.cuda.max_memory_allocated(), 0
    if step.is_shared:
        torch.distributed.destroy_process_group()
    if step.rank > 0:
        return
    print(json.dumps({"step_seconds": float(np.median(totals)), "step_seconds_min": totals[0],
                      "step_seconds_max": totals[-1], "cpu_seconds": float(np.median(cpu)), "parts": parts, "losses": losses,
                      "peak_memory_bytes": peak - before, "torch": torch.__version__}))


if __name__ == "__main__":
    main()
