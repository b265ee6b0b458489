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
 * Images to send: a tensor `[n, channels, height, width]` of floats in [0, 1] or of bytes, or PNG
 * and JPEG files, one per image, of exactly the model's size.
 */
export type Images = Tensor | readonly Uint8Array[];

/** What images come back as, by the format that was asked for: `png` are files, one per image. */
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
  if (images.length === 0) throw invalid("images", "no image; expected at least one");
  const files = images.map((file) => Buffer.from(file.buffer, file.byteOffset, file.byteLength));
  return { form: { $case: "encoded", value: { files } } };
}

/** Returns a reply's images; throws a bad reply where they are not in the form asked for. */
export function imagesFromMessage<F extends Format>(
  message: ImagesMessage | undefined,
  format: F,
): Formats[F] {
  const form = message?.form;
  const images = form?.$case === "tensor" ? tensorFromMessage(form.value, 4) : form?.value.files;
  if (!images) throw badReply("no images");
  const got = isTensor(images) ? images.dtype : "png";
  if (got !== format) throw badReply(`images as ${got}, where ${format} was asked for`);
  return images as Formats[F];
}

/** Returns how many images these are. */
export function countImages(images: Images): number {
  return isTensor(images) ? (images.shape[0] ?? 0) : images.length;
}

function isTensor(images: Images): images is Tensor {
  return !Array.isArray(images);
}
