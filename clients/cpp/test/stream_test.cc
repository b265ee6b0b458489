#include <gtest/gtest.h>

#include <future>
#include <thread>

#include "fake_server.h"

namespace latentserve_test {
namespace {

using grpc::StatusCode;

// Streams one image per row of the seed's sequence of samples, and records whether all were sent.
void ServeRows(FakeServer* server, std::promise<bool>* all_sent) {
  server->on_sample_stream = [all_sent](auto&, auto& request, auto& writer) {
    bool sent = true;
    for (std::int64_t row = request.offset(); sent && row < request.offset() + request.count(); ++row) {
      v1::SampleStreamResponse reply;
      SetPixel(static_cast<std::uint8_t>(row), reply.mutable_images());
      reply.set_seed(request.seed());
      reply.set_offset(row);
      sent = writer.Write(reply);
    }
    if (all_sent != nullptr) all_sent->set_value(sent);
    return grpc::Status::OK;
  };
}

int LevelOf(const latentserve::SampleChunk& chunk) { return chunk.images.pixels()->Bytes().at(0); }

TEST(Stream, ResumesAtTheNextOffset) {
  FakeServer server;
  ServeRows(&server, nullptr);
  const auto client = server.Connect();
  latentserve::SampleRequest request;
  request.count = 5;
  request.seed = 3;
  request.offset = 10;
  std::vector<int> got;
  for (const auto& chunk : client.SampleStream(request)) {
    got.push_back(LevelOf(chunk));
    EXPECT_EQ(chunk.seed, 3U);
    if (got.size() == 2) {
      request.offset = chunk.NextOffset();
      request.count -= 2;
      break;
    }
  }
  auto rest = client.SampleStream(request);
  while (const auto chunk = rest.Next()) got.push_back(LevelOf(*chunk));
  EXPECT_EQ(got, (std::vector<int>{10, 11, 12, 13, 14}));
  EXPECT_FALSE(rest.Next());  // the end is permanent
}

TEST(Stream, IsCancelledByItsDestructor) {
  std::promise<bool> all_sent;
  FakeServer server;
  ServeRows(&server, &all_sent);
  latentserve::Options options;
  options.timeout = std::chrono::hours(1);
  const auto client = server.Connect(options);
  latentserve::SampleRequest request;
  request.count = std::int64_t{1} << 40;
  for (const auto& chunk : client.SampleStream(request)) {
    EXPECT_EQ(chunk.offset, 0);
    break;
  }
  EXPECT_FALSE(all_sent.get_future().get());
}

TEST(Stream, OutlivesItsClient) {
  FakeServer server;
  ServeRows(&server, nullptr);
  auto stream = server.Connect().SampleStream({});
  EXPECT_TRUE(stream.Next());
}

TEST(Stream, ThrowsAnErrorAndEnds) {
  FakeServer server;
  server.on_sample_stream = [](auto&, auto&, auto& writer) {
    v1::SampleStreamResponse reply;
    SetPixel(1, reply.mutable_images());
    writer.Write(reply);
    return grpc::Status(StatusCode::UNAVAILABLE, "draining");
  };
  const auto client = server.Connect();
  auto stream = client.SampleStream({});
  EXPECT_TRUE(stream.Next());
  const auto error = ErrorOf([&] { stream.Next(); });
  ASSERT_TRUE(error);
  EXPECT_EQ(error->code(), StatusCode::UNAVAILABLE);
  EXPECT_FALSE(stream.Next());
}

TEST(Stream, EndsWithAnInvalidReply) {
  FakeServer server;
  server.on_sample_stream = [](auto&, auto&, auto& writer) {
    writer.Write(v1::SampleStreamResponse());
    return grpc::Status::OK;
  };
  const auto client = server.Connect();
  auto stream = client.SampleStream({});
  const auto error = ErrorOf([&] { stream.Next(); });
  ASSERT_TRUE(error);
  EXPECT_EQ(error->kind(), latentserve::ErrorKind::kBadReply);
  EXPECT_FALSE(stream.Next());
}

// Never replies.
void Hold(FakeServer* server, std::promise<void>* arrived) {
  server->on_sample = [arrived](auto& context, auto&, auto&) {
    if (arrived != nullptr) arrived->set_value();
    while (!context.IsCancelled()) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    return grpc::Status::CANCELLED;
  };
}

TEST(Cancellation, EndsACallFromAnotherThread) {
  std::promise<void> arrived;
  FakeServer server;
  Hold(&server, &arrived);
  const auto client = server.Connect();
  latentserve::CallOptions call;
  call.cancellation.emplace();
  std::thread canceller([&] {
    arrived.get_future().wait();
    call.cancellation->Cancel();
  });
  const auto error = ErrorOf([&] { client.Sample({}, call); });
  canceller.join();
  ASSERT_TRUE(error);
  EXPECT_EQ(error->code(), StatusCode::CANCELLED);
  EXPECT_TRUE(call.cancellation->cancelled());
}

TEST(Cancellation, EndsCallsThatStartLater) {
  FakeServer server;
  Hold(&server, nullptr);
  const auto client = server.Connect();
  latentserve::CallOptions call;
  call.cancellation.emplace();
  call.cancellation->Cancel();
  const auto error = ErrorOf([&] { client.Sample({}, call); });
  ASSERT_TRUE(error);
  EXPECT_EQ(error->code(), StatusCode::CANCELLED);
}

TEST(Deadline, DefaultsToTheTimeoutOfTheClient) {
  FakeServer server;
  Hold(&server, nullptr);
  latentserve::Options options;
  options.timeout = std::chrono::milliseconds(50);
  const auto error = ErrorOf([&] { server.Connect(options).Sample({}); });
  ASSERT_TRUE(error);
  EXPECT_EQ(error->code(), StatusCode::DEADLINE_EXCEEDED);
}

TEST(Deadline, OfTheCallOverridesTheClient) {
  std::chrono::system_clock::time_point deadline;
  FakeServer server;
  server.on_sample = [&](auto& context, auto&, auto& reply) {
    deadline = context.deadline();
    SetPixel(1, reply.mutable_images());
    return grpc::Status::OK;
  };
  latentserve::CallOptions call;
  call.timeout = std::chrono::hours(1);
  server.Connect().Sample({}, call);
  EXPECT_GT(deadline, std::chrono::system_clock::now() + std::chrono::minutes(30));
}

}  // namespace
}  // namespace latentserve_test
