#include "latentserve/images.h"

#include <iterator>
#include <utility>

#include "convert.h"
#include "latentserve/error.h"

namespace latentserve {
namespace {

std::vector<std::int64_t> Dimensions(const Shape& shape) {
  return {shape.n, shape.channels, shape.height, shape.width};
}

}  // namespace

Images::Images(std::vector<float> values, Shape shape)
    : form_(Tensor{Dimensions(shape), std::move(values)}) {}

Images::Images(std::vector<std::uint8_t> values, Shape shape)
    : form_(Tensor{Dimensions(shape), std::move(values)}) {}

Images Images::Float16(std::vector<std::uint16_t> values, Shape shape) {
  return Images(Tensor{Dimensions(shape), std::move(values)});
}

std::int64_t Images::size() const {
  return pixels() != nullptr ? pixels()->Rows() : static_cast<std::int64_t>(files()->size());
}

Shape Images::shape() const {
  if (pixels() == nullptr || pixels()->shape.size() != 4) {
    throw Error::Invalid("images", "expected pixels with four dimensions");
  }
  const std::vector<std::int64_t>& s = pixels()->shape;
  return {s[0], s[1], s[2], s[3]};
}

void ToMessage(const Images& images, v1::Images* message) {
  if (images.pixels() != nullptr) {
    ToMessage(*images.pixels(), "images.tensor", 4, message->mutable_tensor());
    return;
  }
  if (images.files()->empty()) throw Error::Invalid("images", "no images; expected at least one");
  message->mutable_encoded()->mutable_files()->Add(images.files()->begin(), images.files()->end());
}

v1::ImageFormat ToMessage(Format format) {
  switch (format) {
    case Format::kFloat32:
      return v1::IMAGE_FORMAT_FLOAT32;
    case Format::kFloat16:
      return v1::IMAGE_FORMAT_FLOAT16;
    case Format::kUint8:
      return v1::IMAGE_FORMAT_UINT8;
    case Format::kPng:
      return v1::IMAGE_FORMAT_PNG;
  }
  throw Error::Invalid("output_format", std::to_string(static_cast<int>(format)) +
                                            "; expected kFloat32, kFloat16, kUint8 or kPng");
}

Images FromMessage(v1::Images* message) {
  switch (message->form_case()) {
    case v1::Images::kTensor:
      return Images(FromMessage(message->mutable_tensor(), 4));
    case v1::Images::kEncoded: {
      auto* files = message->mutable_encoded()->mutable_files();
      return Images(
          Images::Files(std::make_move_iterator(files->begin()), std::make_move_iterator(files->end())));
    }
    default:
      throw Error::BadReply("the reply has no images");
  }
}

ServedBy FromMessage(const v1::ServedBy& message) {
  return {message.name(), message.version(), message.digest(), message.provider()};
}

Timings FromMessage(const v1::Timings& message) {
  return {std::chrono::nanoseconds(message.queue_ns()), std::chrono::nanoseconds(message.compute_ns()),
          message.batch_rows()};
}

}  // namespace latentserve
