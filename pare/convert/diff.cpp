#include "pare/convert/diff.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>

#include "pare/base/error.h"
#include "pare/base/interrupt.h"
#include "pare/base/threads.h"
#include "pare/convert/arrangement.h"

namespace pare {
namespace {

// Sums of one panel of rows, or of all of them.
struct Sums {
  double error = 0, power_a = 0, power_b = 0, product = 0, largest = 0;
  int64_t different = 0;
  void add(const Sums& s) {
    error += s.error;
    power_a += s.power_a;
    power_b += s.power_b;
    product += s.product;
    largest = std::max(largest, s.largest);
    different += s.different;
  }
};

// Panels of fixed size, added up in order: the same result on any number of threads.
Sums compare(const Matrix& a, const Matrix& b) {
  constexpr int64_t kPanel = 1 << 16;  // values
  const int64_t count = a.size(), panels = (count + kPanel - 1) / kPanel;
  std::vector<Sums> parts(static_cast<size_t>(panels));
  parallel_for(panels, [&](int64_t p) {
    Sums& s = parts[static_cast<size_t>(p)];
    for (int64_t i = p * kPanel; i < std::min(count, (p + 1) * kPanel); ++i) {
      const double x = a.data()[i], y = b.data()[i], d = x - y;
      s.error += d * d;
      s.power_a += x * x;
      s.power_b += y * y;
      s.product += x * y;
      s.largest = std::max(s.largest, std::fabs(d));
      s.different += x == y ? 0 : 1;
    }
  });
  Sums total;
  for (const Sums& s : parts) total.add(s);
  return total;
}

double relative(double error, double power) {
  if (error == 0) return 0;
  return power > 0 ? error / power : std::numeric_limits<double>::infinity();
}

class Comparison {
 public:
  Comparison(std::shared_ptr<const Checkpoint> a, std::shared_ptr<const Checkpoint> b)
      : a_(std::move(a)), b_(std::move(b)) {}

  Diff run(const Observer& observer) {
    std::map<std::string, std::string> theirs;  // key -> name in B
    const std::vector<std::string> names_a = a_.checkpoint().weights(), names_b = b_.checkpoint().weights();
    for (const std::string& name : names_b) theirs.emplace(key(b_, name), name);
    int64_t done = 0;
    for (const std::string& name : names_a) {
      check_interrupt();
      const auto at = theirs.find(key(a_, name));
      if (at == theirs.end()) {
        out_.only_in_a.push_back(side(a_, name));
      } else {
        add(name, at->second);
        theirs.erase(at);
      }
      observer.report({.stage = "compare", .detail = name, .done = ++done, .total = std::ssize(names_a)});
    }
    for (const std::string& name : names_b)
      if (const auto at = theirs.find(key(b_, name)); at != theirs.end() && at->second == name)
        out_.only_in_b.push_back(side(b_, name));
    finish();
    return std::move(out_);
  }

 private:
  // By meaning where both are of one known architecture; else by name.
  std::string key(const Arrangement& side, const std::string& name) const {
    return by_meaning() ? side.key(name) : name;
  }
  bool by_meaning() const { return a_.config() && b_.config(); }

  static DiffSide side(const Arrangement& from, const std::string& name) {
    const Checkpoint& checkpoint = from.checkpoint();
    DiffSide out{.name = name, .type = {}, .shape = from.shape(name)};
    const auto grid = checkpoint.grid_of_weight(name);
    out.type = grid ? name_of(*grid) : checkpoint.find(name)->type;
    if (out.shape.size() > 0)
      out.bits = 8.0 * static_cast<double>(checkpoint.bytes_of(name)) / static_cast<double>(out.shape.size());
    return out;
  }

  void add(const std::string& name_a, const std::string& name_b) {
    DiffTensor t{.a = side(a_, name_a), .b = side(b_, name_b)};
    t.comparable = t.a.shape == t.b.shape;
    if (t.comparable) {
      const Sums s = compare(a_.values(name_a), b_.values(name_b));
      t.relative_error = relative(s.error, s.power_a);
      const double lengths = std::sqrt(s.power_a) * std::sqrt(s.power_b);
      t.cosine = lengths > 0 ? s.product / lengths : (s.power_a == s.power_b ? 1 : 0);
      t.largest = s.largest;
      t.different = s.different;
      total_.add(s);
    }
    out_.tensors.push_back(std::move(t));
  }

  void finish() {
    out_.relative_error = relative(total_.error, total_.power_a);
    for (const Arrangement* side : {&a_, &b_})
      if (side->unknown())
        out_.notes.push_back(fmt::format("{}: tensors are matched by name alone ({})",
                                         side->checkpoint().path().string(), *side->unknown()));
    if (out_.tensors.empty())
      throw Error({.what = "the two checkpoints have no tensor in common",
                   .where = fmt::format("{} and {}", a_.checkpoint().path().string(), b_.checkpoint().path().string()),
                   .expected = "two forms of one model",
                   .got = out_.notes.empty() ? "other names" : out_.notes.front(),
                   .remedy = "`pare inspect --tensors` lists the names of each"});
  }

  Arrangement a_, b_;
  Diff out_;
  Sums total_;
};

}  // namespace

bool Diff::equal() const {
  return only_in_a.empty() && only_in_b.empty() && std::all_of(tensors.begin(), tensors.end(), [](const DiffTensor& t) {
           return t.comparable && t.different == 0;
         });
}

Diff diff(std::shared_ptr<const Checkpoint> a, std::shared_ptr<const Checkpoint> b, const Observer& observer) {
  return Comparison(std::move(a), std::move(b)).run(observer);
}

}  // namespace pare
