#ifndef LATENTSERVE_TENSOR_H_
#define LATENTSERVE_TENSOR_H_

#include <cstdint>
#include <variant>
#include <vector>

namespace latentserve {

// Shape of images: [n, channels, height, width].
struct Shape {
  std::int64_t n = 0;
  std::int64_t channels = 0;
  std::int64_t height = 0;
  std::int64_t width = 0;
};

// Dense array in row-major order.
struct Tensor {
  // Size of each dimension, outermost first.
  std::vector<std::int64_t> shape;

  // FLOAT32 as float, FLOAT16 as the bits of IEEE 754 binary16, UINT8 as bytes; in images, bytes from 0 to
  // 255 represent 0 to 1.
  std::variant<std::vector<float>, std::vector<std::uint16_t>, std::vector<std::uint8_t>> values;

  // Size of the first dimension; 0 if there are no dimensions.
  std::int64_t Rows() const { return shape.empty() ? 0 : shape.front(); }

  // The values of a float32 tensor. Throws std::bad_variant_access for other data types.
  const std::vector<float>& Float32() const { return std::get<std::vector<float>>(values); }

  // Row k of a float32 tensor. Throws std::out_of_range if k is out of range, std::bad_variant_access for
  // other data types.
  std::vector<float> Row(std::int64_t k) const;

  // The values converted to float32; bytes are divided by 255.
  std::vector<float> Floats() const;

  // The values of images as 0 to 255, clamped and rounded half to even as the server does.
  std::vector<std::uint8_t> Bytes() const;
};

// Latents for Client::Decode: n rows of values.size() / n values each.
Tensor Latents(std::vector<float> values, std::int64_t n);

// Converts the bits of an IEEE 754 binary16.
float FromHalf(std::uint16_t bits);

}  // namespace latentserve

#endif  // LATENTSERVE_TENSOR_H_
