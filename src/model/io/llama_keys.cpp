#include "model/io/llama_keys.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>
#include <string_view>

#include "common/error.h"

namespace dsmoe {
namespace {

using Json = nlohmann::json;

// Keys that parse_llama_config or the tokenizer readers read, and keys without effect on logits.
const std::set<std::string_view> kRead{"architectures",
                                       "attention_bias",
                                       "bos_token_id",
                                       "eos_token_id",
                                       "head_dim",
                                       "hidden_act",
                                       "hidden_size",
                                       "mlp_bias",
                                       "intermediate_size",
                                       "model_type",
                                       "pad_token_id",
                                       "max_position_embeddings",
                                       "num_attention_heads",
                                       "rms_norm_eps",
                                       "num_hidden_layers",
                                       "num_key_value_heads",
                                       "rope_parameters",
                                       "rope_scaling",
                                       "rope_theta",
                                       "tie_word_embeddings",
                                       "vocab_size"};
const std::set<std::string_view> kHarmless{"_attn_implementation",
                                           "_commit_hash",
                                           "_flash_attn_2_enabled",
                                           "_name_or_path",
                                           "attention_dropout",
                                           "attn_implementation",
                                           "bad_words_ids",
                                           "begin_suppress_tokens",
                                           "chunk_size_feed_forward",
                                           "cls_token_id",
                                           "decoder_start_token_id",
                                           "diversity_penalty",
                                           "do_sample",
                                           "dropout",
                                           "dtype",
                                           "early_stopping",
                                           "embd_pdrop",
                                           "encoder_no_repeat_ngram_size",
                                           "exponential_decay_length_penalty",
                                           "finetuning_task",
                                           "forced_bos_token_id",
                                           "forced_eos_token_id",
                                           "hidden_dropout",
                                           "id2label",
                                           "initializer_range",
                                           "is_decoder",
                                           "keys_to_ignore_at_inference",
                                           "label2id",
                                           "length_penalty",
                                           "mask_token_id",
                                           "max_length",
                                           "max_window_layers",
                                           "min_length",
                                           "no_repeat_ngram_size",
                                           "num_beam_groups",
                                           "num_beams",
                                           "num_labels",
                                           "num_return_sequences",
                                           "output_attentions",
                                           "output_hidden_states",
                                           "output_scores",
                                           "prefix",
                                           "pretraining_tp",
                                           "problem_type",
                                           "remove_invalid_values",
                                           "repetition_penalty",
                                           "resid_pdrop",
                                           "return_dict",
                                           "return_dict_in_generate",
                                           "sep_token_id",
                                           "suppress_tokens",
                                           "task_specific_params",
                                           "temperature",
                                           "tf_legacy_loss",
                                           "tokenizer_class",
                                           "top_k",
                                           "top_p",
                                           "torch_dtype",
                                           "torchscript",
                                           "transformers_version",
                                           "typical_p",
                                           "unk_token_id",
                                           "unsloth_fixed",
                                           "unsloth_version",
                                           "use_bfloat16",
                                           "use_cache",
                                           "use_return_dict"};
const std::set<std::string_view> kRotary{"factor",
                                         "high_freq_factor",
                                         "low_freq_factor",
                                         "original_max_position_embeddings",
                                         "rope_theta",
                                         "rope_type",
                                         "type"};

struct NeutralValue {
  const char* key;
  Json value;  // the value that changes nothing; null changes nothing either
};

// Features of other models of this family that this program does not support.
const std::vector<NeutralValue>& neutral_values() {
  static const std::vector<NeutralValue> values{{"add_cross_attention", false},
                                                {"alibi", false},
                                                {"attention_chunk_size", nullptr},
                                                {"attention_multiplier", nullptr},
                                                {"attn_logit_softcapping", 0},
                                                {"clip_qkv", nullptr},
                                                {"compression_config", nullptr},
                                                {"cross_attention_hidden_size", nullptr},
                                                {"embedding_multiplier", 1},
                                                {"final_logit_softcapping", 0},
                                                {"hidden_activation", "silu"},
                                                {"is_encoder_decoder", false},
                                                {"lm_head_bias", false},
                                                {"logit_scale", 1},
                                                {"logits_scaling", 1},
                                                {"n_routed_experts", 0},
                                                {"no_rope_layer_interval", nullptr},
                                                {"no_rope_layers", nullptr},
                                                {"num_experts", 0},
                                                {"num_local_experts", 0},
                                                {"parallel_attn", false},
                                                {"partial_rotary_factor", 1},
                                                {"pruned_heads", Json::object()},
                                                {"qk_layernorm", false},
                                                {"qk_norm", false},
                                                {"qkv_bias", false},
                                                {"quantization_config", nullptr},
                                                {"query_pre_attn_scalar", nullptr},
                                                {"residual_multiplier", 1},
                                                {"rope_interleave", false},
                                                {"rope_interleaved", false},
                                                {"rotary_pct", 1},
                                                {"tie_encoder_decoder", false},
                                                {"use_alibi", false},
                                                {"use_qk_norm", false},
                                                {"use_sliding_window", false}};
  return values;
}

class KeyCheck {
 public:
  KeyCheck(const Json& config, const std::string& source_name)
      : config_(config), source_name_(source_name) {}

