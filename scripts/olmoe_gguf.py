"""Writes a GGUF file of random weights in the shape of configs/bench/olmoe.yaml, for llama-bench.

Usage: olmoe_gguf.py GGUF_PY_FOLDER bfloat16|q8_0 TOP_K OUT.gguf"""
import sys

import numpy as np

sys.path.insert(0, sys.argv[1])
import gguf  # noqa: E402

N_LAYERS, D_MODEL, N_HEADS, N_EXPERTS, D_EXPERT, VOCAB, CONTEXT = 12, 1024, 16, 32, 512, 32000, 4096
TYPES = {
    "bfloat16": (gguf.GGMLQuantizationType.BF16, gguf.LlamaFileType.MOSTLY_BF16),
    "q8_0": (gguf.GGMLQuantizationType.Q8_0, gguf.LlamaFileType.MOSTLY_Q8_0),
}


def main(dtype: str, top_k: int, path: str) -> None:
    rng = np.random.default_rng(0)
    tensor_type, file_type = TYPES[dtype]

    def normal(*shape: int, std: float) -> np.ndarray:
        return rng.standard_normal(shape, dtype=np.float32) * np.float32(std)

    writer = gguf.GGUFWriter(path, "olmoe")

    def add(name: str, weight: np.ndarray) -> None:
        writer.add_tensor(name, gguf.quants.quantize(weight, tensor_type), raw_dtype=tensor_type)

    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(D_MODEL)
    writer.add_block_count(N_LAYERS)
    writer.add_feed_forward_length(D_EXPERT)
    writer.add_head_count(N_HEADS)
    writer.add_head_count_kv(N_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_expert_count(N_EXPERTS)
    writer.add_expert_used_count(top_k)
    writer.add_vocab_size(VOCAB)
    writer.add_tokenizer_model("no_vocab")
    writer.add_file_type(file_type)
    ones = np.ones(D_MODEL, np.float32)
    std = D_MODEL**-0.5
    add("token_embd.weight", normal(VOCAB, D_MODEL, std=1.0))
    writer.add_tensor("output_norm.weight", ones)
    add("output.weight", normal(VOCAB, D_MODEL, std=std))
    for i in range(N_LAYERS):
        block = f"blk.{i}."
        for norm in ("attn_norm", "attn_q_norm", "attn_k_norm", "ffn_norm"):
            writer.add_tensor(f"{block}{norm}.weight", ones)
        for part in ("attn_q", "attn_k", "attn_v", "attn_output"):
            add(f"{block}{part}.weight", normal(D_MODEL, D_MODEL, std=std))
        # Rows of unit variance: otherwise all tokens select the same experts and cache hits inflate the result.
        writer.add_tensor(f"{block}ffn_gate_inp.weight", normal(N_EXPERTS, D_MODEL, std=1.0))
        for part in ("ffn_gate_exps", "ffn_up_exps"):
            add(f"{block}{part}.weight", normal(N_EXPERTS, D_EXPERT, D_MODEL, std=std))
        add(f"{block}ffn_down_exps.weight", normal(N_EXPERTS, D_MODEL, D_EXPERT, std=D_EXPERT**-0.5))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    main(sys.argv[2], int(sys.argv[3]), sys.argv[4])
