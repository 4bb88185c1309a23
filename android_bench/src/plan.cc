#include "plan.h"

#include <algorithm>
#include <functional>
#include <set>

#include "failure.h"
#include "fields.h"
#include "files.h"
#include "following.h"

namespace mobileinst {
namespace {

constexpr std::size_t kMaxCalls = 4096;
constexpr std::size_t kMaxTensors = 16;
constexpr std::size_t kMaxRank = 8;
constexpr std::int64_t kMaxElements = std::int64_t{1} << 28;
constexpr std::size_t kMaxName = 200;
constexpr std::size_t kMaxPath = 4095;

template <typename Name>
Name one_of(std::string_view text, std::initializer_list<Name> names, const char* what,
            const Refusal& refuse) {
  for (const Name name : names) {
    if (text == name_of(name)) return name;
  }
  refuse(std::string("unknown ") + what + " " + quoted(text));
}

Dtype dtype(std::string_view text, const Refusal& refuse) {
  return one_of(text, {Dtype::float32, Dtype::uint8, Dtype::int32, Dtype::int64}, "dtype", refuse);
}

Role role(std::string_view text, const Refusal& refuse) {
  return one_of(text, {Role::frame, Role::mask_head}, "graph", refuse);
}

Signature signature(const Fields& fields, const Refusal& refuse) {
  Signature result;
  if (fields[1].size() > kMaxName)
    refuse("the tensor name is longer than " + std::to_string(kMaxName) + " bytes");
  result.name = fields[1];
  result.dtype = dtype(fields[2], refuse);
  std::int64_t elements = 1;
  for (const auto length : split(fields[3], ',')) {
    result.shape.push_back(whole(length, 1, kMaxElements, refuse));
    if (result.shape.size() > kMaxRank || result.shape.back() > kMaxElements / elements) {
      refuse("the shape " + quoted(fields[3]) + " is too large");
    }
    elements *= result.shape.back();
  }
  return result;
}

class Parser {
 public:
  Parser(std::string_view text, std::string folder) : text_(text), folder_(std::move(folder)) {}

  Plan parse() {
    if (text_.find('\0') != std::string_view::npos || text_.find('\r') != std::string_view::npos) {
      throw Failure(Kind::plan, "the plan is not a text of lines that end with a line feed");
    }
    std::size_t number = 0;
    while (!text_.empty() && !ended_) {
      const auto at = text_.find('\n');
      const Refusal refuse(++number);
      if (at == std::string_view::npos) refuse("the line has no end");
      line(split(text_.substr(0, at), '\t'), number, refuse);
      text_.remove_prefix(at + 1);
    }
    if (!ended_) throw Failure(Kind::plan, "the plan has no end line; it was cut off");
    if (!text_.empty()) throw Failure(Kind::plan, "the plan goes on after its end line");
    whole_plan();
    return std::move(plan_);
  }

 private:
  void line(const Fields& fields, std::size_t number, const Refusal& refuse) {
    for (const auto field : fields) {
      if (field.empty()) refuse("an empty field");
    }
    const auto keyword = fields[0];
    const auto count = [&](std::size_t least, std::size_t most) {
      if (fields.size() < least || fields.size() > most)
        refuse("wrong number of fields for " + quoted(keyword));
    };
    if (number == 1) {
      count(2, 2);
      if (keyword != "mobileinst-plan" || fields[1] != "1")
        refuse("this is not a plan of version 1");
    } else if (keyword == "end") {
      count(1, 1);
      ended_ = true;
    } else if (keyword == "graph") {
      count(3, 3);
      if (!plan_.graphs.emplace(role(fields[1], refuse), path(fields[2], refuse)).second)
        refuse("a second such graph");
    } else if (keyword == "call") {
      count(2, 2);
      if (plan_.calls.size() == kMaxCalls)
        refuse("more than " + std::to_string(kMaxCalls) + " calls");
      plan_.calls.emplace_back();
      plan_.calls.back().role = role(fields[1], refuse);
    } else if (keyword == "carried") {
      count(4, 4);
      auto& carried = plan_.following.carried;
      carried.push_back(signature(fields, refuse));
      if (carried.back().dtype != Dtype::float32) refuse("what is carried is not float32");
      if (carried.back().bytes() > kMaxInputBytes) refuse("what is carried is more than 2 GiB");
      check_names(
          carried.size(), carried.back().name, [&](std::size_t i) { return carried[i].name; },
          refuse);
      if (carried.back().name.rfind("context_", 0) != 0)
        refuse("what is carried is not named context_...");
      seen_.insert("carried");
    } else if (const auto need = following_fields(keyword); need > 0) {
      count(need, need);
      if (!seen_.insert(std::string(keyword)).second) refuse("a second " + quoted(keyword));
      read_following(
          plan_.following, fields, [&](std::string_view text) { return path(text, refuse); },
          refuse);
    } else if (keyword == "input") {
      count(5, 7);
      input(fields, refuse);
    } else if (keyword == "result") {
      count(4, 4);
      auto& results = call(refuse).results;
      results.push_back(signature(fields, refuse));
      check_names(
          results.size(), results.back().name, [&](std::size_t i) { return results[i].name; },
          refuse);
    } else {
      count(2, 2);
      setting(keyword, fields[1], refuse);
    }
  }

