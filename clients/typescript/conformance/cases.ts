import { readFileSync } from "node:fs";
import { join } from "node:path";

import { float16, float32, type Tensor, uint8 } from "../src/index.js";

/** Bytes of a file below the folder of cases, or zero bytes. */
export type CaseData = { readonly file: string } | { readonly zeros: number };

export interface CaseTensor {
  readonly dtype: string;
  readonly shape: readonly number[];
  readonly data: CaseData;
  readonly repeat?: number;
}

/** Expected tensor; without data, only dtype and shape are checked. */
export interface Expected extends Omit<CaseTensor, "data"> {
  readonly data?: CaseData;
  readonly atol?: number;
  readonly rtol?: number;
}

export interface CaseRequest {
  readonly model?: { readonly name?: string; readonly version?: number };
  readonly images?: { readonly tensor?: CaseTensor; readonly encoded?: readonly string[] };
  readonly latents?: CaseTensor;
  readonly output_format?: string;
  readonly count?: string;
  readonly seed?: string;
  readonly offset?: string;
  readonly temperature?: number | "NaN";
  readonly include_latents?: boolean;
  readonly chunk_rows?: number;
  readonly service?: string;
  readonly names?: readonly string[];
}

export type Json = Readonly<Record<string, unknown>>;

export interface ExpectedOk {
  readonly latents?: Expected | null;
  readonly log_variance?: Expected | null;
  readonly squared_error?: Expected | null;
  readonly images?: { readonly tensor?: Expected; readonly png?: Expected };
  readonly seed?: string | null;
  readonly served_by?: {
    readonly name: string;
    readonly version: number;
    readonly digest: string;
  };
  readonly chunks?: readonly { readonly offset: string; readonly rows: number }[];
  readonly models?: readonly Json[];
  readonly default_model?: string;
  readonly model?: Json;
  readonly outcomes?: readonly Json[];
  readonly status?: string;
}

export interface ExpectedError {
  readonly code?: string;
  readonly codes?: readonly string[];
  readonly reason?: string;
  readonly domain?: string;
  readonly violations?: readonly string[];
  readonly retry_info?: boolean;
  readonly metadata_keys?: readonly string[];
  readonly metadata?: Readonly<Record<string, string>>;
  readonly message_lacks?: readonly string[];
}

/** One case in the format of clients/conformance/README.md. */
export interface Case {
  readonly name: string;
  readonly server: string;
  readonly rpc: string;
  readonly through: "client" | "stub" | "bytes";
  readonly request?: CaseRequest;
  readonly body?: CaseData;
  readonly metadata?: Readonly<Record<string, string>>;
  readonly deadline_ms?: number;
  readonly retry?: boolean;
  readonly cancel_after_ms?: number;
  readonly stream?: { readonly cancel_after: number; readonly resume: boolean };
  readonly expect: { readonly ok?: ExpectedOk; readonly error?: ExpectedError };
}

export function methodOf(test: Case): string {
  return test.rpc.slice(test.rpc.lastIndexOf("/") + 1);
}

/** Folder that holds the cases. */
export class CaseFolder {
  constructor(readonly root: string) {}

  /** Returns the cases of these groups, or of all; throws for an unknown group. */
  read(groups: readonly string[]): Case[] {
    const index = this.#json("index.json") as { groups: string[] };
    const documents = index.groups.map(
      (name) => this.#json(name) as { group: string; cases: Case[] },
    );
    const known = documents.map(({ group }) => group);
    for (const group of groups) {
      if (!known.includes(group))
        throw new Error(`unknown group "${group}"; available: ${known.join(", ")}`);
    }
    return documents
      .filter(({ group }) => groups.length === 0 || groups.includes(group))
      .flatMap(({ cases }) => cases);
  }

  #json(name: string): unknown {
    return JSON.parse(readFileSync(join(this.root, name), "utf8"));
  }

  file(path: string): Buffer {
    return readFileSync(join(this.root, path));
  }

  bytes(data: CaseData): Buffer {
    return "file" in data ? this.file(data.file) : Buffer.alloc(data.zeros);
  }

  tensorBytes(tensor: CaseTensor): Buffer {
    const once = this.bytes(tensor.data);
    return Buffer.concat(Array<Buffer>(tensor.repeat ?? 1).fill(once));
  }

  /** Returns a tensor whose bytes match its shape. */
  tensor(tensor: CaseTensor): Tensor {
    const { buffer } = new Uint8Array(this.tensorBytes(tensor)); // aligned
    switch (tensor.dtype) {
      case "FLOAT32":
        return float32(new Float32Array(buffer), tensor.shape);
      case "FLOAT16":
        return float16(new Uint16Array(buffer), tensor.shape);
      case "UINT8":
        return uint8(new Uint8Array(buffer), tensor.shape);
      default:
        throw new Error(`the client has no data type ${tensor.dtype}`);
    }
  }
}
