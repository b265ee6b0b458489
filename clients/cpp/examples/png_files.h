#ifndef LATENTSERVE_EXAMPLES_PNG_FILES_H_
#define LATENTSERVE_EXAMPLES_PNG_FILES_H_

#include <cstdint>
#include <string>
#include <vector>

#include "latentserve/images.h"

namespace latentserve_png {

// Image as [height, width, channels], levels from 0 to 255.
struct Picture {
  int channels = 0;  // 1 (greyscale) or 3 (RGB)
  int height = 0;
  int width = 0;
  std::vector<std::uint8_t> levels;
};

// Decodes a PNG file with 8 bits per channel. Throws std::runtime_error for other files.
Picture Read(const std::string& file);

// Encodes an image as a PNG file.
std::string Write(const Picture& picture);

// Returns image k, from pixels or from a PNG file.
Picture PictureOf(const latentserve::Images& images, std::int64_t k);

// Joins images of equal size side by side, with a gap in pixels.
Picture Row(const std::vector<Picture>& pictures, int gap);

}  // namespace latentserve_png

#endif  // LATENTSERVE_EXAMPLES_PNG_FILES_H_
