// Against what GPTQModel 7.6.0 and AutoGPTQ 0.7.1 reach on one layer (golden/gptq/README.md), in every configuration
// they were run in.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <map>

#include "pare/base/float_formats.h"
#include "pare/base/json.h"
#include "pare/base/mapped_file.h"
#include "tests/solver/problems.h"
#include "tests/support/golden.h"

namespace pare {
namespace {

// One f16 matrix of a safetensors file: 8 bytes of header size, JSON, data.
Matrix read_f16(const std::filesystem::path& path, const std::string& name) {
  const auto file = MappedFile::open(path);
  const char* bytes = reinterpret_cast<const char*>(file->bytes().data());
  uint64_t size;
  std::memcpy(&size, bytes, 8);
  const Json tensor = parse_json({bytes + 8, size}, path.string()).at(name);
  EXPECT_EQ(tensor.at("dtype"), "F16");
  Matrix m(tensor.at("shape")[0].get<int64_t>(), tensor.at("shape")[1].get<int64_t>());
  const char* from = bytes + 8 + size + tensor.at("data_offsets")[0].get<size_t>();
  for (float& x : m.values()) {
    uint16_t half;
    std::memcpy(&half, from, 2);
    from += 2;
    x = f16_to_f32(half);
  }
  return m;
}

using test::Problem;

Problem golden_problem() {
  const auto path = test::shared("golden/gptq/solver/problem.safetensors");
  const Matrix x = read_f16(path, "X");
  Problem p{read_f16(path, "W"), Matrix(x.cols(), x.cols())};
  add_gram(x, p.h);
  mirror_lower(p.h);
  for (float& v : p.h.values()) v *= 2.0f / static_cast<float>(x.rows());
  return p;
}

// "b4_g128_sym_act_static"
struct Configuration {
  AffineSpec spec;
  GptqOptions options;
};
Configuration parse(const std::string& key, Search search) {
  const auto has = [&](const char* part) { return key.find(part) != std::string::npos; };
  Configuration c;
  c.spec.bits = key[1] - '0';
  c.spec.group = has("gcol") ? 0 : has("g128") ? 128 : 32;
  c.spec.symmetric = has("_sym");
  c.options.damp = 0.01;
  c.options.order = has("_gar") ? ColumnOrder::windows : has("_act") ? ColumnOrder::stored : ColumnOrder::natural;
  c.options.static_groups = has("_static");
  c.options.fit.search = search;
  return c;
}

class Golden : public testing::TestWithParam<const char*> {
 protected:
  // Our loss over the reference's, by configuration.
  std::map<std::string, double> ratios(Search search) {
    const Problem p = golden_problem();
    const auto path = test::shared(fmt::format("golden/gptq/solver/{}.json", GetParam()));
    std::map<std::string, double> out;
    const Json results = read_json_file(path).at("results");
    for (const auto& [key, result] : results.items()) {
      const Configuration c = parse(key, search);
      const HessianFactor factor = factor_hessian(p.h, window_of(c.spec, p.w.cols()), c.options);
      EXPECT_EQ(factor.dead, std::vector<int32_t>{17});
      EXPECT_EQ(factor.attempts, 1);
      const Matrix q = dequantize(gptq(p.w, factor, c.spec, c.options).quantized);
      out[key] = test::exact_error(p.w, q, p.h) / result.at("proxy_loss").get<double>();
    }
    EXPECT_GE(out.size(), 26u);
    return out;
  }
};
INSTANTIATE_TEST_SUITE_P(Gptq, Golden, testing::Values("gptqmodel", "autogptq"));

TEST_P(Golden, LosesNoMoreThanTheReferenceInAnyCase) {
  PARE_NEEDS_SHARED("golden/gptq/solver");
  for (const auto& [key, ratio] : ratios(Search::error)) EXPECT_LE(ratio, 1.005) << key;
}

// The same algorithm but for one thing: our scales are exact in f16, as files store them, theirs are f32. That tips
// weights midway between two values (of every symmetric group the extreme one is), and then the rest of their rows, so
// that single cases scatter by two percent; their mean must not. The group-aware order is another than theirs.
TEST_P(Golden, EqualsTheReferenceWithItsOwnFit) {
  PARE_NEEDS_SHARED("golden/gptq/solver");
  double log_sum = 0;
  int count = 0;
  for (const auto& [key, ratio] : ratios(Search::range)) {
    EXPECT_LE(ratio, 1.03) << key;
    if (key.find("_gar") != std::string::npos) continue;
    EXPECT_GE(ratio, 0.94) << key << ": suspiciously good for the same algorithm";
    log_sum += std::log(ratio);
    ++count;
  }
  EXPECT_LE(std::exp(log_sum / count), 1.0);
  EXPECT_GE(std::exp(log_sum / count), 0.98);
}

}  // namespace
}  // namespace pare
