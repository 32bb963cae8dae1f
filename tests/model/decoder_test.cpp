// Properties of the forward pass on models made here; the second forward pass is the oracle.
#include <algorithm>
#include <cmath>

#include "pare/base/threads.h"
#include "tests/model/models.h"

namespace pare::test {
namespace {

struct Case {
  std::string name;
  TinyModel model;
};

std::vector<Case> all_cases() {
  LlamaOptions biased;
  biased.attention_bias = biased.mlp_bias = true;
  biased.kv_heads = 4;
  LlamaOptions tied;
  tied.tied = true;
  tied.kv_heads = 1;
  tied.head_dim = 12;  // wider than hidden / heads
  LlamaOptions mistral;
  mistral.hf_class = "MistralForCausalLM";
  mistral.sliding_window = 5;
  LlamaOptions qwen2;
  qwen2.hf_class = "Qwen2ForCausalLM";
  LlamaOptions qwen3;
  qwen3.hf_class = "Qwen3ForCausalLM";
  qwen3.qk_norm = true;
  LlamaOptions mixtral;
  mixtral.hf_class = "MixtralForCausalLM";
  mixtral.experts = 5;
  return {{"mixtral", llama_like(mixtral)},     {"llama", llama_like({})},
          {"llama_biased", llama_like(biased)}, {"llama_tied", llama_like(tied)},
          {"mistral", llama_like(mistral)},     {"qwen2", llama_like(qwen2)},
          {"qwen3", llama_like(qwen3)},         {"opt_pre", opt_like(true, 32)},
          {"opt_post", opt_like(false, 20)},    {"gpt2", gpt2_like()}};
}

class EveryFamily : public testing::TestWithParam<Case> {
 protected:
  TemporaryDirectory dir_;
  std::vector<int32_t> tokens_ = some_tokens(23, 50);
};
INSTANTIATE_TEST_SUITE_P(Decoder, EveryFamily, testing::ValuesIn(all_cases()),
                         [](const auto& one) { return one.param.name; });

TEST_P(EveryFamily, EqualsTheSecondForwardPass) {
  const auto expected = reference_logits(GetParam().model, tokens_);
  for (const DType type : {DType::f32, DType::bf16}) {  // the weights are exact in both
    const Decoder model(stored(GetParam().model, dir_ / std::string(info(type).name), type));
    EXPECT_LT(relative_difference(model.logits(tokens_), expected), 3e-6) << info(type).name;
  }
}

TEST_P(EveryFamily, PiecesOfAnySizeGiveTheSameLogits) {
  const Decoder model(stored(GetParam().model, dir_.path()));
  const Matrix whole = model.logits(tokens_);
  for (const size_t piece : {size_t{1}, size_t{4}, size_t{9}, tokens_.size()}) {
    KvCache cache(model.config(), 40);
    for (size_t at = 0; at < tokens_.size(); at += piece) {
      const size_t n = std::min(piece, tokens_.size() - at);
      const Matrix part = model.forward({tokens_.data() + at, n}, cache, true);
      const auto first = static_cast<int64_t>(at);
      EXPECT_LT(relative_difference(part, MatrixView(whole).rows_between(first, first + part.rows())), 3e-6) << piece;
    }
    EXPECT_EQ(cache.length(), static_cast<int64_t>(tokens_.size()));
  }
}

TEST_P(EveryFamily, OnlyTheLastLogitsAreThoseOfAll) {
  const Decoder model(stored(GetParam().model, dir_.path()));
  KvCache cache(model.config(), 23), again(model.config(), 23);
  const Matrix all = model.forward(tokens_, cache, true), last = model.forward(tokens_, again, false);
  ASSERT_EQ(last.rows(), 1);
  EXPECT_LT(relative_difference(last, MatrixView(all).rows_between(22, 23)), 1e-6);
}

TEST_P(EveryFamily, StagesComposeExactly) {
  const Decoder model(stored(GetParam().model, dir_.path()));
  Matrix hidden = model.embed(tokens_);
  for (int layer = 0; layer < 2; ++layer) {
    model.attention(layer, hidden);
    model.feed_forward(layer, hidden);
  }
  EXPECT_EQ(model.head(hidden), model.logits(tokens_));
}

// A stage's output follows from its site's input through the linears of that site.
TEST_P(EveryFamily, SitesAreWhatTheirLinearsRead) {
  const Decoder model(stored(GetParam().model, dir_.path()));
  Matrix before = model.embed(tokens_);
  const std::vector<Tap> taps = model.taps(0);
  for (const Site out : {Site::attn_out, Site::ffn_out}) {
    if (std::ranges::find(taps, Tap{out}) == taps.end()) continue;
    const Matrix input = model.tap_input(0, {out}, before);
    Matrix after = before;
    if (out == Site::attn_out)
      model.attention(0, after);
    else
      model.feed_forward(0, after);
    for (const Linear& linear : model.linears(0)) {
      if (linear.tap.site != out) continue;
      ASSERT_EQ(linear.shape.cols, input.cols());
      if (model.config().norm_place != NormPlace::input) continue;
      const Matrix w = model.weight(linear);
      const double bias_free_step = after(3, 1) - before(3, 1);
      double step = 0;
      for (int64_t c = 0; c < w.cols(); ++c) step += double{w(1, c)} * double{input(3, c)};
      const std::string bias = linear.name.substr(0, linear.name.size() - 6) + "bias";
      if (GetParam().model.tensors.contains(bias)) step += double{GetParam().model.at(bias).values[1]};
      EXPECT_NEAR(bias_free_step, step, 2e-5) << linear.name;
    }
    before = after;
  }
}

// Every token is seen by two experts; what an expert reads at its last projection follows from what it reads at first;
// and told to take all tokens, it does.
TEST(Experts, TapsHoldTheTokensThatTakeThem) {
  TemporaryDirectory dir;
  LlamaOptions o;
  o.hf_class = "MixtralForCausalLM";
  o.experts = 4;
  const TinyModel tiny = llama_like(o);
  const Decoder model(stored(tiny, dir.path()));
  const auto tokens = some_tokens(40, 50);
  Matrix hidden = model.embed(tokens);
  model.attention(0, hidden);
  int64_t visits = 0;
  for (int e = 0; e < 4; ++e) {
    const Matrix in = model.tap_input(0, {Site::ffn_in, e}, hidden),
                 out = model.tap_input(0, {Site::ffn_out, e}, hidden);
    EXPECT_EQ(in.rows(), out.rows());
    EXPECT_EQ(out.cols(), o.ffn);
    visits += in.rows();
    const Matrix all = model.tap_input(0, {Site::ffn_in, e}, hidden, true);
    ASSERT_EQ(all.rows(), 40);
    int64_t at = 0;  // in is some of all, in their order
    for (int64_t r = 0; r < in.rows(); ++r, ++at)
      while (at < 40 && !std::equal(in.row(r), in.row(r) + in.cols(), all.row(at))) ++at;
    EXPECT_LE(at, 40);
    const auto linears = model.linears(0);
    const auto weight = [&](Role role) {
      return model.weight(
          *std::ranges::find_if(linears, [&](const Linear& l) { return l.role == role && l.tap.expert == e; }));
    };
    const Matrix gate = weight(Role::expert_gate), up = weight(Role::expert_up);
    for (int64_t r = 0; r < in.rows(); ++r) {
      double g = 0, u = 0;
      for (int64_t c = 0; c < in.cols(); ++c) {
        g += double{gate(3, c)} * double{in(r, c)};
        u += double{up(3, c)} * double{in(r, c)};
      }
      EXPECT_NEAR(out(r, 3), g / (1 + std::exp(-g)) * u, 1e-5);
    }
  }
  EXPECT_EQ(visits, 80);
}

TEST_P(EveryFamily, ListsItsLinearsInTheOrderOfTheirSites) {
  const Decoder model(stored(GetParam().model, dir_.path()));
  const auto linears = model.linears(1);
  EXPECT_TRUE(std::is_sorted(linears.begin(), linears.end(), [](const Linear& a, const Linear& b) {
    return std::pair(a.tap.expert, a.tap.site) < std::pair(b.tap.expert, b.tap.site);
  }));
  for (const Linear& linear : linears) {
    ASSERT_TRUE(GetParam().model.tensors.contains(linear.name)) << linear.name;
    const StoredFloats& stored_as = GetParam().model.at(linear.name);
    const Matrix w = model.weight(linear);
    EXPECT_EQ(w.shape(), linear.shape);
    const bool conv1d = GetParam().name == "gpt2";
    EXPECT_EQ(w(1, 2), conv1d ? stored_as.values[static_cast<size_t>(2 * w.rows() + 1)]
                              : stored_as.values[static_cast<size_t>(w.cols() + 2)]);
  }
}

TEST_P(EveryFamily, AReplacedWeightIsUsedUntilTheLayerIsForgotten) {
  Decoder model(stored(GetParam().model, dir_.path()));
  const Matrix original = model.logits(tokens_);
  TinyModel changed = GetParam().model;
  for (const Linear& linear : model.linears(1)) {
    for (float& v : changed.tensors.at(linear.name).values) v *= 0.5f;
    Matrix w = model.weight(linear);
    for (float& v : w.values()) v *= 0.5f;
    model.replace(linear, PackedMatrix::of_matrix(w));
    EXPECT_NE(model.weight(linear), w);  // still the checkpoint's
  }
  EXPECT_LT(relative_difference(model.logits(tokens_), reference_logits(changed, tokens_)), 3e-6);
  model.forget_layer(1);
  model.forget_layer(0);
  EXPECT_EQ(model.logits(tokens_), original);
}

TEST_P(EveryFamily, ThreadsDoNotChangeLogits) {
  const Decoder model(stored(GetParam().model, dir_.path()));
  const int before = threads();
  set_threads(1);
  const Matrix one = model.logits(tokens_);
  set_threads(3);
  const Matrix three = model.logits(tokens_);
  set_threads(before);
  EXPECT_EQ(one, three);
}

TEST(Decoder, RefusesTokensOutsideTheVocabulary) {
  TemporaryDirectory dir;
  const Decoder model(stored(llama_like({}), dir.path()));
  for (const int32_t id : {-1, 50, 1 << 30}) {
    const ErrorInfo error = error_of([&] { model.logits(std::vector<int32_t>{3, id}); });
    EXPECT_EQ(error.expected, "0 to 49");
    EXPECT_EQ(error.got, std::to_string(id));
  }
}

TEST(Decoder, RefusesMoreTokensThanLearnedPositionsOrTheCache) {
  TemporaryDirectory dir;
  const Decoder gpt2(stored(gpt2_like(), dir / "gpt2")), llama(stored(llama_like({}), dir / "llama"));
  EXPECT_EQ(error_of([&] { gpt2.logits(some_tokens(25, 50)); }).expected, "at most 24 tokens");
  KvCache cache(llama.config(), 10);
  llama.forward(some_tokens(8, 50), cache, false);
  EXPECT_EQ(error_of([&] { llama.forward(some_tokens(3, 50), cache, false); }).expected, "at most 10 tokens");
  EXPECT_EQ(cache.length(), 8);                             // and nothing was forgotten
  EXPECT_EQ(llama.logits(some_tokens(70, 50)).rows(), 70);  // a rotary model has no end
}

TEST(Decoder, ACacheCanBeCutBack) {
  TemporaryDirectory dir;
  const Decoder model(stored(llama_like({}), dir.path()));
  const auto tokens = some_tokens(20, 50);
  KvCache cache(model.config(), 30);
  EXPECT_EQ(cache.bytes(), 2 * 2 * 30 * 16 * 4);
  const Matrix all = model.forward(tokens, cache, true);
  cache.truncate(7);
  const Matrix again = model.forward({tokens.data() + 7, 13}, cache, true);
  EXPECT_LT(relative_difference(again, MatrixView(all).rows_between(7, 20)), 3e-6);
}

TEST(Decoder, LongSequencesCrossEveryTileOfTheAttention) {
  LlamaOptions o;
  o.layers = 1;
  o.heads = 3;
  o.kv_heads = 1;
  for (const int64_t window : {0, 70, 300}) {
    TemporaryDirectory dir;
    o.hf_class = window > 0 ? "MistralForCausalLM" : "LlamaForCausalLM";
    o.sliding_window = window;
    const TinyModel tiny = llama_like(o);
    const Decoder model(stored(tiny, dir.path()));
    const auto tokens = some_tokens(301, 50);
    EXPECT_LT(relative_difference(model.logits(tokens), reference_logits(tiny, tokens)), 1e-5) << window;
  }
}

TEST(Decoder, ReadsAFileWithoutTheBasePrefix) {
  TemporaryDirectory dir;
  const TinyModel tiny = gpt2_like();
  TinyModel bare{tiny.config, {}};
  for (const auto& [name, t] : tiny.tensors) bare.tensors[name.substr(12)] = t;  // without "transformer."
  const Decoder model(stored(bare, dir.path()));
  EXPECT_EQ(model.linears(1)[0].name, "h.1.attn.c_attn.weight");
  const auto tokens = some_tokens(9, 50);
  EXPECT_LT(relative_difference(model.logits(tokens), reference_logits(tiny, tokens)), 3e-6);
}

TEST(Decoder, CountsTheBytesOfItsWeights) {
  TemporaryDirectory dir;
  const TinyModel tiny = llama_like({});
  int64_t matrices = 0;
  for (const auto& [name, t] : tiny.tensors)
    if (t.shape.size() == 2) matrices += static_cast<int64_t>(t.values.size());
  EXPECT_EQ(Decoder(stored(tiny, dir / "f32")).weight_bytes(), 4 * matrices);
  EXPECT_EQ(Decoder(stored(tiny, dir / "bf16", DType::bf16)).weight_bytes(), 2 * matrices);
}

}  // namespace
}  // namespace pare::test
