#include "digits.h"

#include <fstream>
#include <stdexcept>

#include "latentserve/client.h"
#include "png_files.h"

namespace {

// Writes the images side by side to a PNG file.
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

  latentserve::SampleRequest request;
  request.count = 8;
  request.seed = 7;
  request.format = latentserve::Format::kPng;
  const latentserve::SampleResult sampled = client.Sample(request);
  WriteRow(folder / "samples.png", sampled.images);
  out << (folder / "samples.png").string() << ": " << sampled.images.size() << " digits of "
      << sampled.served_by.name << ':' << sampled.served_by.version << ", seed " << sampled.seed << '\n';

  // Any PNG or JPEG file of the model's size works; this one was sampled above.
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
    out << "expected error: " << error.what() << '\n';
    for (const auto& violation : error.violations()) {
      out << "  " << violation.field << ": " << violation.description << '\n';
    }
    return;
  }
  throw std::runtime_error("the server accepted an image that is too tall");
}
