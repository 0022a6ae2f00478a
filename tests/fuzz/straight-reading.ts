// Safetensors read straight from the format's own page, in memory: what the program's reader is compared with.

export interface StraightTensor {
  readonly dtype: string;
  readonly shape: readonly number[];
  readonly bytes: Uint8Array;
}

export type StraightTensors = ReadonlyMap<string, StraightTensor>;

/** Number formats by the bits of an element. */
const formats: Readonly<Record<number, string>> = {
  64: "F64 I64 U64 C64",
  32: "F32 I32 U32",
  16: "F16 BF16 I16 U16",
  8: "I8 U8 BOOL F8_E4M3 F8_E5M2 F8_E8M0 F8_E4M3FNUZ F8_E5M2FNUZ",
  6: "F6_E2M3 F6_E3M2",
  4: "F4",
};
const bits = new Map(
  Object.entries(formats).flatMap(([size, names]) =>
    names.split(" ").map((name) => [name, Number(size)]),
  ),
);

interface Entry {
  readonly dtype: string;
  readonly shape: readonly unknown[];
  readonly data_offsets: readonly [number, number];
}

/** The tensors of a valid file; undefined where it is none. A key that is there twice is not seen. */
export function straightReading(file: Uint8Array): StraightTensors | undefined {
  try {
    const whole = Buffer.from(file);
    const length = Number(whole.readBigUInt64LE());
    const data = whole.subarray(8 + length);
    if (length > 100e6 || 8 + length > whole.length || whole[8] !== 0x7b) return undefined;
    const text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
    const header = JSON.parse(text.decode(whole.subarray(8, 8 + length))) as Record<string, Entry>;
    const tensors = new Map<string, StraightTensor>();
    const ranges: [number, number][] = [];
    for (const [name, entry] of Object.entries(header)) {
      if (name === "__metadata__") {
        const isMap = typeof entry === "object" && entry !== null && !Array.isArray(entry);
        if (!isMap || Object.values(entry).some((value) => typeof value !== "string"))
          return undefined;
        continue;
      }
      const { dtype, shape, data_offsets: range } = entry;
      if (!Array.isArray(shape) || !shape.every(isSize)) return undefined;
      if (!Array.isArray(range) || range.length !== 2 || !range.every(isSize)) return undefined;
      if (typeof dtype !== "string" || !bits.has(dtype)) return undefined;
      const [begin, end] = range as [number, number];
      const size = shape.reduce((product, dim) => product * BigInt(dim), BigInt(bits.get(dtype)!));
      if (size !== 8n * BigInt(end - begin) || end > data.length) return undefined;
      ranges.push([begin, end]);
      tensors.set(name, { dtype, shape, bytes: data.subarray(begin, end) });
    }
    let covered = 0;
    for (const [begin, end] of ranges.sort((a, b) => a[0] - b[0] || a[1] - b[1])) {
      if (begin !== covered) return undefined;
      covered = end;
    }
    return covered === data.length ? tensors : undefined;
  } catch {
    return undefined;
  }
}

function isSize(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0 && !Object.is(value, -0);
}

/** One line for each tensor; equal where names, formats, shapes and bytes are. */
export function fingerprint(tensors: StraightTensors): string {
  const line = ([name, { dtype, shape, bytes }]: readonly [string, StraightTensor]) =>
    JSON.stringify([name, dtype, shape, Buffer.from(bytes).toString("base64")]);
  return [...tensors].map(line).sort().join("\n");
}
