#include "report/starter_config.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <nlohmann/json.hpp>

#include "common/counts.h"
#include "common/error.h"
#include "common/path_expansion.h"
#include "model/planned_experts.h"
#include "train/config_file.h"

namespace dsmoe {
namespace {

constexpr double kMostError = 0.045;  // of the parameters, as a logarithm
constexpr int64_t kLeastParameters = 500'000;
constexpr int64_t kMostParameters = 20'000'000'000;

struct StyleName {
  const char* name;
  StarterStyle style;
};
constexpr std::array<StyleName, 4> kStyleNames{{{"ds-moe", StarterStyle::kDsMoe},
                                                {"dense", StarterStyle::kDense},
                                                {"smoe", StarterStyle::kSmoe},
                                                {"partition", StarterStyle::kPartition}}};

// A recipe that was trained. quickstart: of this project; the others: arXiv:2404.05567.
struct Recipe {
  double parameters;  // of the DS-MoE model
  const char* source;
  double peak;
  double tokens_per_step;
  double moe_mi_weight;
  double moa_mi_weight;
  double aspect;  // d_model / n_layers
};
constexpr std::array<Recipe, 4> kRecipes{{
    {1.8e6, "configs/quickstart.yaml", 2e-3, 2048, 1e-2, 1e-3, 48},
    {1.17e9, "configs/ds_moe_1b.yaml", 3e-4, 524'288, 6.3e-4, 3.5e-4, 85},
    {2.95e9, "configs/ds_moe_3b.yaml", 3e-4, 2'097'152, 4e-4, 2e-4, 110},
    {6.55e9, "configs/ds_moe_6b.yaml", 3e-4, 2'097'152, 2e-4, 2e-4, 114},
}};

std::string name_of(StarterStyle style) {
  for (const auto& row : kStyleNames) {
    if (row.style == style) return row.name;
  }
  return "";
}

// Between the recipes, straight on logarithmic axes; beyond them, that of the nearest.
double interpolate(double parameters, double Recipe::*value) {
  if (parameters <= kRecipes.front().parameters) return kRecipes.front().*value;
  for (size_t i = 0; i + 1 < kRecipes.size(); ++i) {
    const auto& a = kRecipes[i];
    const auto& b = kRecipes[i + 1];
    if (parameters > b.parameters) continue;
    const double t = std::log(parameters / a.parameters) / std::log(b.parameters / a.parameters);
    return std::exp(std::log(a.*value) + t * std::log(b.*value / (a.*value)));
  }
  return kRecipes.back().*value;
}

std::string recipe_source(double parameters) {
  constexpr double kNear = 1.5;
  for (size_t i = 0; i < kRecipes.size(); ++i) {
    const auto& recipe = kRecipes[i];
    const bool is_end = i == 0 ? parameters < recipe.parameters
                               : i + 1 == kRecipes.size() && parameters > recipe.parameters;
    if (is_end || std::abs(std::log(parameters / recipe.parameters)) < std::log(kNear)) {
      return fmt::format("those of {}", recipe.source);
    }
  }
  size_t above = 1;
  while (kRecipes[above].parameters < parameters) ++above;
  return fmt::format("between those of {} and {}: no run had this size",
                     kRecipes[above - 1].source,
                     kRecipes[above].source);
}

int64_t choose_vocab_size(double parameters) {
  if (parameters <= 5e6) return 257;
  if (parameters <= 50e6) return 4096;
  if (parameters <= 500e6) return 32'000;
  return 50'295;
}

std::string tokenizer_for(int64_t vocab_size) {
  return vocab_size == 257 ? "bytes" : fmt::format("train:bpe:{}", vocab_size);
}

int64_t choose_context(double parameters) {
  if (parameters <= 3e6) return 128;
  if (parameters <= 10e6) return 256;
  if (parameters <= 50e6) return 512;
  return parameters <= 500e6 ? 1024 : 2048;
}

// Heads of 16 to 224 numbers in experts as the recipes have them: 4 of 2, 16 of 2, 8 of 4.
void set_attention(ModelConfig& model, StarterStyle style) {
  auto& attention = model.attention;
  const int64_t d_model = model.d_model;
  const int64_t n_heads = d_model < 512 ? 8 : d_model < 1536 ? 16 : 32;
  attention.head_dim = d_model / n_heads;
  attention.heads_per_expert = n_heads < 32 || d_model < 2560 ? 2 : 4;
  attention.n_experts = n_heads / attention.heads_per_expert;
  attention.n_heads = n_heads;
  attention.n_kv_heads =
      style == StarterStyle::kPartition ? n_heads / 2 : attention.heads_per_expert;
  attention.kind = style == StarterStyle::kDsMoe ? AttentionKind::kMoa : AttentionKind::kDense;
  attention.router.kind = RouterKind::kSwiglu;
  attention.router.d_hidden = d_model < 512 ? 64 : d_model < 1024 ? 128 : 256;
}

// Four times the model's width in all.
void set_ffn(ModelConfig& model, StarterStyle style) {
  auto& ffn = model.ffn;
  ffn.d_ffn = 4 * model.d_model;
  ffn.activation = Activation::kGeluTanh;
  ffn.router = model.attention.router;
  switch (style) {
    case StarterStyle::kDsMoe:
      ffn.kind = FfnKind::kMoe;
      ffn.n_experts = model.d_model < 512 ? 16 : 32;
      break;
    case StarterStyle::kDense:
      ffn.kind = FfnKind::kDense;
      break;
    case StarterStyle::kSmoe:
      ffn.kind = FfnKind::kMoe;
      ffn.n_experts = 16;
      ffn.router.renormalise = true;
      model.training_policy = "top_k=2";
      break;
    case StarterStyle::kPartition:
      ffn.kind = FfnKind::kPartitioned;
      ffn.activation = Activation::kSwiglu;
      ffn.n_experts = 8;
      ffn.router.kind = RouterKind::kLinear;
      model.training_policy = "threshold=0.5";
      break;
  }
  ffn.d_expert = ffn.d_ffn / ffn.n_experts;
}

ModelConfig model_of(StarterStyle style, int64_t n_layers, int64_t d_model, int64_t vocab_size) {
  ModelConfig model;
  model.vocab_size = vocab_size;
  model.n_layers = n_layers;
  model.d_model = d_model;
  set_attention(model, style);
  set_ffn(model, style);
  return model;
}

// The depth and width near the size asked for whose ratio is nearest to the recipes'.
ModelConfig find_shape(const StarterRequest& request, int64_t vocab_size) {
  constexpr int64_t kMostLayers = 64;
  constexpr int64_t kMostWidth = 8192;
  const auto wanted = static_cast<double>(request.parameters);
  const double aspect = interpolate(wanted, &Recipe::aspect);
  std::optional<ModelConfig> best;
  double best_cost = 0;
  for (int64_t n_layers = 2; n_layers <= kMostLayers; ++n_layers) {
    for (int64_t d_model = 32; d_model <= kMostWidth; d_model += 16) {
      const auto model = model_of(request.style, n_layers, d_model, vocab_size);
      const int64_t n_heads = model.attention.n_heads;
      if (d_model % (2 * n_heads) != 0) continue;
      const auto total = static_cast<double>(count_parameters(model).total());
      const double error = std::abs(std::log(total / wanted));
      if (error > kMostError) continue;
      const double ratio = static_cast<double>(d_model) / static_cast<double>(n_layers);
      // Widths of whole vectors are preferred where the rest is alike.
      const double cost = 4 * error + std::abs(std::log(ratio / aspect)) +
                          (d_model % 64 != 0 ? 0.1 : 0.0) + (d_model % 128 != 0 ? 0.03 : 0.0);
      if (!best || cost < best_cost) {
        best = model;
        best_cost = cost;
      }
    }
  }
  if (best) return *best;
  throw Error(fmt::format(
      "init: found no model of {} parameters with a vocabulary of {}; ask for other parameters or "
      "a smaller vocabulary",
      short_count(wanted),
      vocab_size));
}

// Two digits: more would pretend that the rate is known.
std::string number(double value) { return fmt::format("{:.2g}", value); }

// Quoted so that it reads back as it is.
std::string path_text(const std::string& path) { return nlohmann::json(quote_path(path)).dump(); }

std::string starter_name(StarterStyle style, double parameters, bool trains_on) {
  auto name =
      fmt::format("{}-{}{}", name_of(style), short_count(parameters), trains_on ? "-on" : "");
  for (char& c : name) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return name;
}

std::string model_section(const ModelConfig& model, bool has_data) {
  std::string text = fmt::format(
      "model:\n  vocab_size: {}  # {}\n  d_model: {}\n  n_layers: {}\n"
      "  max_seq_len: {}\n",
      model.vocab_size,
      has_data ? "that of the data"
               : "dsmoe tokenize --tokenizer " + tokenizer_for(model.vocab_size),
      model.d_model,
      model.n_layers,
      model.max_seq_len);
  if (model.training_policy != "all") {
    text += fmt::format("  training_policy: {}\n", model.training_policy);
  }
  const auto& attention = model.attention;
  const auto router = [](const RouterConfig& config) {
    if (config.kind == RouterKind::kLinear) return std::string("{kind: linear}");
    return fmt::format("{{kind: swiglu, d_hidden: {}{}}}",
                       config.d_hidden,
                       config.renormalise ? ", renormalise: true" : "");
  };
  if (attention.kind == AttentionKind::kMoa) {
    text += fmt::format(
        "  attention: {{kind: moa, head_dim: {}}}\n"
        "  moa: {{n_experts: {}, heads_per_expert: {}, router: {}}}\n",
        attention.head_dim,
        attention.n_experts,
        attention.heads_per_expert,
        router(attention.router));
  } else {
    text += fmt::format("  attention: {{kind: dense, head_dim: {}, n_heads: {}, n_kv_heads: {}}}\n",
                        attention.head_dim,
                        attention.n_heads,
                        attention.n_kv_heads);
  }
  const auto& ffn = model.ffn;
  const auto activation = activation_name(ffn.activation);
  if (ffn.kind == FfnKind::kDense) {
    return text + fmt::format(
                      "  ffn: {{kind: dense, activation: {}, d_ffn: {}}}\n", activation, ffn.d_ffn);
  }
  text +=
      ffn.kind == FfnKind::kMoe
          ? fmt::format("  ffn: {{kind: moe, activation: {}}}\n", activation)
          : fmt::format(
                "  ffn: {{kind: partitioned, activation: {}, d_ffn: {}}}\n", activation, ffn.d_ffn);
  return text + fmt::format("  moe: {{n_experts: {}, d_expert: {}, router: {}}}\n",
                            ffn.n_experts,
                            ffn.d_expert,
                            router(ffn.router));
}

StarterStyle style_of(const ModelConfig& model) {
  if (model.ffn.kind == FfnKind::kPartitioned) return StarterStyle::kPartition;
  if (model.training_policy != "all") return StarterStyle::kSmoe;
  const bool is_dense =
      model.ffn.kind == FfnKind::kDense && model.attention.kind == AttentionKind::kDense;
  return is_dense ? StarterStyle::kDense : StarterStyle::kDsMoe;
}

std::string loss_lines(StarterStyle style, const ModelConfig& model, double parameters) {
  switch (style) {
    case StarterStyle::kDsMoe: {
      std::string weights;
      if (model.ffn.kind == FfnKind::kMoe) {
        weights = "moe_mi_weight: " + number(interpolate(parameters, &Recipe::moe_mi_weight));
      }
      if (model.attention.kind == AttentionKind::kMoa) {
        weights += fmt::format("{}moa_mi_weight: {}",
                               weights.empty() ? "" : ", ",
                               number(interpolate(parameters, &Recipe::moa_mi_weight)));
      }
      return fmt::format(
          "  # A larger weight gives fewer active experts and more loss.\n"
          "  loss: {{{}}}\n",
          weights);
    }
    case StarterStyle::kSmoe:
      return "  # The switch loss keeps the load of the experts even: "
             "configs/quickstart-sparse.yaml.\n"
             "  loss: {moe_mi_weight: 0, switch_weight: 0.01}\n";
    case StarterStyle::kPartition:
      return "  # Closes gates; 1 as in configs/partition.yaml, which arXiv:2502.12455 does not "
             "give.\n"
             "  loss: {sparsity_weight: 1}\n";
    case StarterStyle::kDense:
      break;
  }
  return "";
}

// Sizes of a batch; a step has whole micro-batches.
struct Batch {
  int64_t context;
  int64_t batch_size;
  int64_t tokens;  // of a step
};

Batch choose_batch(const StarterRequest& request, double parameters, int64_t context) {
  constexpr double kLeastSteps = 500;
  const double wanted = std::min(interpolate(parameters, &Recipe::tokens_per_step),
                                 static_cast<double>(request.tokens) / kLeastSteps);
  const double sequences = std::max(wanted / static_cast<double>(context), 1.0);
  const int64_t power = int64_t{1} << std::lround(std::log2(sequences));
  const int64_t batch_size = std::min<int64_t>(power, parameters < 500e6 ? 16 : 8);
  return {.context = context, .batch_size = batch_size, .tokens = power * context};
}

// The largest of 1, 2, 5, 10, 20, ... up to a tenth of the steps.
int64_t interval_of(int64_t steps) {
  int64_t interval = 1;
  for (int64_t power = 1; power <= steps / 10; power *= 10) {
    for (const int64_t factor : {1, 2, 5}) {
      if (factor * power <= steps / 10) interval = factor * power;
    }
  }
  return interval;
}

const char* paper_of(StarterStyle style) {
  return style == StarterStyle::kPartition ? "arXiv:2502.12455" : "arXiv:2404.05567";
}

const char* kind_line(StarterStyle style) {
  switch (style) {
    case StarterStyle::kDsMoe:
      return "trained with every expert active, run with some";
    case StarterStyle::kDense:
      return "a dense model, the baseline of ds-moe";
    case StarterStyle::kSmoe:
      return "trained sparsely, two FFN experts a token";
    case StarterStyle::kPartition:
      return "a dense model whose FFNs are cut into experts";
  }
  return "";
}

std::string train_section(const StarterRequest& request,
                          StarterStyle style,
                          const ModelConfig& model,
                          double parameters) {
  const bool is_small = parameters < 100e6;
  const bool trains_on = request.source.has_value();
  const auto batch = choose_batch(request, parameters, model.max_seq_len);
  const int64_t steps = (request.tokens + batch.tokens - 1) / batch.tokens;
  const int64_t interval = interval_of(steps);
  std::string text = "train:\n";
  if (trains_on) {
    text += fmt::format("  init_from: {}  # the model is its; no section model is needed\n",
                        path_text(request.source->path));
  } else if (style == StarterStyle::kPartition) {
    text +=
        "  # Better than random weights: a trained dense model, cut by\n"
        "  # dsmoe convert DENSE CUT --partition n_experts=8, then init_from: CUT and no section "
        "model.\n";
  }
  text += fmt::format("  tokens: {}\n  batch_tokens: {}  # sequences of {}\n  batch_size: {}\n",
                      request.tokens,
                      batch.tokens,
                      batch.context,
                      batch.batch_size);
  if (parameters >= 500e6) text += "  checkpoint_activations: full\n";
  text += fmt::format("  log_every: {}\n  validate_every: {}\n  save_every: {}\n",
                      std::max<int64_t>(interval / 10, 1),
                      interval,
                      interval);
  const double peak = interpolate(parameters, &Recipe::peak) * (trains_on ? 0.5 : 1.0);
  if (trains_on) text += "  # Half the rate of a start, as configs/partition.yaml has it.\n";
  text += fmt::format("  schedule: {{kind: cosine, peak: {}, warmup: {}, final_ratio: 0.1}}\n",
                      number(peak),
                      is_small ? "5%" : "3%");
  text += fmt::format("  optimizer: {{beta2: {}, weight_decay: {}}}\n",
                      is_small ? "0.99" : "0.95",
                      parameters < 500e6 ? "0.1" : "0.01");
  return text + loss_lines(style, model, parameters);
}

void check_request(const StarterRequest& request) {
  if (request.tokens < 1) {
    throw Error(fmt::format("init: expected --tokens of 1 or more, got {}", request.tokens));
  }
  if (request.source) return;
  if (request.parameters < kLeastParameters || request.parameters > kMostParameters) {
    throw Error(fmt::format("init: expected --params in [{}, {}], got {}",
                            short_count(kLeastParameters),
                            short_count(kMostParameters),
                            request.parameters));
  }
}

ModelConfig model_for(const StarterRequest& request) {
  if (!request.source) {
    const auto wanted = static_cast<double>(request.parameters);
    auto model = find_shape(
        request, request.vocab_size > 0 ? request.vocab_size : choose_vocab_size(wanted));
    model.max_seq_len = choose_context(wanted);
    return model;
  }
  const auto& model = request.source->model;
  const auto total = static_cast<double>(count_parameters(model).total());
  const auto wanted = static_cast<double>(request.parameters);
  if (request.parameters > 0 && std::abs(wanted / total - 1) > 0.05) {
    throw Error(
        fmt::format("init: expected the parameters of --from {}, {}, got --params {}; leave "
                    "it out",
                    request.source->path,
                    short_count(total),
                    short_count(wanted)));
  }
  return model;
}

void add_plan(StarterConfig& result, const ModelConfig& model) {
  auto config = result.config;
  config.model = model;
  resolve_units(config, std::nullopt);
  config.validate();
  result.parameters = count_parameters(model);
  result.tokens_per_step = config.tokens_per_step();
  result.tokens = config.train.steps * result.tokens_per_step;
  result.memory = training_memory(config, 1);
  std::vector<std::string> policies{"all"};
  if (model.ffn.kind == FfnKind::kMoe && model.training_policy == "all") {
    policies.push_back(fmt::format("top_k={}", std::max<int64_t>(model.ffn.n_experts / 8, 1)));
  }
  if (model.training_policy != "all") policies.push_back(model.training_policy);
  for (const auto& policy : policies) {
    const auto active = fixed_experts(model, parse_routing_plan(policy));
    if (active) result.policies.push_back({policy, active_parameters(model, *active)});
  }
  result.config = std::move(config);
}

}  // namespace

StarterStyle parse_starter_style(const std::string& name) {
  for (const auto& row : kStyleNames) {
    if (row.name == name) return row.style;
  }
  throw Error(fmt::format("--style: expected ds-moe, dense, smoe or partition, got '{}'", name));
}

StarterConfig make_starter_config(const StarterRequest& request, const std::string& file) {
  check_request(request);
  const auto model = model_for(request);
  const auto style = request.source ? style_of(model) : request.style;
  const auto total = static_cast<double>(count_parameters(model).total());
  StarterConfig result;
  const auto asked = request.parameters > 0 ? static_cast<double>(request.parameters) : total;
  result.name = starter_name(style, asked, request.source.has_value());
  result.file = file.empty() ? result.name + ".yaml" : file;
  result.yaml = fmt::format(
      "# {} parameters: {} ({}).\n"
      "# Rates, batch and loss weights: {}.\n"
      "# configs/README.md explains every key.\n"
      "run_dir: runs/{}\n"
      "seed: 1\n",
      short_count(total),
      kind_line(style),
      paper_of(style),
      recipe_source(total),
      result.name);
  if (!request.source) result.yaml += model_section(model, request.has_data);
  result.yaml += fmt::format("data:\n  train: {}\n  validation: {}\n",
                             path_text(request.train),
                             path_text(request.validation));
  result.yaml += train_section(request, style, model, total);
  const auto given = read_run_config_text(result.yaml, "init", {}, result.config);
  if (!request.source) check_used_keys(result.config, given);
  add_plan(result, model);
  if (!request.source && !request.has_data) {
    result.next_commands.push_back(
        fmt::format("tokenize --input TEXT --tokenizer {} --validation 5% --out {}",
                    tokenizer_for(model.vocab_size),
                    request.train.substr(0, request.train.rfind('/'))));
  }
  result.next_commands.push_back(fmt::format("train {} --dry-run", result.file));
  result.next_commands.push_back(fmt::format("train {}", result.file));
  return result;
}

}  // namespace dsmoe
