#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

#include "fake_server.h"
#include "google/rpc/error_details.pb.h"

namespace latentserve_test {
namespace {

using grpc::StatusCode;
using latentserve::ErrorKind;
using testing::ElementsAre;
using testing::HasSubstr;

TEST(Call, SendsTheRequestAndReadsTheReply) {
  v1::EncodeRequest got;
  std::string metadata;
  FakeServer server;
  server.on_encode = [&](auto& context, auto& request, auto& reply) {
    got = request;
    const auto sent = context.client_metadata().find("x-trace");
    if (sent != context.client_metadata().end()) metadata.assign(sent->second.data(), sent->second.size());
    auto* latents = reply.mutable_latents();
    latents->set_data_type(v1::DATA_TYPE_FLOAT32);
    latents->add_shape(2);
    latents->add_shape(1);
    latents->set_data(std::string("\0\0\x80\x3f\0\0\0\xc0", 8));  // 1, -2
    reply.set_seed(request.seed());
    reply.mutable_served_by()->set_name("m");
    reply.mutable_timings()->set_queue_ns(5);
    return grpc::Status::OK;
  };
  latentserve::Options options;
  options.model = "m:3";
  latentserve::CallOptions call;
  call.metadata.emplace("x-trace", "abc");
  const auto result =
      server.Connect(options).Encode({"", {std::vector<float>{0.5F, 1}, {2, 1, 1, 1}}, 0}, call);
  EXPECT_EQ(got.model().name(), "m");
  EXPECT_EQ(got.model().version(), 3);
  EXPECT_TRUE(got.has_seed());
  EXPECT_THAT(got.images().tensor().shape(), ElementsAre(2, 1, 1, 1));
  EXPECT_EQ(got.images().tensor().data(), std::string("\0\0\0\x3f\0\0\x80\x3f", 8));
  EXPECT_EQ(metadata, "abc");
  EXPECT_THAT(result.latents.Float32(), ElementsAre(1, -2));
  EXPECT_THAT(result.latents.Row(1), ElementsAre(-2));
  EXPECT_FALSE(result.log_variance);
  EXPECT_EQ(result.seed, 0U);
  EXPECT_EQ(result.served_by.name, "m");
  EXPECT_EQ(result.timings.queue.count(), 5);
}

TEST(Call, HasAllDetailsOfAnError) {
  google::rpc::ErrorInfo info;
  info.set_reason("QUEUE_FULL");
  info.set_domain("latentserve");
  (*info.mutable_metadata())["request_id"] = "17";
  google::rpc::BadRequest bad;
  auto* violation = bad.add_field_violations();
  violation->set_field("images");
  violation->set_description("too many");
  google::rpc::RetryInfo retry;
  retry.mutable_retry_delay()->set_nanos(250'000'000);
  FakeServer server;
  server.on_decode = [&](auto&, auto&, auto&) {
    return Failure(StatusCode::RESOURCE_EXHAUSTED, "full", {&info, &bad, &retry});
  };
  latentserve::Options options;
  options.retries = false;
  const auto client = server.Connect(options);
  const auto error = ErrorOf([&] { client.Decode({"", latentserve::Latents({1, 2}, 1)}); });
  ASSERT_TRUE(error);
  EXPECT_EQ(error->code(), StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_EQ(error->code_name(), "RESOURCE_EXHAUSTED");
  EXPECT_EQ(error->message(), "full");
  EXPECT_EQ(error->kind(), ErrorKind::kQueueFull);
  EXPECT_EQ(error->reason(), "QUEUE_FULL");
  EXPECT_EQ(error->domain(), "latentserve");
  EXPECT_EQ(error->metadata().at("request_id"), "17");
  ASSERT_EQ(error->violations().size(), 1U);
  EXPECT_EQ(error->violations().front().field, "images");
  EXPECT_EQ(error->retry_after(), std::chrono::milliseconds(250));
  EXPECT_STREQ(error->what(), "latentserve: RESOURCE_EXHAUSTED: full; images: too many; retry after 0.25 s");
}

TEST(Call, RefusesInvalidRequests) {
  FakeServer server;  // a call that reaches it fails with UNIMPLEMENTED
  const auto client = server.Connect();
  const auto sample = [&](auto change) {
    return [&client, change] {
      latentserve::SampleRequest request;
      change(request);
      client.Sample(request);
    };
  };
  const std::pair<std::string, std::function<void()>> calls[] = {
      {"images", [&] { client.Encode({}); }},
      {"images.tensor",
       [&] {
         client.Encode({"", {std::vector<float>(3), {1, 1, 2, 2}}, {}});
       }},
      {"images.tensor.shape",
       [&] {
         client.Encode({"", {std::vector<float>(), {0, 1, 2, 2}}, {}});
       }},
      {"images.tensor.shape",
       [&] {
         client.Encode({"", {std::vector<float>(), {1LL << 40, 1LL << 40, 1, 1}}, {}});
       }},
      {"latents.shape",
       [&] {
         client.Decode({"", {{4}, std::vector<float>(4)}});
       }},
      {"model", [&] { client.GetModel("m:0"); }},
      {"count", sample([](auto& request) { request.count = 0; })},
      {"count", sample([](auto& request) { request.count = 1LL << 31; })},
      {"offset", sample([](auto& request) { request.offset = -1; })},
      {"temperature",
       sample([](auto& request) { request.temperature = std::numeric_limits<float>::quiet_NaN(); })},
      {"temperature", sample([](auto& request) { request.temperature = 10.5F; })},
      {"output_format", sample([](auto& request) { request.format = static_cast<latentserve::Format>(9); })},
      {"timeout",
       [&] {
         latentserve::CallOptions call;
         call.timeout = std::chrono::milliseconds(0);
         client.Health("", call);
       }},
  };
  for (const auto& [field, call] : calls) {
    const auto error = ErrorOf(call);
    ASSERT_TRUE(error) << field;
    EXPECT_EQ(error->code(), StatusCode::INVALID_ARGUMENT) << error->what();
    ASSERT_EQ(error->violations().size(), 1U) << error->what();
    EXPECT_EQ(error->violations().front().field, field);
  }
}

TEST(Call, ReportsThatAMessageIsTooLarge) {
  FakeServer server;
  server.on_reconstruct = [](auto&, auto& request, auto& reply) {
    *reply.mutable_images() = request.images();
    return grpc::Status::OK;
  };
  latentserve::Options options;
  options.max_message_bytes = 1000;
  const auto small = server.Connect(options);
  const latentserve::Images images(std::vector<std::uint8_t>(2000), {1, 1, 40, 50});
  const auto error = ErrorOf([&] { small.Reconstruct({"", images}); });
  ASSERT_TRUE(error);
  EXPECT_EQ(error->kind(), ErrorKind::kMessageTooLarge) << error->what();
  // A reply above the default limit of gRPC, 4 MiB, is accepted.
  server.on_sample = [](auto&, auto&, auto& reply) {
    for (int k = 0; k < 5; ++k)
      reply.mutable_images()->mutable_encoded()->add_files(std::string(1 << 20, 'x'));
    return grpc::Status::OK;
  };
  EXPECT_EQ(server.Connect().Sample({}).images.size(), 5);
}

TEST(Call, RefusesReplyTensorsThatViolateTheProtocol) {
  FakeServer server;
  v1::Tensor tensor;
  server.on_decode = [&](auto&, auto&, auto& reply) {
    *reply.mutable_images()->mutable_tensor() = tensor;
    return grpc::Status::OK;
  };
  const auto client = server.Connect();
  const auto kind = [&] {
    const auto error = ErrorOf([&] { client.Decode({"", latentserve::Latents({1}, 1)}); });
    return error ? error->kind() : ErrorKind::kOther;
  };
  v1::Images pixel;
  SetPixel(1, &pixel);
  tensor = pixel.tensor();
  tensor.set_data("too long");
  EXPECT_EQ(kind(), ErrorKind::kBadReply);
  tensor = pixel.tensor();
  tensor.add_shape(1);
  EXPECT_EQ(kind(), ErrorKind::kBadReply);
  tensor = pixel.tensor();
  tensor.set_data_type(static_cast<v1::DataType>(9));
  EXPECT_EQ(kind(), ErrorKind::kBadReply);
  tensor = pixel.tensor();
  EXPECT_EQ(kind(), ErrorKind::kOther);
}

TEST(Models, AreReadAndReloaded) {
  FakeServer server;
  server.on_list_models = [](auto&, auto&, auto& reply) {
    auto* model = reply.add_models();
    model->set_name("m");
    model->set_version(2);
    model->set_state(v1::Model::STATE_READY);
    model->add_operations(v1::OPERATION_SAMPLE);
    model->add_metrics()->set_name("test_mse");
    reply.set_default_model("m");
    return grpc::Status::OK;
  };
  server.on_reload_models = [](auto&, auto& request, auto& reply) {
    auto* outcome = reply.add_outcomes();
    outcome->set_name(request.names(0));
    outcome->set_action(v1::ReloadOutcome::ACTION_REFUSED);
    outcome->set_reason("bad digest");
    return grpc::Status::OK;
  };
  const auto client = server.Connect();
  const auto list = client.ListModels();
  ASSERT_EQ(list.models.size(), 1U);
  EXPECT_EQ(list.models.front().Ref(), "m:2");
  EXPECT_EQ(list.models.front().state, "ready");
  EXPECT_THAT(list.models.front().operations, ElementsAre("sample"));
  EXPECT_FALSE(list.models.front().likelihood);
  EXPECT_FALSE(list.models.front().metrics.front().baseline);
  EXPECT_EQ(list.default_model, "m");
  const auto outcomes = client.ReloadModels({"m"});
  ASSERT_EQ(outcomes.size(), 1U);
  EXPECT_EQ(outcomes.front().action, "refused");
  EXPECT_EQ(outcomes.front().reason, "bad digest");
}

TEST(Health, ReportsTheUnknownName) {
  FakeServer server;
  server.on_check = [](auto&, auto& request, auto& reply) {
    if (!request.service().empty()) return grpc::Status(StatusCode::NOT_FOUND, "");
    reply.set_status(health::HealthCheckResponse::SERVING);
    return grpc::Status::OK;
  };
  const auto client = server.Connect();
  EXPECT_EQ(client.Health(), latentserve::HealthStatus::kServing);
  const auto error = ErrorOf([&] { client.Health("nope"); });
  ASSERT_TRUE(error);
  EXPECT_EQ(error->code(), StatusCode::NOT_FOUND);
  EXPECT_THAT(error->what(), HasSubstr("\"nope\""));
}

}  // namespace
}  // namespace latentserve_test