  void setting(std::string_view keyword, std::string_view value, const Refusal& refuse) {
    if (!seen_.insert(std::string(keyword.substr(0, 32))).second)
      refuse("a second " + quoted(keyword));
    if (keyword == "mode") {
      plan_.mode =
          one_of(value, {Mode::outputs, Mode::bench, Mode::profile, Mode::count, Mode::track},
                 "mode", refuse);
    } else if (keyword == "library") {
      plan_.library = value == "-" ? "" : path(value, refuse);
    } else if (keyword == "folder") {
      plan_.folder = path(value, refuse);
    } else if (keyword == "core") {
      if (value != "any") plan_.core = static_cast<int>(whole(value, 0, 1023, refuse));
    } else if (keyword == "warmups") {
      plan_.warmups = static_cast<int>(whole(value, 0, 1000, refuse));
    } else if (keyword == "runs") {
      plan_.runs = static_cast<int>(whole(value, 1, 100000, refuse));
    } else if (keyword == "seconds") {
      plan_.seconds = real(value, 0, 3600, refuse, " of seconds");
    } else if (keyword == "pace") {
      plan_.pace = real(value, 0, 1000, refuse, " of frames a second");
      if (plan_.pace <= 0.0) refuse("a pace at which no frame comes");
    } else if (keyword == "limit") {
      plan_.limit_seconds = static_cast<int>(whole(value, 1, 86400, refuse));
    } else if (keyword == "clips") {
      for (const auto length : split(value, ',')) {
        const int clip = static_cast<int>(whole(length, 1, 1000, refuse));
        auto& clips = plan_.clip_lengths;
        if (std::find(clips.begin(), clips.end(), clip) != clips.end())
          refuse("the same T twice");
        clips.push_back(clip);
        if (clips.size() > 16) refuse("more than 16 values of T");
      }
    } else {
      refuse("unknown keyword " + quoted(keyword));
    }
  }

  void input(const Fields& fields, const Refusal& refuse) {
    auto& current = call(refuse);
    Input item;
    item.signature = signature(fields, refuse);
    if (fields[4].front() == '@') {
      if (fields.size() != 5) refuse("wrong number of fields for a result taken over");
      item.result = fields[4].substr(1);
      take_over(item, refuse);
    } else {
      if (fields.size() != 7) refuse("wrong number of fields for an input from a file");
      item.file = path(fields[4], refuse);
      item.stored = dtype(fields[5], refuse);
      item.crc = crc(fields[6], refuse);
      const bool widened = item.stored == Dtype::uint8 && item.signature.dtype == Dtype::float32;
      if (item.stored != item.signature.dtype && !widened)
        refuse("only uint8 is widened, and only to float32");
      input_bytes_ += item.signature.elements() * size_of(item.stored);
      if (input_bytes_ > kMaxInputBytes) refuse("the inputs are more than 2 GiB");
    }
    current.inputs.push_back(std::move(item));
    const auto& inputs = current.inputs;
    check_names(
        inputs.size(), inputs.back().signature.name,
        [&](std::size_t i) { return inputs[i].signature.name; }, refuse);
  }

  // The result must exist by then, and be of the very type and shape that the input takes.
  void take_over(const Input& item, const Refusal& refuse) const {
    for (auto earlier = plan_.calls.rbegin() + 1; earlier != plan_.calls.rend(); ++earlier) {
      if (earlier->role != Role::frame) continue;
      for (const auto& result : earlier->results) {
        if (result.name != item.result) continue;
        if (result.dtype != item.signature.dtype || result.shape != item.signature.shape) {
          refuse("the input and the result that it takes over differ in dtype or shape");
        }
        return;
      }
      break;
    }
    refuse("no frame call before this one has a result " + quoted(item.result));
  }

  Call& call(const Refusal& refuse) {
    if (plan_.calls.empty()) refuse("no call has begun");
    return plan_.calls.back();
  }

  static void check_names(std::size_t count, const std::string& last,
                          const std::function<std::string(std::size_t)>& name,
                          const Refusal& refuse) {
    if (count > kMaxTensors) refuse("more than " + std::to_string(kMaxTensors) + " tensors");
    for (std::size_t i = 0; i + 1 < count; ++i) {
      if (name(i) == last) refuse("a second tensor named " + quoted(last));
    }
  }

