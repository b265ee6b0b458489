#include "png_files.h"

#include <png.h>

#include <algorithm>
#include <stdexcept>

namespace latentserve_png {

Picture Read(const std::string& file) {
  png_image image = {};
  image.version = PNG_IMAGE_VERSION;
  if (png_image_begin_read_from_memory(&image, file.data(), file.size()) == 0) {
    throw std::runtime_error(std::string("not a PNG file: ") + image.message);
  }
  const bool colour = (image.format & PNG_FORMAT_FLAG_COLOR) != 0;
  image.format = colour ? PNG_FORMAT_RGB : PNG_FORMAT_GRAY;
  Picture picture;
  picture.channels = colour ? 3 : 1;
  picture.height = static_cast<int>(image.height);
  picture.width = static_cast<int>(image.width);
  picture.levels.resize(PNG_IMAGE_SIZE(image));
  if (png_image_finish_read(&image, nullptr, picture.levels.data(), 0, nullptr) == 0) {
    throw std::runtime_error(std::string("the PNG file is invalid: ") + image.message);
  }
  return picture;
}

std::string Write(const Picture& picture) {
  png_image image = {};
  image.version = PNG_IMAGE_VERSION;
  image.width = static_cast<png_uint_32>(picture.width);
  image.height = static_cast<png_uint_32>(picture.height);
  image.format = picture.channels == 1 ? PNG_FORMAT_GRAY : PNG_FORMAT_RGB;
  png_alloc_size_t size = PNG_IMAGE_PNG_SIZE_MAX(image);
  std::string file(size, '\0');
  if (png_image_write_to_memory(&image, file.data(), &size, 0, picture.levels.data(), 0, nullptr) == 0) {
    throw std::runtime_error(std::string("the image cannot be written: ") + image.message);
  }
  file.resize(size);
  return file;
}

Picture PictureOf(const latentserve::Images& images, std::int64_t k) {
  if (images.files() != nullptr) return Read(images.files()->at(static_cast<std::size_t>(k)));
  const latentserve::Shape shape = images.shape();
  Picture picture;
  picture.channels = static_cast<int>(shape.channels);
  picture.height = static_cast<int>(shape.height);
  picture.width = static_cast<int>(shape.width);
  const std::vector<std::uint8_t> planes = images.pixels()->Bytes();
  const auto plane = static_cast<std::size_t>(shape.height * shape.width);
  const auto channels = static_cast<std::size_t>(shape.channels);
  const std::size_t start = static_cast<std::size_t>(k) * channels * plane;
  for (std::size_t i = 0; i < plane; ++i) {
    for (std::size_t c = 0; c < channels; ++c) picture.levels.push_back(planes.at(start + c * plane + i));
  }
  return picture;
}

Picture Row(const std::vector<Picture>& pictures, int gap) {
  const Picture& first = pictures.at(0);
  const int count = static_cast<int>(pictures.size());
  Picture row;
  row.channels = first.channels;
  row.height = first.height;
  row.width = count * (first.width + gap) - gap;
  row.levels.resize(static_cast<std::size_t>(row.channels) * row.height * row.width);
  const std::ptrdiff_t line = static_cast<std::ptrdiff_t>(first.width) * first.channels;
  for (int k = 0; k < count; ++k) {
    for (int y = 0; y < row.height; ++y) {
      const auto from = pictures[k].levels.begin() + y * line;
      const std::ptrdiff_t x = static_cast<std::ptrdiff_t>(k) * (first.width + gap);
      std::copy(from, from + line, row.levels.begin() + (y * row.width + x) * row.channels);
    }
  }
  return row;
}

}  // namespace latentserve_png
