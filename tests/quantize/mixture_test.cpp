// Mixtures against what the reference chooses for real models (testdata/mixtures), tensor by tensor.
#include "pare/quantize/mixture.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <set>
#include <sstream>

#include "pare/quantize/recipe.h"
#include "tests/quantize/model_files.h"
#include "tests/support/golden.h"

namespace pare {
namespace {

struct Section {
  std::string base;
  std::map<std::string, std::string> types;  // of tensors that differ from it
};
struct Schema {
  std::map<std::string, int64_t> numbers;  // "n_layer", …
  std::map<std::string, Section> sections;
  std::set<std::string> tensors;  // all that any section names, and the embedding
};

std::string lower(std::string text) {
  for (char& c : text) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return text;
}

// "# n_layer=28, …", then sections "[Q4_K_M] q4_K" of lines "blk.0.attn_v.weight q6_K".
Schema read_schema(const std::filesystem::path& path) {
  Schema schema;
  Section* section = nullptr;
  std::ifstream in(path);
  for (std::string line; std::getline(in, line);) {
    std::istringstream words(line);
    std::string first, second;
    if (line.starts_with("# n_embd")) {
      words >> first;
      for (std::string pair; words >> pair;)
        schema.numbers[pair.substr(0, pair.find('='))] = std::stoll(pair.substr(pair.find('=') + 1));
    } else if (words >> first >> second && first[0] == '[') {
      section = &schema.sections[first.substr(1, first.size() - 2)];
      section->base = lower(second);
    } else if (section && !first.empty()) {
      section->types[first] = lower(second);
      schema.tensors.insert(first);
    }
  }
  schema.tensors.insert("token_embd.weight");
  return schema;
}

// What the schema implies of a tensor: one that Q6_K cannot hold has columns in multiples of 32 only.
std::vector<MixtureTensor> tensors_of(const Schema& schema) {
  const Section& q6_k = schema.sections.at("Q6_K");
  std::vector<MixtureTensor> out;
  for (const std::string& name : schema.tensors) {
    const auto at = q6_k.types.find(name);
    const bool stacked = name.find("_exps") != std::string::npos || name.find("attn_k_b") != std::string::npos ||
                         name.find("attn_v_b") != std::string::npos;
    out.push_back({name, at != q6_k.types.end() && at->second == "q8_0" ? 2880 : 4096, stacked});
  }
  return out;
}

TEST(Mixture, EqualsTheReferenceOnEveryModel) {
  PARE_NEEDS_SHARED("testdata/mixtures");
  int models = 0, checked = 0;
  for (const auto& file : std::filesystem::directory_iterator(test::shared("testdata/mixtures"))) {
    const Schema schema = read_schema(file.path());
    const auto number = [&](const char* name) { return schema.numbers.contains(name) ? schema.numbers.at(name) : 0; };
    const int64_t kv = number("n_head_kv");
    const MixtureModel model{.layers = number("n_layer"),
                             .heads_per_kv = kv ? static_cast<double>(number("n_head")) / static_cast<double>(kv) : 0,
                             .experts = number("n_expert"),
                             .llama = file.path().filename().string().find("llama") != std::string::npos};
    const std::vector<MixtureTensor> tensors = tensors_of(schema);
    for (const auto& [name, section] : schema.sections) {
      const Mixture* mixture = find_mixture(name);
      if (!mixture) continue;  // F32, Q8_0 and others that are recipes of one grid
      EXPECT_EQ(mixture->base, section.base);
      const std::vector<Grid> grids = mix(*mixture, model, tensors);
      for (size_t i = 0; i < tensors.size(); ++i) {
        const MixtureTensor& t = tensors[i];
        const std::optional<Grid> fits = divides(grids[i], t.cols) ? grids[i] : grid_instead(grids[i], t.cols);
        const auto listed = section.types.find(t.name);
        ASSERT_EQ(fits ? name_of(*fits) : "f16", listed == section.types.end() ? section.base : listed->second)
            << file.path().filename() << " " << name << " " << t.name;
        ++checked;
      }
    }
    ++models;
  }
  EXPECT_GE(models, 12);
  EXPECT_GT(checked, 100'000);
}

// formats.md §3.5: 32 layers, four query heads per head of keys.
TEST(Mixture, Q4KMOfThirtyTwoLayers) {
  std::vector<MixtureTensor> tensors = {{"token_embd.weight", 4096, false}, {"output.weight", 4096, false}};
  for (int i = 0; i < 32; ++i)
    for (const char* part : {"attn_q", "attn_v", "ffn_down"})
      tensors.push_back({"blk." + std::to_string(i) + "." + part + ".weight", 4096, false});
  const auto grids = mix(*find_mixture("Q4_K_M"), {.layers = 32, .heads_per_kv = 4}, tensors);
  EXPECT_EQ(name_of(grids[0]), "q4_k");
  EXPECT_EQ(name_of(grids[1]), "q6_k");
  const std::set<int> larger = {0, 1, 2, 3, 6, 9, 12, 15, 18, 21, 24, 27, 28, 29, 30, 31};
  for (int i = 0; i < 32; ++i) {
    const auto at = static_cast<size_t>(2 + 3 * i);
    EXPECT_EQ(name_of(grids[at]), "q4_k");
    for (const size_t part : {at + 1, at + 2})
      EXPECT_EQ(name_of(grids[part]), larger.contains(i) ? "q6_k" : "q4_k") << i;
  }
}

TEST(Mixture, FallsBackAsTheReferenceDoes) {
  const auto instead = [](const char* name, int64_t cols) {
    const auto grid = grid_instead(std::get<Grid>(parse_target(name)), cols);
    return grid ? name_of(*grid) : "f16";
  };
  for (const auto& [from, to] : std::map<const char*, const char*>{{"q2_k", "q4_0"},
                                                                   {"q3_k", "q4_0"},
                                                                   {"q4_k", "q5_0"},
                                                                   {"q5_k", "q5_1"},
                                                                   {"q6_k", "q8_0"},
                                                                   {"tq1_0", "q4_0"},
                                                                   {"tq2_0", "q4_0"},
                                                                   {"iq2_xs", "iq4_nl"},
                                                                   {"iq4_xs", "iq4_nl"},
                                                                   {"iq4_nl", "f16"},
                                                                   {"q8_0", "f16"}})
    EXPECT_EQ(instead(from, 96), to);
  EXPECT_EQ(instead("q4_k", 100), "f16");
  EXPECT_EQ(instead("iq4_nl", 100), "f16");
}

TEST(Mixture, PlansAWholeModel) {
  const Plan plan = test::plan_for(test::demo_model(), test::quick_settings("Q4_K_M"));
  std::map<std::string, int> types;
  for (const PlannedTensor& t : plan.tensors)
    if (t.on_grid()) ++types[name_of(t.target)];
  // Six layers: v and down of layers 2 and 5 (every third) and the tied embedding; n / 8 is 0.
  EXPECT_EQ(types, (std::map<std::string, int>{{"q4_k", 38}, {"q6_k", 5}}));
}

}  // namespace
}  // namespace pare
