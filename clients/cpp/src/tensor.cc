#include "latentserve/tensor.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <stdexcept>

#include "convert.h"
#include "latentserve/error.h"

namespace latentserve {
namespace {

// Returns the product of the dimensions; nullopt if one is negative or the product overflows.
std::optional<std::int64_t> Elements(const std::vector<std::int64_t>& shape) {
  std::int64_t product = 1;
  for (const std::int64_t n : shape) {
    if (n < 0 || (n > 0 && product > std::numeric_limits<std::int64_t>::max() / n)) return std::nullopt;
    product *= n;
  }
  return product;
}

std::string Text(const std::vector<std::int64_t>& shape) {
  std::string text = "[";
  for (const std::int64_t n : shape) text += (text.size() > 1 ? ", " : "") + std::to_string(n);
  return text + "]";
}

// The protocol is little-endian on every machine.
template <typename Value>
void SwapOnBigEndian(Value* values, std::size_t count) {
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
  for (std::size_t i = 0; i < count; ++i) {
    char* bytes = reinterpret_cast<char*>(values + i);
    std::reverse(bytes, bytes + sizeof(Value));
  }
#else
  (void)values, (void)count;
#endif
}

template <typename Value>
std::string ToBytes(std::vector<Value> values) {
  SwapOnBigEndian(values.data(), values.size());
  return std::string(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(Value));
}

template <typename Value>
std::vector<Value> FromBytes(const std::string& data) {
  std::vector<Value> values(data.size() / sizeof(Value));
  if (!values.empty()) std::memcpy(values.data(), data.data(), data.size());
  SwapOnBigEndian(values.data(), values.size());
  return values;
}

template <typename Value>
constexpr v1::DataType kTypeOf = v1::DATA_TYPE_UNSPECIFIED;
template <>
constexpr v1::DataType kTypeOf<float> = v1::DATA_TYPE_FLOAT32;
template <>
constexpr v1::DataType kTypeOf<std::uint16_t> = v1::DATA_TYPE_FLOAT16;
template <>
constexpr v1::DataType kTypeOf<std::uint8_t> = v1::DATA_TYPE_UINT8;

}  // namespace

float FromHalf(std::uint16_t bits) {
  const float sign = (bits & 0x8000) != 0 ? -1.0F : 1.0F;
  const int exponent = (bits >> 10) & 0x1f;
  const int fraction = bits & 0x3ff;
  if (exponent == 0x1f) {
    return fraction != 0 ? std::numeric_limits<float>::quiet_NaN()
                         : sign * std::numeric_limits<float>::infinity();
  }
  // Zero and subnormal numbers lack the leading one and have the smallest normal exponent.
  const int whole = exponent == 0 ? fraction : fraction + 0x400;
  return sign * std::ldexp(static_cast<float>(whole), std::max(exponent, 1) - 25);
}

Tensor Latents(std::vector<float> values, std::int64_t n) {
  const std::int64_t dim = n > 0 ? static_cast<std::int64_t>(values.size()) / n : 0;
  return {{n, dim}, std::move(values)};
}

std::vector<float> Tensor::Row(std::int64_t k) const {
  const std::vector<float>& all = Float32();
  if (k < 0 || k >= Rows()) {
    throw std::out_of_range("row " + std::to_string(k) + " of a tensor with " + std::to_string(Rows()) +
                            " rows");
  }
  const auto size = static_cast<std::int64_t>(all.size()) / Rows();
  return {all.begin() + k * size, all.begin() + (k + 1) * size};
}

std::vector<float> Tensor::Floats() const {
  if (const auto* floats = std::get_if<std::vector<float>>(&values)) return *floats;
  std::vector<float> floats;
  if (const auto* halves = std::get_if<std::vector<std::uint16_t>>(&values)) {
    floats.reserve(halves->size());
    for (const std::uint16_t bits : *halves) floats.push_back(FromHalf(bits));
    return floats;
  }
  for (const std::uint8_t level : std::get<std::vector<std::uint8_t>>(values)) {
    floats.push_back(static_cast<float>(level) / 255);
  }
  return floats;
}

std::vector<std::uint8_t> Tensor::Bytes() const {
  if (const auto* levels = std::get_if<std::vector<std::uint8_t>>(&values)) return *levels;
  std::vector<std::uint8_t> levels;
  for (const float value : Floats()) {
    // Unlike std::clamp, this converts NaN to 0.
    const float inside = value > 0 ? std::min(value, 1.0F) : 0.0F;
    levels.push_back(static_cast<std::uint8_t>(std::nearbyint(255 * inside)));
  }
  return levels;
}

void ToMessage(const Tensor& tensor, const std::string& field, std::size_t rank, v1::Tensor* message) {
  if (tensor.shape.size() != rank) {
    throw Error::Invalid(field + ".shape",
                         Text(tensor.shape) + "; expected " + std::to_string(rank) + " dimensions");
  }
  const std::optional<std::int64_t> size = Elements(tensor.shape);
  if (!size || *size == 0) {
    throw Error::Invalid(field + ".shape", Text(tensor.shape) + "; every dimension must be at least 1");
  }
  std::visit(
      [&](const auto& values) {
        if (static_cast<std::int64_t>(values.size()) != *size) {
          throw Error::Invalid(field, std::to_string(values.size()) + " values for the shape " +
                                          Text(tensor.shape) + "; expected " + std::to_string(*size));
        }
        message->set_data_type(kTypeOf<typename std::decay_t<decltype(values)>::value_type>);
        message->set_data(ToBytes(values));
      },
      tensor.values);
  message->mutable_shape()->Add(tensor.shape.begin(), tensor.shape.end());
}

Tensor FromMessage(v1::Tensor* message, std::size_t rank) {
  Tensor tensor;
  tensor.shape.assign(message->shape().begin(), message->shape().end());
  const std::optional<std::int64_t> size = Elements(tensor.shape);
  if (tensor.shape.size() != rank || !size) {
    throw Error::BadReply("the reply has a tensor of shape " + Text(tensor.shape) + "; expected " +
                          std::to_string(rank) + " dimensions");
  }
  const std::string& data = message->data();
  const auto read = [&](auto sample) {
    using Value = decltype(sample);
    // Division, because a product could overflow.
    if (data.size() % sizeof(Value) != 0 || static_cast<std::int64_t>(data.size() / sizeof(Value)) != *size) {
      throw Error::BadReply("the reply has " + std::to_string(data.size()) + " bytes for a tensor of shape " +
                            Text(tensor.shape) + " and data type " + v1::DataType_Name(message->data_type()));
    }
    tensor.values = FromBytes<Value>(data);
  };
  switch (message->data_type()) {
    case v1::DATA_TYPE_FLOAT32:
      read(float());
      break;
    case v1::DATA_TYPE_FLOAT16:
      read(std::uint16_t());
      break;
    case v1::DATA_TYPE_UINT8:
      read(std::uint8_t());
      break;
    default:
      throw Error::BadReply("the reply has a tensor of unknown data type " +
                            std::to_string(message->data_type()));
  }
  return tensor;
}

}  // namespace latentserve
