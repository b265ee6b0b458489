#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <stdexcept>

#include "latentserve/client.h"

namespace latentserve_test {
namespace {

using latentserve::FromHalf;
using latentserve::Tensor;
using testing::ElementsAre;

TEST(Tensor, ReadsHalves) {
  EXPECT_EQ(FromHalf(0x3c00), 1.0F);
  EXPECT_EQ(FromHalf(0xc000), -2.0F);
  EXPECT_EQ(FromHalf(0x3555), 0.333251953125F);
  EXPECT_EQ(FromHalf(0x0001), std::ldexp(1.0F, -24));
  EXPECT_EQ(FromHalf(0x03ff), std::ldexp(1023.0F, -24));
  EXPECT_EQ(FromHalf(0x7bff), 65504.0F);
  EXPECT_EQ(FromHalf(0xfc00), -std::numeric_limits<float>::infinity());
  EXPECT_TRUE(std::isnan(FromHalf(0x7e00)));
  EXPECT_TRUE(std::signbit(FromHalf(0x8000)));
}

TEST(Tensor, RoundsHalfToEvenAndClamps) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const Tensor floats{{6}, std::vector<float>{-1, 2, 0.5F, 1, 2.5F / 255, nan}};
  EXPECT_THAT(floats.Bytes(), ElementsAre(0, 255, 128, 255, 2, 0));
  const Tensor levels{{2}, std::vector<std::uint8_t>{0, 255}};
  EXPECT_THAT(levels.Floats(), ElementsAre(0, 1));
  const Tensor halves{{1}, std::vector<std::uint16_t>{0x3800}};
  EXPECT_THAT(halves.Floats(), ElementsAre(0.5F));
}

TEST(Tensor, HasRows) {
  const Tensor latents = latentserve::Latents({1, 2, 3, 4}, 2);
  EXPECT_THAT(latents.shape, ElementsAre(2, 2));
  EXPECT_THAT(latents.Row(1), ElementsAre(3, 4));
  EXPECT_THROW(latents.Row(2), std::out_of_range);
  EXPECT_EQ(Tensor().Rows(), 0);
}

TEST(Images, AreOneOfTwoForms) {
  const auto pixels = latentserve::Images::Float16({1, 2}, {2, 1, 1, 1});
  EXPECT_EQ(pixels.size(), 2);
  EXPECT_EQ(pixels.shape().n, 2);
  EXPECT_EQ(pixels.files(), nullptr);
  const latentserve::Images files(latentserve::Images::Files{"png"});
  EXPECT_EQ(files.size(), 1);
  EXPECT_EQ(files.pixels(), nullptr);
  EXPECT_THROW(files.shape(), latentserve::Error);
}

}  // namespace
}  // namespace latentserve_test
