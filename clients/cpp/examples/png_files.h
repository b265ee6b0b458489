#ifndef LATENTSERVE_EXAMPLES_PNG_FILES_H_
#define LATENTSERVE_EXAMPLES_PNG_FILES_H_

#include <cstdint>
#include <string>
#include <vector>

#include "latentserve/images.h"

namespace latentserve_png {

// A picture as [height, width, channels], levels from 0 to 255.
struct Picture {
  int channels = 0;  // 1 (grey) or 3 (RGB)
  int height = 0;
  int width = 0;
  std::vector<std::uint8_t> levels;
};

// Decodes a PNG file of 8 bits per channel. Throws std::runtime_error for other bytes.
Picture Read(const std::string& file);

// The bytes of a PNG file.
std::string Write(const Picture& picture);

// Image k, from pixels or from a PNG file.
Picture PictureOf(const latentserve::Images& images, std::int64_t k);

// Pictures of one size beside each other, with a gap of some pixels.
Picture Row(const std::vector<Picture>& pictures, int gap);

}  // namespace latentserve_png

#endif  // LATENTSERVE_EXAMPLES_PNG_FILES_H_
