#include "pare/tokenizer/gguf_special_keys.h"

#include <algorithm>
#include <map>

#include "pare/base/mapped_file.h"
#include "pare/tokenizer/json_fields.h"

namespace pare::tok {
namespace {

const Json kNull;

const Json& member(const Json& object, const std::string& key) {
  return object.is_object() && object.contains(key) ? object.at(key) : kNull;
}

constexpr size_t kMaxTemplate = size_t{4} << 20;

// The roles in the order in which the reference asks for them, and the words of their GGUF keys ("seperator" is the
// format's spelling).
struct Role {
  const char* name;
  const char* id_key;    // tokenizer.ggml.<…>_token_id; null: has none
  const char* flag_key;  // tokenizer.ggml.add_<…>_token
};
constexpr Role kRoles[] = {{"bos", "bos", "bos"},       {"eos", "eos", "eos"},       {"unk", "unknown", nullptr},
                           {"sep", "seperator", "sep"}, {"pad", "padding", nullptr}, {"cls", nullptr, nullptr},
                           {"mask", "mask", nullptr},   {"eot", "eot", nullptr},     {"eom", "eom", nullptr}};

const Role& role_named(const std::string& name) {
  return *std::find_if(std::begin(kRoles), std::end(kRoles), [&](const Role& r) { return r.name == name; });
}

class SpecialKeys {
 public:
  SpecialKeys(const ModelDirectory& directory, const Json& tokenizer, int64_t vocabulary_size)
      : directory_(directory), tokenizer_(tokenizer), config_(directory.tokenizer_config), size_(vocabulary_size) {}

  void gather() {
    if (!tokenizer_.is_null()) read_post_processor();
    read_roles();
    for (const std::string& role : roles_) set_id(role, member(directory_.config, role + "_token_id"));
  }
  void write(Metadata& metadata) const {
    for (const auto& [role, id] : ids_)
      if (const char* key = role_named(role).id_key)
        metadata.set(fmt::format("tokenizer.ggml.{}_token_id", key), static_cast<uint32_t>(id));
    for (const auto& [role, value] : flags_)
      if (const char* key = role_named(role).flag_key)
        metadata.set(fmt::format("tokenizer.ggml.add_{}_token", key), value);
    write_templates(metadata);
  }

 private:
  std::string content(const char* key) const { return token_text(member(config_, key)); }

  void set_flag(const std::string& role, bool value) {
    for (auto& [name, flag] : flags_)
      if (name == role) return void(flag = value);
    flags_.emplace_back(role, value);
  }
  // The first id given to a role stays.
  void set_id(const std::string& role, const Json& id) {
    if (!id.is_number_integer() || id.get<int64_t>() < 0 || id.get<int64_t>() >= size_) return;
    for (const auto& known : ids_)
      if (known.first == role) return;
    ids_.emplace_back(role, id.get<int64_t>());
  }

  void read_post_processor() {
    bos_ = content("bos_token"), eos_ = content("eos_token"), cls_ = content("cls_token"), sep_ = content("sep_token");
    if (bos_.empty()) bos_ = cls_, config_bos_ = cls_;
    if (eos_.empty()) eos_ = sep_, config_eos_ = sep_;
    const Json& post = member(tokenizer_, "post_processor");
    const Json& list = member(post, "processors");
    if (list.is_array())
      for (const Json& processor : list) read_processor(processor);
    else if (post.is_object())
      read_processor(post);
  }
  void read_processor(const Json& processor) {
    const std::string type = text_or(processor, "type", "");
    if (type == "TemplateProcessing") read_template(member(processor, "single"), member(processor, "pair"));
    if (type != "RobertaProcessing") return;
    for (const char* role : {"bos", "eos", "sep"}) set_flag(role, true);
    const Json& sep = member(processor, "sep");
    if (sep_.empty() && sep.is_array() && !sep.empty()) sep_ = token_text(sep[0]), config_sep_ = sep_;
  }
  static std::string special_at(const Json& list, size_t i) {
    return list.is_array() && i < list.size() ? text_or(member(list[i], "SpecialToken"), "id", "") : "";
  }
  static bool is_text(const Json& item, const char* name) {
    return text_or(member(item, "Sequence"), "id", "") == name;
  }

