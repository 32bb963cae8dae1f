#include "pare/quantize/mixture.h"

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <numeric>

namespace pare {
namespace {

constexpr Mixture kMixtures[] = {
    {"Q4_1", "q4_1", 3, "GGUF, 5 bits, head in q6_k"},
    {"Q5_0", "q5_0", 8, "GGUF, 5.5 bits, head in q6_k"},
    {"Q5_1", "q5_1", 9, "GGUF, 6 bits, head in q6_k"},
    {"Q2_K", "q2_k", 10, "GGUF mixture around 2.6 bits"},
    {"Q2_K_S", "q2_k", 21, "GGUF mixture around 2.6 bits, smaller"},
    {"Q3_K_S", "q3_k", 11, "GGUF, 3.4 bits, head in q6_k"},
    {"Q3_K_M", "q3_k", 12, "GGUF mixture around 3.4 bits"},
    {"Q3_K_L", "q3_k", 13, "GGUF mixture around 3.4 bits, larger"},
    {"Q4_K_S", "q4_k", 14, "GGUF mixture around 4.5 bits, smaller"},
    {"Q4_K_M", "q4_k", 15, "GGUF mixture around 4.5 bits: what most people run"},
    {"Q5_K_S", "q5_k", 16, "GGUF, 5.5 bits, head in q6_k"},
    {"Q5_K_M", "q5_k", 17, "GGUF mixture around 5.5 bits"},
    {"IQ1_S", "iq1_s", 24, "GGUF lattice mixture around 1.6 bits"},
    {"IQ1_M", "iq1_m", 31, "GGUF lattice mixture around 1.8 bits"},
    {"IQ2_XXS", "iq2_xxs", 19, "GGUF lattice mixture around 2.1 bits"},
    {"IQ2_XS", "iq2_xs", 20, "GGUF lattice mixture around 2.3 bits"},
    {"IQ2_S", "iq2_xs", 28, "GGUF lattice mixture around 2.5 bits"},
    {"IQ2_M", "iq2_s", 29, "GGUF lattice mixture around 2.7 bits"},
    {"IQ3_XXS", "iq3_xxs", 23, "GGUF lattice mixture around 3.1 bits"},
    {"IQ3_XS", "iq3_s", 22, "GGUF lattice mixture around 3.3 bits"},
    {"IQ3_S", "iq3_s", 26, "GGUF lattice mixture around 3.4 bits"},
    {"IQ3_M", "iq3_s", 27, "GGUF lattice mixture around 3.7 bits"},
    {"IQ4_NL", "iq4_nl", 25, "GGUF, 4.5 bits, uneven levels"},
    {"IQ4_XS", "iq4_xs", 30, "GGUF, 4.25 bits, uneven levels"},
    {"TQ1_0", "tq1_0", 36, "GGUF, ternary, 1.7 bits: for models trained so"},
    {"TQ2_0", "tq2_0", 37, "GGUF, ternary, 2.1 bits: for models trained so"},
    {"Q1_0", "q1_0", 40, "GGUF, signs, 1.1 bits: for models trained so"},
    {"Q2_0", "q2_0", 41, "GGUF, four levels, 2.3 bits"},
    {"MXFP4_MOE", "mxfp4", 38, "GGUF, experts in mxfp4, the rest in q8_0"},
};

enum class Part { any, head, embedding, v, k, q, down, o, gate_or_up, other };
enum class When {
  always,
  stacked,
  broken,        // the base's blocks do not divide the columns
  gqa,           // four query heads or more per head of keys and values
  gqa_or_moe,    // or four experts or more
  eight,         // exactly eight experts
  first_eighth,  // of the layers, and so on
  first_sixteenth,
  first_two,
  first_four,
  outer_and_every_third,  // the first and the last eighth, and every third between
  middle,                 // all but those eighths
};

// The first row that names the mixture (a star ends any name), the part and a condition that holds decides.
struct Rule {
  std::string_view mixtures;
  Part part;
  When when;
  std::string_view grid;
};
constexpr Rule kRules[] = {
    {"MXFP4_MOE", Part::head, When::always, "q8_0"},
    {"MXFP4_MOE", Part::any, When::stacked, "mxfp4"},
    {"MXFP4_MOE", Part::any, When::always, "q8_0"},
    {"*", Part::head, When::broken, "q8_0"},
    {"IQ1_* IQ2_* IQ3_XXS", Part::head, When::always, "q5_k"},
    {"*", Part::head, When::always, "q6_k"},
    {"IQ1_* IQ2_XXS IQ2_XS", Part::embedding, When::always, "q2_k"},
    {"IQ2_S IQ2_M IQ3_XXS", Part::embedding, When::always, "iq3_s"},
    {"TQ* Q2_0", Part::embedding, When::always, "q4_k"},

    {"IQ1_* IQ2_*", Part::v, When::gqa_or_moe, "q4_k"},
    {"IQ2_S IQ2_M", Part::v, When::always, "iq3_s"},
    {"IQ1_* IQ2_*", Part::v, When::always, "q2_k"},
    {"*", Part::v, When::eight, "q8_0"},
    {"Q2_K Q2_K_S IQ3_XXS IQ3_XS IQ3_S", Part::v, When::gqa, "q4_k"},
    {"Q2_K", Part::v, When::always, "q3_k"},
    {"IQ3_XXS", Part::v, When::always, "iq3_s"},
    {"IQ3_M", Part::v, When::always, "q4_k"},
    {"Q3_K_M", Part::v, When::first_two, "q5_k"},
    {"Q3_K_M", Part::v, When::always, "q4_k"},
    {"Q3_K_L", Part::v, When::always, "q5_k"},
    {"IQ4_*", Part::v, When::gqa, "q5_k"},
    {"Q4_K_M Q5_K_M", Part::v, When::outer_and_every_third, "q6_k"},
    {"Q4_K_S", Part::v, When::first_four, "q5_k"},

    {"IQ1_* IQ2_*", Part::k, When::eight, "q4_k"},
    {"*", Part::k, When::eight, "q8_0"},
    {"IQ3_XS", Part::k, When::always, "iq3_xxs"},
    {"IQ3_XXS", Part::k, When::always, "iq2_s"},
    {"IQ3_XS", Part::q, When::always, "iq3_xxs"},
    {"IQ3_XXS", Part::q, When::always, "iq2_s"},

    {"IQ2_S IQ2_M", Part::down, When::first_eighth, "iq3_s"},
    {"IQ1_* IQ2_*", Part::down, When::first_eighth, "q2_k"},
    {"Q2_K", Part::down, When::always, "q3_k"},
    {"Q2_K_S", Part::down, When::first_eighth, "q4_k"},
    {"IQ3_XXS", Part::down, When::first_eighth, "q4_k"},
    {"IQ3_XXS", Part::down, When::always, "q3_k"},
    {"Q3_K_M", Part::down, When::first_sixteenth, "q5_k"},
    {"Q3_K_M", Part::down, When::always, "q4_k"},
    {"IQ3_M", Part::down, When::first_eighth, "q4_k"},
    {"IQ3_M", Part::down, When::eight, "q4_k"},
    {"Q3_K_L", Part::down, When::always, "q5_k"},
    {"Q4_K_M Q5_K_M", Part::down, When::outer_and_every_third, "q6_k"},
    {"IQ4_* Q4_K_S", Part::down, When::first_eighth, "q5_k"},

    {"IQ1_* IQ2_*", Part::o, When::eight, "q5_k"},
    {"IQ1_*", Part::o, When::always, "iq2_xxs"},
    {"IQ2_S IQ2_M", Part::o, When::always, "iq3_s"},
    {"Q2_K IQ3_* Q3_K_S Q3_K_M IQ4_* Q4_K_S Q4_K_M", Part::o, When::eight, "q5_k"},
    {"Q2_K", Part::o, When::always, "q3_k"},
    {"IQ3_XXS", Part::o, When::always, "iq3_s"},
    {"Q3_K_M IQ3_M", Part::o, When::always, "q4_k"},
    {"Q3_K_L", Part::o, When::always, "q5_k"},

    {"IQ3_XS", Part::gate_or_up, When::middle, "iq3_xxs"},
};

bool names(std::string_view list, std::string_view mixture) {
  while (!list.empty()) {
    const size_t end = std::min(list.find(' '), list.size());
    const std::string_view word = list.substr(0, end);
    list.remove_prefix(std::min(end + 1, list.size()));
    if (word.ends_with('*') ? mixture.starts_with(word.substr(0, word.size() - 1)) : mixture == word) return true;
  }
  return false;
}

const Grid& grid_named(std::string_view name) {
  for (const Grid& grid : named_grids())
    if (name_of(grid) == name) return grid;
  std::abort();  // a row of this file is misspelt
}

int64_t layer_of(std::string_view name) {
  if (!name.starts_with("blk.")) return -1;
  int64_t layer = -1;
  std::from_chars(name.data() + 4, name.data() + name.size(), layer);
  return layer;
}

Part part_of(std::string_view name, bool tied) {
  const auto has = [&](std::string_view piece) { return name.find(piece) != std::string_view::npos; };
  if (name == "output.weight" || (tied && name == "token_embd.weight")) return Part::head;
  if (name == "token_embd.weight") return Part::embedding;
  if (has("attn_qkv.weight") || has("attn_kv_b.weight") || has("attn_v.weight")) return Part::v;
  if (has("attn_k.weight")) return Part::k;
  if (has("attn_q.weight")) return Part::q;
  if (has("attn_output.weight")) return Part::o;
  if (has("ffn_down")) return Part::down;
  if (has("ffn_gate") || has("ffn_up")) return Part::gate_or_up;
  return Part::other;
}

// A tensor among those of its part: the `index`-th of `count` where layers are counted.
struct Place {
  Part part;
  int64_t index = 0, count = 0;
};

bool holds(When when, const Place& p, const MixtureModel& m, const MixtureTensor& t, const Grid& base) {
  const int64_t i = p.index, n = p.count;
  switch (when) {
    case When::always:
      return true;
    case When::stacked:
      return t.stacked;
    case When::broken:
      return !divides(base, t.cols);
    case When::gqa:
      return m.heads_per_kv >= 4;
    case When::gqa_or_moe:
      return m.heads_per_kv >= 4 || m.experts >= 4;
    case When::eight:
      return m.experts == 8;
    case When::first_eighth:
      return i < n / 8;
    case When::first_sixteenth:
      return i < n / 16;
    case When::first_two:
      return i < 2;
    case When::first_four:
      return i < 4;
    case When::outer_and_every_third:
      return i < n / 8 || i >= 7 * n / 8 || (i - n / 8) % 3 == 2;
    case When::middle:
      return i >= n / 8 && i < 7 * n / 8;
  }
  return false;
}

std::string_view by_rules(const Mixture& mixture, const MixtureModel& m, const Place& p, const MixtureTensor& t) {
  const Grid& base = grid_named(mixture.base);
  for (const Rule& rule : kRules) {
    if (rule.part != Part::any && rule.part != p.part) continue;
    if (names(rule.mixtures, mixture.name) && holds(rule.when, p, m, t, base)) return rule.grid;
  }
  return mixture.base;
}

// In the 70B, eight heads share each v: small beside what it decides, so it gets more bits.
std::string_view decide(const Mixture& mixture, const MixtureModel& m, const Place& p, const MixtureTensor& t) {
  const std::string_view grid = by_rules(mixture, m, p, t);
  const bool seventy = m.llama && m.layers == 80 && m.heads_per_kv > 1 && !names("IQ1_* IQ2_*", mixture.name);
  return seventy && p.part == Part::v && (grid == "q3_k" || grid == "q4_k") ? "q5_k" : grid;
}

}  // namespace

std::span<const Mixture> all_mixtures() { return kMixtures; }

const Mixture* find_mixture(std::string_view name) {
  const auto* at =
      std::find_if(std::begin(kMixtures), std::end(kMixtures), [&](const auto& m) { return m.name == name; });
  return at == std::end(kMixtures) ? nullptr : at;
}

std::vector<Grid> mix(const Mixture& mixture, const MixtureModel& model, std::span<const MixtureTensor> tensors) {
  const bool tied =
      std::none_of(tensors.begin(), tensors.end(), [](const auto& t) { return t.name == "output.weight"; });
  std::vector<size_t> order(tensors.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    const int64_t i = layer_of(tensors[a].name), j = layer_of(tensors[b].name);
    return i != j ? i < j : tensors[a].name < tensors[b].name;
  });
  const int64_t values =
      std::count_if(tensors.begin(), tensors.end(), [&](const auto& t) { return part_of(t.name, tied) == Part::v; });
  // The reference counts v and down as it meets them, except that with experts most of its files go by the layer.
  const bool by_layer = model.experts > 1 && !names("IQ1_* IQ2_*", mixture.name);
  int64_t v = 0, down = 0;
  std::vector<Grid> out(tensors.size());
  for (const size_t at : order) {
    const MixtureTensor& t = tensors[at];
    Place place{part_of(t.name, tied), layer_of(t.name), model.layers};
    if (place.part == Part::v) place.index = v++, place.count = values;
    if (place.part == Part::down && !by_layer) place.index = down;
    if (place.part == Part::down) ++down;
    out[at] = grid_named(decide(mixture, model, place, t));
  }
  return out;
}

std::optional<Grid> grid_instead(const Grid& grid, int64_t cols) {
  constexpr std::pair<std::string_view, std::string_view> kInstead[] = {
      {"q2_k", "q4_0"}, {"q3_k", "q4_0"}, {"tq1_0", "q4_0"}, {"tq2_0", "q4_0"},
      {"q2_0", "q4_0"}, {"q4_k", "q5_0"}, {"q5_k", "q5_1"},  {"q6_k", "q8_0"}};
  const std::string name = name_of(grid);
  std::string_view other = name.starts_with("iq") && name != "iq4_nl" ? "iq4_nl" : "";
  for (const auto& [from, to] : kInstead)
    if (from == name) other = to;
  if (other.empty() || !divides(grid_named(other), cols)) return std::nullopt;
  return grid_named(other);
}

}  // namespace pare
