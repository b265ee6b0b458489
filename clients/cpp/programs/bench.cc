// Benchmark of single-image Reconstruct through the client: the median latency with one call in flight, then
// calls per second with 32 in flight. Prints one line of JSON.
//
//   bench --address 127.0.0.1:50051 --model mnist-vae --seconds 5

#include <algorithm>
#include <atomic>
#include <chrono>
#include <exception>
#include <functional>
#include <iostream>
#include <mutex>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <thread>

#include "latentserve/client.h"

namespace {

using Clock = std::chrono::steady_clock;
using Seconds = std::chrono::duration<double>;

constexpr int kInFlight = 32;
constexpr int kWarmUpCalls = 200;

struct Arguments {
  std::string address = "127.0.0.1:50051";
  std::string model = "mnist-vae";
  double seconds = 5;  // duration of each of the two measurements
};

Arguments Parse(int count, char** words) {
  Arguments arguments;
  for (int i = 1; i < count; i += 2) {
    const std::string name = words[i];
    if (i + 1 == count) throw std::runtime_error(name + " requires a value");
    if (name == "--address") {
      arguments.address = words[i + 1];
    } else if (name == "--model") {
      arguments.model = words[i + 1];
    } else if (name == "--seconds") {
      arguments.seconds = std::stod(words[i + 1]);
    } else {
      throw std::runtime_error("unknown argument " + name + "; expected --address, --model, --seconds");
    }
  }
  if (!(arguments.seconds > 0)) throw std::runtime_error("--seconds: expected more than 0");
  return arguments;
}

// Returns one image with linearly increasing intensities.
latentserve::Images Ramp(const latentserve::ImageSpec& spec) {
  std::vector<float> values(static_cast<std::size_t>(spec.channels) * spec.height * spec.width);
  for (std::size_t i = 0; i < values.size(); ++i) {
    values[i] = static_cast<float>(i) / static_cast<float>(values.size());
  }
  return {std::move(values), {1, spec.channels, spec.height, spec.width}};
}

// Returns the median latency with one call in flight, in microseconds.
double OneByOne(const std::function<void()>& call, Seconds span) {
  std::vector<double> times;
  const auto begin = Clock::now();
  while (Clock::now() - begin < span) {
    const auto start = Clock::now();
    call();
    times.push_back(std::chrono::duration<double, std::micro>(Clock::now() - start).count());
  }
  const auto middle = times.begin() + static_cast<std::ptrdiff_t>(times.size() / 2);
  std::nth_element(times.begin(), middle, times.end());
  return *middle;
}

// Returns the calls per second with 32 in flight.
double Together(const std::function<void()>& call, Seconds span) {
  std::atomic<long> calls{0};
  std::mutex mutex;
  std::exception_ptr failure;
  const auto begin = Clock::now();
  std::vector<std::thread> threads;
  for (int k = 0; k < kInFlight; ++k) {
    threads.emplace_back([&] {
      try {
        for (; Clock::now() - begin < span; ++calls) call();
      } catch (...) {
        const std::lock_guard<std::mutex> lock(mutex);
        failure = std::current_exception();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  if (failure) std::rethrow_exception(failure);
  return static_cast<double>(calls) / Seconds(Clock::now() - begin).count();
}

}  // namespace

int main(int count, char** words) {
  try {
    const Arguments arguments = Parse(count, words);
    latentserve::Options options;
    options.model = arguments.model;
    const latentserve::Client client(arguments.address, options);
    latentserve::ReconstructRequest request;
    request.images = Ramp(client.GetModel().image);
    const auto call = [&] { client.Reconstruct(request); };
    for (int k = 0; k < kWarmUpCalls; ++k) call();
    const Seconds span(arguments.seconds);
    const double p50_us = OneByOne(call, span);
    const double calls_per_s = Together(call, span);
    std::cout << nlohmann::json{{"language", "cpp"}, {"p50_us", p50_us}, {"calls_per_s", calls_per_s}}
              << '\n';
    return 0;
  } catch (const std::exception& problem) {
    std::cerr << problem.what() << '\n';
    return 1;
  }
}