  std::string path(std::string_view text, const Refusal& refuse) const {
    if (text.size() > kMaxPath)
      refuse("the path is longer than " + std::to_string(kMaxPath) + " bytes");
    return text.front() == '/' ? std::string(text) : folder_ + "/" + std::string(text);
  }

  void whole_plan() {
    const auto need = [](bool ok, const std::string& why) {
      if (!ok) throw Failure(Kind::plan, why);
    };
    for (const char* keyword :
         {"mode", "library", "folder", "core", "warmups", "runs", "seconds", "clips", "limit"}) {
      need(seen_.count(keyword) == 1, "the plan has no line " + quoted(keyword));
    }
    need(plan_.mode == Mode::bench || seen_.count("pace") == 0,
         "the mode bench alone takes a line 'pace'");
    const bool tracks = plan_.mode == Mode::track;
    for (const char* keyword : {"model", "picture", "tracking", "frames"}) {
      need(tracks == (seen_.count(keyword) == 1), std::string("the mode track ") +
                                                      (tracks ? "needs" : "alone takes") +
                                                      " a line " + quoted(keyword));
    }
    for (const char* keyword : {"state", "automatic", "logits", "carried"}) {
      need(tracks || seen_.count(keyword) == 0,
           "the mode track alone takes a line " + quoted(keyword));
    }
    need(!tracks || plan_.calls.empty(), "the mode track takes no call");
    if (tracks)
      plan_.calls = {following_call(Role::frame, plan_.following, 0),
                     following_call(Role::mask_head, plan_.following, 1)};
    need(!plan_.calls.empty(), "the plan has no call");
    for (const auto& one : plan_.calls) {
      need(plan_.graphs.count(one.role) == 1,
           std::string("the plan has no graph ") + name_of(one.role));
      need(!one.inputs.empty() && !one.results.empty(), "a call has no input or no result");
    }
    if (plan_.mode != Mode::bench) return;
    const int longest = *std::max_element(plan_.clip_lengths.begin(), plan_.clip_lengths.end());
    const bool pair = plan_.calls.size() == 2 && plan_.calls[1].role == Role::mask_head;
    need(plan_.calls[0].role == Role::frame && (pair || plan_.calls.size() == 1),
         "a bench takes one frame call and at most one mask_head call after it");
    need(pair || longest == 1, "a clip longer than 1 needs a mask_head call");
    need(static_cast<std::size_t>(plan_.runs) * static_cast<std::size_t>(longest) <= kMaxSamples,
         "a schedule would have more than " + std::to_string(kMaxSamples) + " runs");
  }

  std::string_view text_;
  std::string folder_;
  Plan plan_;
  std::set<std::string> seen_;
  std::size_t input_bytes_ = 0;
  bool ended_ = false;
};

}  // namespace

const char* name_of(Mode mode) {
  switch (mode) {
    case Mode::outputs: return "outputs";
    case Mode::bench: return "bench";
    case Mode::profile: return "profile";
    case Mode::count: return "count";
    case Mode::track: return "track";
  }
  return "unknown";
}

const char* name_of(Role role) { return role == Role::frame ? "frame" : "mask_head"; }

const char* name_of(Dtype dtype) {
  switch (dtype) {
    case Dtype::float32: return "float32";
    case Dtype::uint8: return "uint8";
    case Dtype::int32: return "int32";
    case Dtype::int64: return "int64";
  }
  return "unknown";
}

std::size_t size_of(Dtype dtype) {
  switch (dtype) {
    case Dtype::float32: return 4;
    case Dtype::uint8: return 1;
    case Dtype::int32: return 4;
    case Dtype::int64: return 8;
  }
  return 0;
}

std::size_t Signature::elements() const {
  std::size_t count = 1;
  for (const auto length : shape) count *= static_cast<std::size_t>(length);
  return count;
}

std::string describe(Dtype dtype, const std::vector<std::int64_t>& shape) {
  std::string text = std::string(name_of(dtype)) + " ";
  for (std::size_t i = 0; i < shape.size(); ++i)
    text += (i == 0 ? "" : ",") + std::to_string(shape[i]);
  return text;
}

Plan parse_plan(std::string_view text, const std::string& folder) {
  return Parser(text, folder).parse();
}

Plan load_plan(const std::string& path) {
  std::vector<std::uint8_t> data;
  try {
    data = read_file(path, kMaxPlanBytes);
  } catch (const Failure& failure) {
    throw Failure(Kind::plan, failure.what());
  }
  const auto slash = path.rfind('/');
  const std::string folder = slash == std::string::npos ? "."
                             : slash == 0               ? ""
                                                        : path.substr(0, slash);
  return parse_plan(std::string_view(reinterpret_cast<const char*>(data.data()), data.size()),
                    folder);
}

}  // namespace mobileinst
