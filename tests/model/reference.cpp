// The second forward pass. One position after the other, everything in double.
#include <cmath>
#include <functional>

#include "tests/model/models.h"

namespace pare::test {
namespace {

using Row = std::vector<double>;

class Reference {
 public:
  explicit Reference(const TinyModel& model) : m_(model), c_(model.config) {
    const std::string name = c_["architectures"][0];
    gpt2_ = name == "GPT2LMHeadModel";
    opt_ = name == "OPTForCausalLM";
    hidden_ = number("hidden_size", number("n_embd", 0));
    heads_ = number("num_attention_heads", number("n_head", 0));
    kv_heads_ = number("num_key_value_heads", heads_);
    dim_ = number("head_dim", hidden_ / heads_);
    layers_ = number("num_hidden_layers", number("n_layer", 0));
    pre_norm_ = !opt_ || c_["do_layer_norm_before"].get<bool>();
  }

  std::vector<Row> run(const std::vector<int32_t>& tokens) {
    std::vector<Row> x;
    for (size_t t = 0; t < tokens.size(); ++t) x.push_back(embed(tokens[t], t));
    for (int64_t layer = 0; layer < layers_; ++layer) {
      std::vector<Row> input;
      for (const Row& row : x) input.push_back(pre_norm_ ? norm(attn_norm(layer), row) : row);
      const std::vector<Row> mixed = attention(layer, input);
      for (size_t t = 0; t < x.size(); ++t) {
        x[t] = sum(x[t], mixed[t]);
        if (!pre_norm_) x[t] = norm(attn_norm(layer), x[t]);
        x[t] = sum(x[t], feed_forward(layer, pre_norm_ ? norm(ffn_norm(layer), x[t]) : x[t]));
        if (!pre_norm_) x[t] = norm(ffn_norm(layer), x[t]);
      }
    }
    for (Row& row : x) row = head(row);
    return x;
  }

 private:
  int64_t number(const char* key, int64_t otherwise) const {
    return c_.contains(key) && c_[key].is_number() ? c_[key].get<int64_t>() : otherwise;
  }
  std::string block(int64_t layer) const {
    return (gpt2_ ? "transformer.h." : opt_ ? "model.decoder.layers." : "model.layers.") + std::to_string(layer) + ".";
  }
  std::string attn_norm(int64_t l) const {
    return block(l) + (gpt2_ ? "ln_1" : opt_ ? "self_attn_layer_norm" : "input_layernorm");
  }
  std::string ffn_norm(int64_t l) const {
    return block(l) + (gpt2_ ? "ln_2" : opt_ ? "final_layer_norm" : "post_attention_layernorm");
  }

  static Row sum(Row a, const Row& b) {
    for (size_t i = 0; i < a.size(); ++i) a[i] += b[i];
    return a;
  }

  Row row_of(const std::string& name, int64_t row) const {
    const StoredFloats& t = m_.at(name);
    const int64_t n = t.shape[1];
    return {t.values.begin() + row * n, t.values.begin() + (row + 1) * n};
  }

  Row linear(const std::string& name, const Row& x, bool conv1d = false) const {
    const StoredFloats& w = m_.at(name + ".weight");
    const size_t out = static_cast<size_t>(w.shape[conv1d ? 1 : 0]);
    Row y(out);
    for (size_t r = 0; r < out; ++r)
      for (size_t i = 0; i < x.size(); ++i)
        y[r] += x[i] * static_cast<double>(conv1d ? w.values[i * out + r] : w.values[r * x.size() + i]);
    const auto bias = m_.tensors.find(name + ".bias");
    if (bias != m_.tensors.end())
      for (size_t r = 0; r < out; ++r) y[r] += static_cast<double>(bias->second.values[r]);
    return y;
  }

  Row norm(const std::string& name, const Row& x) const {
    const auto n = static_cast<double>(x.size());
    const bool layer_norm = gpt2_ || opt_;
    double mean = 0, square = 0;
    for (const double v : x) mean += v / n;
    if (!layer_norm) mean = 0;
    for (const double v : x) square += (v - mean) * (v - mean) / n;
    Row y(x.size());
    for (size_t i = 0; i < x.size(); ++i) {
      y[i] = (x[i] - mean) / std::sqrt(square + 1e-5) * static_cast<double>(m_.at(name + ".weight").values[i]);
      if (layer_norm) y[i] += static_cast<double>(m_.at(name + ".bias").values[i]);
    }
    return y;
  }

  Row embed(int32_t token, size_t position) const {
    const auto t = static_cast<int64_t>(position);
    if (gpt2_) return sum(row_of("transformer.wte.weight", token), row_of("transformer.wpe.weight", t));
    if (!opt_) return row_of("model.embed_tokens.weight", token);
    Row x = row_of("model.decoder.embed_tokens.weight", token);
    if (m_.tensors.contains("model.decoder.project_in.weight")) x = linear("model.decoder.project_in", x);
    return sum(x, row_of("model.decoder.embed_positions.weight", t + 2));
  }

  Row head(Row x) const {
    if (gpt2_) x = norm("transformer.ln_f", x);
    if (opt_ && pre_norm_) x = norm("model.decoder.final_layer_norm", x);
    if (!gpt2_ && !opt_) x = norm("model.norm", x);
    if (opt_ && m_.tensors.contains("model.decoder.project_out.weight")) x = linear("model.decoder.project_out", x);
    if (gpt2_) return linear("transformer.wte", x);
    if (opt_) return linear("model.decoder.embed_tokens", x);
    return linear(m_.tensors.contains("lm_head.weight") ? "lm_head" : "model.embed_tokens", x);
  }

