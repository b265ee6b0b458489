#include <gtest/gtest.h>

#include <atomic>

#include "fake_server.h"

namespace latentserve_test {
namespace {

using grpc::StatusCode;
using latentserve::Client;

// Refuses the first calls with a retry delay.
struct Refusing {
  StatusCode code = StatusCode::UNAVAILABLE;
  int times = 1;
  std::string pushback = "1";
  std::atomic<int> attempts{0};

  grpc::Status Reply(grpc::ServerContext& context) {
    if (++attempts > times) return grpc::Status::OK;
    context.AddTrailingMetadata("grpc-retry-pushback-ms", pushback);
    return {code, "refused"};
  }
};

struct Row {
  const char* name;
  std::function<void(const Client&)> call;
  StatusCode code;
  int times;
  const char* pushback;
  bool retries;
  int attempts;
  bool fails;
};

void Reconstruct(const Client& client) { client.Reconstruct({"", OnePixel()}); }
void Large(const Client& client) {
  client.Reconstruct({"", {std::vector<std::uint8_t>(1 << 20), {1, 1, 1024, 1024}}});
}
void List(const Client& client) { client.ListModels(); }
void Health(const Client& client) { client.Health(); }
void Stream(const Client& client) {
  for (auto& chunk : client.SampleStream({})) EXPECT_EQ(chunk.images.size(), 1);
}

class Retries : public testing::TestWithParam<Row> {};

TEST_P(Retries, FollowThePolicy) {
  const Row& row = GetParam();
  Refusing refusing;
  refusing.code = row.code;
  refusing.times = row.times;
  refusing.pushback = row.pushback;
  FakeServer server;
  server.on_reconstruct = [&](auto& context, auto& request, auto& reply) {
    *reply.mutable_images() = request.images();
    return refusing.Reply(context);
  };
  server.on_list_models = [&](auto& context, auto&, auto&) { return refusing.Reply(context); };
  server.on_check = [&](auto& context, auto&, auto&) { return refusing.Reply(context); };
  server.on_sample_stream = [&](auto& context, auto&, auto& writer) {
    const grpc::Status status = refusing.Reply(context);
    if (!status.ok()) return status;
    v1::SampleStreamResponse reply;
    SetPixel(1, reply.mutable_images());
    writer.Write(reply);
    return status;
  };
  latentserve::Options options;
  options.retries = row.retries;
  const Client client = server.Connect(options);
  const auto error = ErrorOf([&] { row.call(client); });
  EXPECT_EQ(error.has_value(), row.fails);
  if (error) {
    EXPECT_EQ(error->code(), row.code);
  }
  EXPECT_EQ(refusing.attempts, row.attempts);
}

INSTANTIATE_TEST_SUITE_P(
    Calls, Retries,
    testing::Values(Row{"Unavailable", Reconstruct, StatusCode::UNAVAILABLE, 3, "1", true, 4, false},
                    Row{"FailsAfterFourAttempts", Reconstruct, StatusCode::UNAVAILABLE, 9, "1", true, 4,
                        true},
                    Row{"QueueFull", Reconstruct, StatusCode::RESOURCE_EXHAUSTED, 1, "1", true, 2, false},
                    Row{"CancelledByTheServer", Reconstruct, StatusCode::CANCELLED, 1, "1", true, 2, false},
                    Row{"ALargeRequest", Large, StatusCode::UNAVAILABLE, 1, "1", true, 2, false},
                    Row{"AStream", Stream, StatusCode::UNAVAILABLE, 1, "1", true, 2, false},
                    Row{"NegativePushback", Reconstruct, StatusCode::UNAVAILABLE, 1, "-1", true, 1, true},
                    Row{"AnInvalidRequest", Reconstruct, StatusCode::INVALID_ARGUMENT, 1, "1", true, 1, true},
                    Row{"AnInternalError", Reconstruct, StatusCode::INTERNAL, 1, "1", true, 1, true},
                    Row{"Models", List, StatusCode::UNAVAILABLE, 1, "1", true, 2, false},
                    Row{"ModelsExhausted", List, StatusCode::RESOURCE_EXHAUSTED, 1, "1", true, 1, true},
                    Row{"Health", Health, StatusCode::UNAVAILABLE, 1, "1", true, 1, true},
                    Row{"Disabled", Reconstruct, StatusCode::UNAVAILABLE, 1, "1", false, 1, true}),
    [](const auto& row) { return std::string(row.param.name); });

}  // namespace
}  // namespace latentserve_test
