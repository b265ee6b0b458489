#ifndef LATENTSERVE_SRC_CONVERT_H_
#define LATENTSERVE_SRC_CONVERT_H_

#include <optional>
#include <string>

#include "latentserve/images.h"
#include "latentserve/requests.h"
#include "latentserve/tensor.h"
#include "latentserve/v1/generative_service.pb.h"
#include "latentserve/v1/tensor.pb.h"

namespace latentserve {

// Conversions to messages. They throw an Error that names the field of an invalid value.
void ToMessage(const Tensor& tensor, const std::string& field, std::size_t rank, v1::Tensor* message);
void ToMessage(const Images& images, v1::Images* message);
v1::ImageFormat ToMessage(Format format);

// Conversions from messages, which they consume. They throw an Error of kBadReply if a reply violates the
// protocol.
Tensor FromMessage(v1::Tensor* message, std::size_t rank);
Images FromMessage(v1::Images* message);
ServedBy FromMessage(const v1::ServedBy& message);
Timings FromMessage(const v1::Timings& message);

// Converts the common fields of replies with images.
template <typename Reply>
void FillImages(Reply* reply, ImagesResult* result) {
  result->images = FromMessage(reply->mutable_images());
  result->served_by = FromMessage(reply->served_by());
  result->timings = FromMessage(reply->timings());
}

}  // namespace latentserve

#endif  // LATENTSERVE_SRC_CONVERT_H_
