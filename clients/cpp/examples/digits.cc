#include "digits.h"

#include <fstream>
#include <stdexcept>

#include "latentserve/client.h"
#include "png_files.h"

namespace {

// Writes a PNG file of the images beside each other.
void WriteRow(const std::filesystem::path& path, const latentserve::Images& images) {
  std::vector<latentserve_png::Picture> pictures;
  for (std::int64_t k = 0; k < images.size(); ++k) pictures.push_back(latentserve_png::PictureOf(images, k));
  std::ofstream file(path, std::ios::binary);
  file << latentserve_png::Write(latentserve_png::Row(pictures, 4));
  if (!file.flush()) throw std::runtime_error(path.string() + " cannot be written");
}

}  // namespace

void Digits(const std::string& address, const std::string& model, const std::filesystem::path& folder,
            std::ostream& out) {
  latentserve::Options options;
  options.model = model;
  const latentserve::Client client(address, options);

  latentserve::SampleRequest draw;
  draw.count = 8;
  draw.seed = 7;
  draw.format = latentserve::Format::kPng;
  const latentserve::SampleResult sampled = client.Sample(draw);
  WriteRow(folder / "samples.png", sampled.images);
  out << (folder / "samples.png").string() << ": " << sampled.images.size() << " digits of "
      << sampled.served_by.name << ':' << sampled.served_by.version << ", seed " << sampled.seed << '\n';

  // Any PNG or JPEG file of the model's size will do; this one has just been drawn.
  latentserve::ReconstructRequest again;
  again.images = latentserve::Images(latentserve::Images::Files{sampled.images.files()->front()});
  const latentserve::ReconstructResult reconstructed = client.Reconstruct(again);
  WriteRow(folder / "reconstructed.png", reconstructed.images);
  const latentserve::Shape size = reconstructed.images.shape();
  out << (folder / "reconstructed.png").string() << ": squared error " << reconstructed.squared_error.front()
      << " over " << size.channels << 'x' << size.height << 'x' << size.width << '\n';

  latentserve::EncodeRequest too_tall;
  too_tall.images = latentserve::Images(std::vector<float>(32 * 28), {1, 1, 32, 28});
  try {
    client.Encode(too_tall);
  } catch (const latentserve::Error& error) {
    out << "as expected: " << error.what() << '\n';
    for (const auto& violation : error.violations()) {
      out << "  " << violation.field << ": " << violation.description << '\n';
    }
    return;
  }
  throw std::runtime_error("an image that is too tall was taken");
}