  std::vector<std::string> unknown() {
    for (const auto& [key, value] : config_.items()) {
      if (kRead.contains(key) || kHarmless.contains(key) || value.is_null()) continue;
      if (key == "layer_types") {
        check_layer_types(value);
      } else if (key == "sliding_window") {
        check_window(value);
      } else if (!is_neutral(key, key, value)) {
        unknown_.push_back(key);
      }
    }
    check_rotary("rope_parameters");
    check_rotary("rope_scaling");
    return std::move(unknown_);
  }

 private:
  [[noreturn]] void refuse(const std::string& name, const Json& value, const Json& neutral) const {
    throw Error(fmt::format("{}: '{}': expected {}, got {}; other values are not supported",
                            source_name_,
                            name,
                            neutral.is_null() ? "no value" : neutral.dump(),
                            value.dump().substr(0, 60)));
  }
  // Returns false for a key of no table; refuses every value except the neutral one.
  bool is_neutral(const std::string& key, const std::string& name, const Json& value) const {
    for (const auto& neutral : neutral_values()) {
      if (key != neutral.key) continue;
      if (value != neutral.value) refuse(name, value, neutral.value);
      return true;
    }
    return false;
  }
  void check_layer_types(const Json& types) const {
    const bool is_full = types.is_array() && std::all_of(types.begin(), types.end(), [](auto& one) {
                           return one == "full_attention";
                         });
    if (!is_full) refuse("layer_types", types, Json::array({"full_attention"}));
  }
  // A window as long as the context has no effect.
  void check_window(const Json& window) const {
    const auto context = config_.find("max_position_embeddings");
    const bool reaches = window.is_number() && context != config_.end() && context->is_number() &&
                         window.get<double>() >= context->get<double>();
    const auto switched = config_.find("use_sliding_window");
    const bool is_off = switched != config_.end() && *switched == false;
    if (!reaches && !is_off) refuse("sliding_window", window, nullptr);
  }
  void check_rotary(const char* section) {
    const auto settings = config_.find(section);
    if (settings == config_.end() || !settings->is_object()) return;
    for (const auto& [key, value] : settings->items()) {
      const auto name = fmt::format("{}.{}", section, key);
      if (kRotary.contains(key) || value.is_null()) continue;
      if (value.is_object()) refuse(name, value, nullptr);  // settings of one kind of layers
      if (!is_neutral(key, name, value)) unknown_.push_back(name);
    }
  }

  const Json& config_;
  const std::string& source_name_;
  std::vector<std::string> unknown_;
};

}  // namespace

std::vector<std::string> check_llama_keys(const nlohmann::json& config,
                                          const std::string& source_name) {
  return KeyCheck(config, source_name).unknown();
}

}  // namespace dsmoe
