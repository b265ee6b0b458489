#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <sstream>

#include "digits.h"
#include "fake_server.h"
#include "google/rpc/error_details.pb.h"
#include "png_files.h"

namespace latentserve_test {
namespace {

using testing::HasSubstr;

std::string Slurp(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

TEST(Example, WritesImagesAndPrintsAnError) {
  FakeServer server;
  server.on_sample = [](auto&, auto& request, auto& reply) {
    const std::string file = latentserve_png::Write({1, 28, 28, std::vector<std::uint8_t>(28 * 28, 9)});
    for (int k = 0; k < request.count(); ++k) reply.mutable_images()->mutable_encoded()->add_files(file);
    reply.set_seed(request.seed());
    return grpc::Status::OK;
  };
  server.on_reconstruct = [](auto&, auto&, auto& reply) {
    auto* tensor = reply.mutable_images()->mutable_tensor();
    tensor->set_data_type(v1::DATA_TYPE_UINT8);
    for (const int n : {1, 3, 28, 28}) tensor->add_shape(n);
    tensor->set_data(std::string(28 * 28, '\1') + std::string(28 * 28, '\2') + std::string(28 * 28, '\3'));
    reply.add_squared_error(2.5F);
    return grpc::Status::OK;
  };
  server.on_encode = [](auto&, auto&, auto&) {
    google::rpc::BadRequest bad;
    bad.add_field_violations()->set_field("images.tensor.shape");
    bad.mutable_field_violations(0)->set_description("too tall");
    return Failure(grpc::StatusCode::INVALID_ARGUMENT, "wrong", {&bad});
  };
  std::string name = (std::filesystem::temp_directory_path() / "latentserve-XXXXXX").string();
  const std::filesystem::path folder = mkdtemp(name.data());
  std::ostringstream out;
  Digits(server.Start(), "mnist-vae", folder, out);
  for (const char* expected : {"8 digits", "seed 7", "squared error 2.5", "images.tensor.shape: too tall"}) {
    EXPECT_THAT(out.str(), HasSubstr(expected));
  }
  const auto row = latentserve_png::Read(Slurp(folder / "samples.png"));
  EXPECT_EQ(row.width, 8 * 32 - 4);
  EXPECT_EQ(row.levels[27], 9);
  EXPECT_EQ(row.levels[28], 0);  // the gap
  EXPECT_EQ(row.levels[32], 9);
  const auto colour = latentserve_png::Read(Slurp(folder / "reconstructed.png"));
  EXPECT_EQ(colour.channels, 3);
  EXPECT_THAT(std::vector<int>(colour.levels.begin(), colour.levels.begin() + 3),
              testing::ElementsAre(1, 2, 3));
  std::filesystem::remove_all(folder);
  EXPECT_THROW(latentserve_png::Read("no image"), std::runtime_error);
}

}  // namespace
}  // namespace latentserve_test
