import { ImageFormat, type Images as ImagesMessage } from "./generated/latentserve/v1/tensor.js";
import { badReply, invalid } from "./errors.js";
import {
  type Float16Tensor,
  type Float32Tensor,
  type Tensor,
  tensorFromMessage,
  tensorToMessage,
  type Uint8Tensor,
} from "./tensor.js";

/**
 * Images of a request: a tensor `[n, channels, height, width]` of floats in [0, 1] or bytes, or one
 * PNG or JPEG file per image, of exactly the model's size.
 */
export type Images = Tensor | readonly Uint8Array[];

/** Type of the images in a reply by requested format; `png` means one file per image. */
export interface Formats {
  float32: Float32Tensor;
  float16: Float16Tensor;
  uint8: Uint8Tensor;
  png: readonly Uint8Array[];
}

export type Format = keyof Formats;

const FORMATS: Readonly<Record<Format, ImageFormat>> = {
  float32: ImageFormat.IMAGE_FORMAT_FLOAT32,
  float16: ImageFormat.IMAGE_FORMAT_FLOAT16,
  uint8: ImageFormat.IMAGE_FORMAT_UINT8,
  png: ImageFormat.IMAGE_FORMAT_PNG,
};

export function formatToMessage(format: Format): ImageFormat {
  if (!Object.hasOwn(FORMATS, format)) {
    const known = Object.keys(FORMATS).join(", ");
    throw invalid("output_format", `${format as string}; expected one of ${known}`);
  }
  return FORMATS[format];
}

export function imagesToMessage(images: Images): ImagesMessage {
  if (isTensor(images)) {
    return { form: { $case: "tensor", value: tensorToMessage(images, "images.tensor", 4) } };
  }
  if (images.length === 0) throw invalid("images", "no images; expected at least one");
  const files = images.map((file) => Buffer.from(file.buffer, file.byteOffset, file.byteLength));
  return { form: { $case: "encoded", value: { files } } };
}

/** Converts the images of a reply; throws a bad reply if they do not have the requested format. */
export function imagesFromMessage<F extends Format>(
  message: ImagesMessage | undefined,
  format: F,
): Formats[F] {
  const form = message?.form;
  const images = form?.$case === "tensor" ? tensorFromMessage(form.value, 4) : form?.value.files;
  if (!images) throw badReply("the reply has no images");
  const got = isTensor(images) ? images.dtype : "png";
  if (got !== format) throw badReply(`the reply has images as ${got}; requested ${format}`);
  return images as Formats[F];
}

/** Returns the number of images. */
export function countImages(images: Images): number {
  return isTensor(images) ? (images.shape[0] ?? 0) : images.length;
}

function isTensor(images: Images): images is Tensor {
  return !Array.isArray(images);
}
