// Conformance runner of the C++ client; see clients/conformance/README.md:
//
//   conformance --cases DIR --servers FILE [--groups encode,errors] [--report FILE]

#include <cstdlib>
#include <fstream>
#include <future>
#include <iostream>
#include <sstream>
#include <thread>

#include "calls.h"
#include "cases.h"
#include "checks.h"

namespace conformance {
namespace {

constexpr std::chrono::seconds kCaseLimit{60};

struct Arguments {
  std::string cases, servers, report;
  std::set<std::string> groups;
};

Arguments Parse(const std::vector<std::string>& words) {
  std::map<std::string, std::string> given;
  for (std::size_t i = 0; i < words.size(); i += 2) {
    if (i + 1 == words.size()) throw std::runtime_error(words[i] + " requires a value");
    given[words[i]] = words[i + 1];
  }
  Arguments arguments;
  for (const auto& [name, value] : given) {
    if (name == "--cases") {
      arguments.cases = value;
    } else if (name == "--servers") {
      arguments.servers = value;
    } else if (name == "--report") {
      arguments.report = value;
    } else if (name == "--groups") {
      std::stringstream groups(value);
      for (std::string group; std::getline(groups, group, ',');) arguments.groups.insert(group);
    } else {
      throw std::runtime_error("unknown argument " + name);
    }
  }
  if (arguments.cases.empty() || arguments.servers.empty()) {
    throw std::runtime_error("expected --cases DIR --servers FILE [--groups A,B] [--report FILE]");
  }
  return arguments;
}

// Executes the call of a case and checks the result; returns the reason of a failure, empty if it passed.
std::string Try(Caller* caller, const Folder& folder, const Case& test) {
  try {
    Trailers trailers;
    CallResult result;
    try {
      result = caller->Call(test, &trailers);
    } catch (const latentserve::Error& failure) {
      CheckFailure(test, failure, trailers);
      return "";
    }
    CheckResult(folder, test, result);
    return "";
  } catch (const std::exception& problem) {
    return *problem.what() != '\0' ? problem.what() : "failed without a message";
  }
}

// Fails a case that takes too long; its thread keeps running.
std::string Guarded(Caller* caller, const Folder& folder, const Case& test, bool* still_running) {
  std::packaged_task<std::string()> task([caller, &folder, &test] { return Try(caller, folder, test); });
  std::future<std::string> result = task.get_future();
  std::thread thread(std::move(task));
  if (result.wait_for(kCaseLimit) == std::future_status::ready) {
    thread.join();
    return result.get();
  }
  thread.detach();
  *still_running = true;
  return "the case did not finish within " + std::to_string(kCaseLimit.count()) + " s";
}

int Run(const Arguments& arguments) {
  const Folder folder(arguments.cases);
  const std::vector<Case> cases = folder.Read(arguments.groups);
  std::ifstream servers(arguments.servers);
  Caller caller(json::parse(servers).at("servers").get<std::map<std::string, std::string>>(), folder);
  json report = {{"language", "cpp"}, {"groups", json::object()}, {"cases", json::array()}};
  int passed = 0;
  int failed = 0;
  bool still_running = false;
  for (const Case& test : cases) {
    const std::string reason = Guarded(&caller, folder, test, &still_running);
    json& group = report["groups"][test.group()];
    if (group.is_null()) group = {{"passed", 0}, {"failed", 0}};
    json& count = group[reason.empty() ? "passed" : "failed"];
    count = count.get<int>() + 1;
    ++(reason.empty() ? passed : failed);
    if (!reason.empty()) std::cout << "FAILED " << test.name() << ": " << reason << '\n';
    report["cases"].push_back({{"name", test.name()}, {"passed", reason.empty()}, {"reason", reason}});
  }
  report["passed"] = passed;
  report["failed"] = failed;
  if (!arguments.report.empty()) {
    // Messages of a server may be invalid UTF-8.
    std::ofstream(arguments.report) << report.dump(2, ' ', false, json::error_handler_t::replace) << '\n';
  }
  std::cout << passed << " passed, " << failed << " failed" << std::endl;
  const int status = failed == 0 ? 0 : 1;
  if (still_running) std::_Exit(status);  // a thread still uses objects that a return would destroy
  return status;
}

}  // namespace
}  // namespace conformance

int main(int count, char** words) {
  try {
    return conformance::Run(conformance::Parse({words + 1, words + count}));
  } catch (const std::exception& problem) {
    std::cerr << problem.what() << '\n';
    return 2;
  }
}
