// Every solver on every grid into every container that takes it, read back by the library and by the second reader that
// was written from the specifications alone.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "pare/container/checkpoint.h"
#include "pare/container/container.h"
#include "pare/solver/solver.h"
#include "pare/tensor/linalg.h"
#include "tests/readers/second_blocks.h"
#include "tests/readers/second_reader.h"
#include "tests/support/golden.h"

namespace pare {
namespace {

constexpr Shape kShape{96, 512};

struct Problem {
  Matrix w, hessian;
  std::vector<float> importance;
};

// Correlated inputs with a few loud columns, weights with rows of different size.
const Problem& problem() {
  static const Problem made = [] {
    std::mt19937 random(7);
    std::normal_distribution<float> normal;
    Problem p{Matrix(kShape.rows, kShape.cols), Matrix(kShape.cols, kShape.cols), {}};
    for (int64_t r = 0; r < kShape.rows; ++r) {
      const float size = 0.02f * std::exp(0.5f * normal(random));
      for (int64_t c = 0; c < kShape.cols; ++c) p.w(r, c) = size * normal(random) + (r % 7 == 0 ? size : 0.0f);
    }
    Matrix x(2048, kShape.cols);
    for (int64_t t = 0; t < x.rows(); ++t) {
      float shared = normal(random);
      for (int64_t c = 0; c < x.cols(); ++c) {
        shared = 0.7f * shared + 0.7f * normal(random);
        x(t, c) = shared * (c % 61 == 5 ? 8.0f : 1.0f);
      }
    }
    add_gram(x, p.hessian);
    mirror_lower(p.hessian);
    for (float& h : p.hessian.values()) h /= static_cast<float>(x.rows());
    for (int64_t c = 0; c < kShape.cols; ++c) p.importance.push_back(p.hessian(c, c));
    return p;
  }();
  return made;
}

struct Solver {
  std::string name;
  bool ordered;
  Quantized (*solve)(const Grid& grid);
};

Quantized solve_gptq(const Grid& grid, ColumnOrder order, bool static_groups) {
  const Problem& p = problem();
  GptqOptions options{.order = order, .static_groups = static_groups};
  options.fit.importance = p.importance;
  const HessianFactor factor = factor_hessian(p.hessian, window_of(grid, kShape.cols), options, step_of(grid));
  return gptq(p.w, factor, grid, options).quantized;
}

const Solver kSolvers[] = {
    {"range", false, [](const Grid& g) { return round_to_nearest(problem().w, g, {.search = Search::range}); }},
    {"search", false, [](const Grid& g) { return round_to_nearest(problem().w, g, {.nearest_follows = true}); }},
    {"importance", false,
     [](const Grid& g) {
       return round_to_nearest(problem().w, g, {.importance = problem().importance, .nearest_follows = true});
     }},
    {"gptq", false, [](const Grid& g) { return solve_gptq(g, ColumnOrder::natural, false); }},
    {"gptq-windows", false, [](const Grid& g) { return solve_gptq(g, ColumnOrder::windows, false); }},
    {"gptq-static", false, [](const Grid& g) { return solve_gptq(g, ColumnOrder::windows, true); }},
    {"gptq-stored-order", true, [](const Grid& g) { return solve_gptq(g, ColumnOrder::stored, false); }},
};

std::vector<Grid> grids() {
  std::vector<Grid> out(named_grids().begin(), named_grids().end());
  for (int bits = 2; bits <= 8; ++bits)
    for (const int64_t group : {0, 32, 128})
      for (const bool symmetric : {true, false})
        out.push_back(AffineSpec{.bits = bits, .group = group, .symmetric = symmetric});
  for (const int bits : {2, 3, 4, 5, 6, 8})
    out.push_back(AffineSpec{.bits = bits, .group = bits % 2 ? 64 : 32, .symmetric = false, .biased = true});
  return out;
}
// Also those whose scales are shared beyond a window, or are what the largest weight says.
std::vector<Grid> grids_of_files() {
  std::vector<Grid> out = grids();
  out.insert(out.end(), shared_grids().begin(), shared_grids().end());
  out.push_back(AffineSpec{.bits = 8, .group = 0, .rows = 0});
  return out;
}

OutputPlan plan_of(const Container& container, const Grid& grid, bool ordered) {
  OutputPlan plan;
  plan.tensors.push_back(
      {.name = container.name == "gguf" ? "blk.0.ffn_up.weight" : "model.layers.0.mlp.up_proj.weight",
       .shape = {kShape.rows, kShape.cols},
       .grid = grid,
       .ordered = ordered});
  plan.metadata.set("general.architecture", std::string("llama"));
  plan.config = {{"architectures", {"LlamaForCausalLM"}}, {"model_type", "llama"}, {"torch_dtype", "float16"}};
  return plan;
}

std::vector<float> second_opinion(const Container& container, const std::filesystem::path& path,
                                  const std::string& name, const Grid& grid) {
  if (step_of(grid) > 1) {  // the second reader knows the codebooks from the reference data alone
    const auto codebooks = test::shared("formats/iq_grids.txt");
    if (!std::filesystem::exists(codebooks)) return {};
    static const bool read = (test::read_codebooks(codebooks.string()), true);
    static_cast<void>(read);
  }
  if (container.name == "gguf") return test::read_gguf(path).at(name).values;
  return test::read_hf_directory(path).at(name).values;
}

TEST(Cross, EverySolverGridAndContainer) {
  test::TemporaryDirectory directory;
  int written = 0;
  for (const Container& container : all_containers())
    for (const Grid& wanted : grids_of_files())
      for (const Solver& solver : kSolvers) {
        Verdict verdict = container.accept(wanted, solver.ordered);
        if (verdict.grid && container.place) verdict = container.place(*verdict.grid, kShape, DType::f16);
        if (!verdict.grid) {
          EXPECT_FALSE(verdict.why.empty()) << container.name << " " << name_of(wanted);
          continue;
        }
        SCOPED_TRACE(fmt::format("{} {} {}", container.name, name_of(*verdict.grid), solver.name));
        const Quantized q = solver.solve(*verdict.grid);
        const OutputPlan plan = plan_of(container, *verdict.grid, solver.ordered);
        const std::string name = plan.tensors[0].name;
        const auto path = directory / fmt::format("{}{}", written++, container.name == "gguf" ? ".gguf" : "");
        const auto writer = container.create(path, plan, false);
        writer->add(name, q);
        writer->seal();
        writer->commit();

        const Matrix intended = dequantize(q);
        const Weight weight = Checkpoint::open(path)->load(name);
        ASSERT_TRUE(std::holds_alternative<Quantized>(weight));
        EXPECT_EQ(dequantize(std::get<Quantized>(weight)), intended);
        const std::vector<float> second = second_opinion(container, path, name, wanted);
        if (!second.empty()) {
          ASSERT_EQ(second.size(), static_cast<size_t>(intended.size()));
          EXPECT_TRUE(std::equal(second.begin(), second.end(), intended.data()));
        }
        std::filesystem::remove_all(path);
      }
  EXPECT_GT(written, 100);
}

TEST(Cross, ErrorFeedbackBeatsRoundingOnEveryGrid) {
  for (const Grid& grid : grids()) {
    SCOPED_TRACE(name_of(grid));
    const Problem& p = problem();
    const double nearest = relative_output_error(p.w, dequantize(kSolvers[1].solve(grid)), p.hessian);
    const double important = relative_output_error(p.w, dequantize(kSolvers[2].solve(grid)), p.hessian);
    const double gptq = relative_output_error(p.w, dequantize(kSolvers[4].solve(grid)), p.hessian);
    EXPECT_LT(important, nearest);
    // Columns that are rounded together see each other only through their diagonal: no more than weights do for them.
    EXPECT_LT(gptq, (step_of(grid) == 1 ? 0.8 : 1.1) * important);
    EXPECT_LT(gptq, 0.8 * nearest);
  }
}

}  // namespace
}  // namespace pare