  // Normalizes (Qwen3) and rotates one head.
  void finish_head(double* head, const std::string& norm_name, size_t position) const {
    const auto d = static_cast<size_t>(dim_);
    if (m_.tensors.contains(norm_name + ".weight")) {
      const Row y = norm(norm_name, Row(head, head + d));
      std::copy(y.begin(), y.end(), head);
    }
    if (gpt2_ || opt_) return;
    for (size_t i = 0; i < d / 2; ++i) {
      const double theta = c_["rope_theta"].get<double>();
      const double angle = static_cast<double>(position) * std::pow(theta, -2.0 * double(i) / double(d));
      const double a = head[i], b = head[i + d / 2];
      head[i] = a * std::cos(angle) - b * std::sin(angle);
      head[i + d / 2] = b * std::cos(angle) + a * std::sin(angle);
    }
  }

  std::vector<Row> attention(int64_t layer, const std::vector<Row>& input) const {
    const std::string at = block(layer) + (gpt2_ ? "attn." : "self_attn.");
    std::vector<Row> q, k, v;
    for (size_t t = 0; t < input.size(); ++t) {
      if (gpt2_) {
        const Row all = linear(at + "c_attn", input[t], true);
        const auto h = static_cast<ptrdiff_t>(hidden_);
        q.emplace_back(all.begin(), all.begin() + h);
        k.emplace_back(all.begin() + h, all.begin() + 2 * h);
        v.emplace_back(all.begin() + 2 * h, all.end());
      } else {
        q.push_back(linear(at + "q_proj", input[t]));
        k.push_back(linear(at + "k_proj", input[t]));
        v.push_back(linear(at + "v_proj", input[t]));
      }
      for (int64_t h = 0; h < heads_; ++h) finish_head(q[t].data() + h * dim_, at + "q_norm", t);
      for (int64_t h = 0; h < kv_heads_; ++h) finish_head(k[t].data() + h * dim_, at + "k_norm", t);
    }
    const int64_t window = number("sliding_window", 0);
    std::vector<Row> out;
    for (size_t t = 0; t < input.size(); ++t) {
      Row mixed(static_cast<size_t>(heads_ * dim_));
      for (int64_t h = 0; h < heads_; ++h) {
        const int64_t kv = h / (heads_ / kv_heads_);
        Row p;
        double total = 0;
        const size_t begin =
            window > 0 && t + 1 > static_cast<size_t>(window) ? t + 1 - static_cast<size_t>(window) : 0;
        for (size_t s = begin; s <= t; ++s) {
          double dot = 0;
          for (int64_t i = 0; i < dim_; ++i)
            dot += q[t][static_cast<size_t>(h * dim_ + i)] * k[s][static_cast<size_t>(kv * dim_ + i)];
          p.push_back(std::exp(dot / std::sqrt(static_cast<double>(dim_))));
          total += p.back();
        }
        for (size_t s = begin; s <= t; ++s)
          for (int64_t i = 0; i < dim_; ++i)
            mixed[static_cast<size_t>(h * dim_ + i)] += p[s - begin] / total * v[s][static_cast<size_t>(kv * dim_ + i)];
      }
      out.push_back(linear(at + (gpt2_ ? "c_proj" : opt_ ? "out_proj" : "o_proj"), mixed, gpt2_));
    }
    return out;
  }

  Row feed_forward(int64_t layer, const Row& x) const {
    if (gpt2_) {
      Row y = linear(block(layer) + "mlp.c_fc", x, true);
      for (double& v : y)
        v = 0.5 * v * (1 + std::tanh(std::sqrt(2 / 3.14159265358979323846) * (v + 0.044715 * v * v * v)));
      return linear(block(layer) + "mlp.c_proj", y, true);
    }
    if (opt_) {
      Row y = linear(block(layer) + "fc1", x);
      for (double& v : y) v = std::max(v, 0.0);
      return linear(block(layer) + "fc2", y);
    }
    if (c_.contains("num_local_experts")) return mixture(block(layer) + "block_sparse_moe.", x);
    return gated(block(layer) + "mlp.gate_proj", block(layer) + "mlp.up_proj", block(layer) + "mlp.down_proj", x);
  }

  Row gated(const std::string& gate_name, const std::string& up_name, const std::string& down_name,
            const Row& x) const {
    Row gate = linear(gate_name, x);
    const Row up = linear(up_name, x);
    for (size_t i = 0; i < gate.size(); ++i) gate[i] = gate[i] / (1 + std::exp(-gate[i])) * up[i];
    return linear(down_name, gate);
  }

  // The two experts with the largest logits, weighted by the softmax over the two.
  Row mixture(const std::string& at, const Row& x) const {
    const Row logits = linear(at + "gate", x);
    size_t first = 0, second = 1;
    if (logits[1] > logits[0]) std::swap(first, second);
    for (size_t e = 2; e < logits.size(); ++e) {
      if (logits[e] > logits[first])
        second = first, first = e;
      else if (logits[e] > logits[second])
        second = e;
    }
    const double share = 1 / (1 + std::exp(logits[second] - logits[first]));
    Row out(x.size());
    for (const auto& [expert, weight] : {std::pair{first, share}, {second, 1 - share}}) {
      const std::string name = at + "experts." + std::to_string(expert) + ".";
      const Row y = gated(name + "w1", name + "w3", name + "w2", x);
      for (size_t i = 0; i < out.size(); ++i) out[i] += weight * y[i];
    }
    return out;
  }

  const TinyModel& m_;
  const Json& c_;
  bool gpt2_ = false, opt_ = false, pre_norm_ = true;
  int64_t hidden_ = 0, heads_ = 0, kv_heads_ = 0, dim_ = 0, layers_ = 0;
};

}  // namespace

std::vector<std::vector<double>> reference_logits(const TinyModel& model, const std::vector<int32_t>& tokens) {
  return Reference(model).run(tokens);
}

}  // namespace pare::test
