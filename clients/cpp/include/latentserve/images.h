#ifndef LATENTSERVE_IMAGES_H_
#define LATENTSERVE_IMAGES_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "latentserve/tensor.h"

namespace latentserve {

// Images as pixels or as encoded files.
class Images {
 public:
  // The bytes of one PNG or JPEG file per image, of exactly the model's size. The server converts between
  // greyscale and colour as the model requires. Files in results are PNG.
  using Files = std::vector<std::string>;

  // Contains no images; every call refuses it.
  Images() = default;

  // Pixels as [n, channels, height, width].
  explicit Images(Tensor pixels) : form_(std::move(pixels)) {}

  // Encoded image files.
  explicit Images(Files files) : form_(std::move(files)) {}

  // Intensities in [0, 1]; for Client::Denoise, from -10 to 10.
  Images(std::vector<float> values, Shape shape);

  // Levels from 0 to 255.
  Images(std::vector<std::uint8_t> values, Shape shape);

  // The bits of IEEE 754 binary16, intensities in [0, 1].
  static Images Float16(std::vector<std::uint16_t> values, Shape shape);

  // The number of images.
  std::int64_t size() const;

  // The pixels; null if the images are files.
  const Tensor* pixels() const { return std::get_if<Tensor>(&form_); }

  // The files; null if the images are pixels.
  const Files* files() const { return std::get_if<Files>(&form_); }

  // The shape of the pixels. Throws Error if the images are files or do not have four dimensions.
  Shape shape() const;

 private:
  std::variant<Files, Tensor> form_;
};

}  // namespace latentserve

#endif  // LATENTSERVE_IMAGES_H_