  void read_template(const Json& single, const Json& pair) {
    std::string first, last;
    if (single.is_array() && single.size() > 1) {
      first = special_at(single, 0);
      if (!first.empty()) {
        if (config_.is_null()) bos_ = first;
        set_flag("bos", first == bos_ || first == cls_);
      }
      last = special_at(single, single.size() - 1);
      if (!last.empty()) read_last(last);
    }
    read_separator(first, last, pair);
  }
  // A text that ends in another token than eos: eos is then the token that ends a turn.
  void read_last(const std::string& last) {
    if (!config_.is_null() && last != eos_) {
      roles_.push_back("eot");
      config_eot_ = eos_;
      config_eos_ = last;
    }
    eos_ = last;
    set_flag("eos", true);
  }
  // [first] A sep … B [last]
  void read_separator(const std::string& first, const std::string& last, const Json& pair) {
    if (!pair.is_array()) return;
    size_t begin = 0, end = pair.size();
    if (!first.empty() && special_at(pair, 0) == first) ++begin;
    if (!last.empty() && end > begin && special_at(pair, end - 1) == last) --end;
    if (end < begin + 3 || !is_text(pair[begin], "A") || !is_text(pair[end - 1], "B")) return;
    const std::string separator = special_at(pair, begin + 1);
    set_flag("sep", !separator.empty() && last.empty() && (separator == sep_ || separator == eos_));
  }

  std::string configured(const std::string& role) const {
    if (role == "bos" && config_bos_) return *config_bos_;
    if (role == "eos" && config_eos_) return *config_eos_;
    if (role == "sep" && config_sep_) return *config_sep_;
    if (role == "eot" && config_eot_) return *config_eot_;
    return content((role + "_token").c_str());
  }
  void read_roles() {
    if (!config_.is_object()) return;
    const Json& added = member(tokenizer_, "added_tokens");
    for (const std::string& role : roles_) {
      const Json& add = member(config_, "add_" + role + "_token");
      if (add.is_boolean()) set_flag(role, add.get<bool>());
      const std::string text = configured(role);
      if (text.empty() || !added.is_array()) continue;
      for (const Json& token : added)
        if (text_or(token, "content", "") == text) {
          set_id(role, member(token, "id"));
          break;
        }
    }
  }

  // Named templates, the default one under the empty name.
  std::map<std::string, std::string> templates() const {
    std::map<std::string, std::string> found;
    if (!config_.is_object()) return found;
    const Json& in_config = member(config_, "chat_template");
    if (in_config.is_string()) {
      found[""] = in_config.get<std::string>();
    } else if (in_config.is_array()) {
      for (const Json& choice : in_config) {
        const std::string name = text_or(choice, "name", "");
        if (!name.empty()) found[name == "default" ? "" : name] = text_or(choice, "template", "");
      }
    } else if (directory_.has("chat_template.jinja")) {
      found[""] = read_text_file(directory_.path / "chat_template.jinja", kMaxTemplate);
      std::error_code none;
      for (const auto& file : std::filesystem::directory_iterator(directory_.path / "additional_chat_templates", none))
        if (file.path().extension() == ".jinja")
          found[file.path().stem().string()] = read_text_file(file.path(), kMaxTemplate);
    } else if (directory_.has("chat_template.json")) {
      const std::string text = text_or(read_json_file(directory_.where("chat_template.json")), "chat_template", "");
      if (!text.empty()) found[""] = text;
    }
    return found;
  }
  void write_templates(Metadata& metadata) const {
    std::vector<std::string> names;
    const auto all = templates();
    for (const auto& [name, text] : all) {
      if (name.empty()) continue;
      std::string plain = name;
      for (char& c : plain)
        if (class_of(static_cast<unsigned char>(c)) > Class::number || (c & 0x80)) c = '_';
      metadata.set("tokenizer.chat_template." + plain, text);
      names.push_back(plain);
    }
    if (!names.empty()) metadata.set("tokenizer.chat_templates", names);
    if (const auto usual = all.find(""); usual != all.end()) metadata.set("tokenizer.chat_template", usual->second);
  }

  const ModelDirectory& directory_;
  const Json& tokenizer_;
  const Json& config_;
  int64_t size_;
  std::vector<std::string> roles_{"bos", "eos", "unk", "sep", "pad", "cls", "mask"};
  std::string bos_, eos_, cls_, sep_;
  std::optional<std::string> config_bos_, config_eos_, config_sep_, config_eot_;  // instead of tokenizer_config's
  std::vector<std::pair<std::string, int64_t>> ids_;
  std::vector<std::pair<std::string, bool>> flags_;
};

}  // namespace

void add_special_keys(const ModelDirectory& directory, const Json& tokenizer, int64_t vocabulary_size,
                      Metadata& metadata) {
  SpecialKeys keys(directory, tokenizer, vocabulary_size);
  keys.gather();
  keys.write(metadata);
}

}  // namespace pare::tok
