#!/usr/bin/env python3
"""Makes the golden files of this folder: small random models of transformers, and the logits that it computes.

Usage: make_transformers.py [FOLDER]    (default: the folder of this script)
Needs torch==2.11.0, transformers==5.23.0, safetensors==0.8.0 and numpy; not part of the set-up. Weights are rounded to
bfloat16 to keep the files small; the logits are computed in float32 from the rounded weights.
"""

import pathlib
import sys

import torch
import transformers
from safetensors.torch import save_file

PINNED = {"torch": "2.11.0", "transformers": "5.23.0"}


def jetmoe(activation="silu", tied=True, intermediate_size=37):
    def make(experts_used):
        config = transformers.JetMoeConfig(
            vocab_size=99, hidden_size=32, num_hidden_layers=2, num_key_value_heads=2, kv_channels=8,
            intermediate_size=intermediate_size, num_local_experts=4, num_experts_per_tok=experts_used,
            max_position_embeddings=24, tie_word_embeddings=tied, rms_norm_eps=1e-6, activation_function=activation,
            rope_parameters={"rope_type": "default", "rope_theta": 500.0}, attn_implementation="eager")
        return transformers.JetMoeForCausalLM(config)
    return make


def olmoe(experts_used):
    config = transformers.OlmoeConfig(
        vocab_size=61, hidden_size=24, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        intermediate_size=7, num_experts=5, num_experts_per_tok=experts_used, norm_topk_prob=False,
        max_position_embeddings=24, tie_word_embeddings=False, rms_norm_eps=1e-5, pad_token_id=None, eos_token_id=None,
        rope_parameters={"rope_type": "default", "rope_theta": 500.0}, attn_implementation="eager",
        experts_implementation="eager")
    return transformers.OlmoeForCausalLM(config)


def randomise(model, factor):
    """factor: what an expert's first half is of its second one; None: drawn for itself."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name:
                parameter.copy_(1 + 0.3 * torch.randn(parameter.shape, generator=generator))
            else:
                parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
            parameter.copy_(parameter.to(torch.bfloat16).float())
            if factor is not None and name.endswith("mlp.input_linear.weight"):
                half = parameter.shape[1] // 2
                parameter[:, :half] = factor * parameter[:, half:]


def write(folder, make, experts_used, factor=None):
    model = make(experts_used[0]).eval().float()
    randomise(model, factor)
    exact_in_bfloat16 = all(torch.equal(p, p.to(torch.bfloat16).float()) for p in model.parameters())
    model.to(torch.bfloat16 if exact_in_bfloat16 else torch.float32).save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    vocabulary = model.config.vocab_size
    tokens = torch.randint(vocabulary, (2, 9), generator=torch.Generator().manual_seed(11))
    golden = {"tokens": tokens}
    weights = {name: tensor.float() for name, tensor in model.state_dict().items()}
    for used in experts_used:
        again = make(used).eval().float()
        again.load_state_dict(weights)
        with torch.no_grad():
            golden[f"logits_top_{used}"] = again(tokens).logits.contiguous()
    save_file(golden, str(folder / "golden.safetensors"))


def main():
    for module in (torch, transformers):
        wanted = PINNED[module.__name__]
        assert module.__version__.split("+")[0] == wanted, f"{module.__name__}: expected {wanted}, got {module.__version__}"
    folder = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else __file__).resolve()
    folder = folder if folder.is_dir() else folder.parent
    write(folder / "jetmoe", jetmoe(), [2, 4])
    # W_out (act(c x) x): SiLU and quick-GELU of one product x by the sigmoid, its squared ReLU by the ReLU.
    write(folder / "jetmoe_silu", jetmoe("sigmoid", tied=False, intermediate_size=5), [2, 4], factor=1.0)
    write(folder / "jetmoe_quick_gelu", jetmoe("sigmoid", intermediate_size=5), [2, 4], factor=1.702)
    write(folder / "jetmoe_relu_squared", jetmoe("relu", intermediate_size=5), [2, 4], factor=1.0)
    write(folder / "olmoe", olmoe, [2, 5])


if __name__ == "__main__":
    main()
