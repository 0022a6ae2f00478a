// Where a window's tokens stand: a fixed window starts at position 0; an exported model is told by its inputs.
// B = batch, T = sequence, S = keys (past and present), P = rows of a table of positions, W = width of a row

import { constant, gather, reshape, slice } from "../graph/build.ts";
import type { Tensor } from "../graph/tensor.ts";
import { smallTiles } from "./tiling.ts";

export interface Positions {
  /** Rows that a table of positions must have. */
  readonly numPositions: number;
  /** Queries of a fixed window that are computed at a time, all seeing the same keys. */
  readonly queryRows: number;
  /** The tokens' rows of a table [P, W]: [T, W], or [B, T, W] where every sequence has its own positions. */
  rows(table_PW: Tensor): Tensor;
  /** Which keys a query may see: all up to its own in a fixed window, or what an additive mask says. */
  readonly mask: CausalMask | Tensor;
}

/** The additive mask of queries start to end against keys 0 to end: [end - start, end]. */
export type CausalMask = (start: number, end: number) => Tensor;

/** Finite: as fast as -inf in ONNX Runtime, and free of NaN where a row sees nothing. */
export const MASKED = -1e9;

/** Tokens 0 to length - 1 of a window. */
export function fixedPositions(length: number, { queryRows } = smallTiles): Positions {
  const masks = new Map<string, Tensor>();
  const mask: CausalMask = (start, end) => {
    const known = masks.get(`${start} ${end}`);
    if (known) return known;
    const values = Float32Array.from({ length: (end - start) * end }, (_, i) =>
      i % end > start + Math.floor(i / end) ? MASKED : 0,
    );
    const table = constant(values, [end - start, end]);
    masks.set(`${start} ${end}`, table);
    return table;
  };
  return {
    numPositions: length,
    queryRows,
    rows: (table_PW) => slice(table_PW, 0, 0, length),
    mask,
  };
}

/** Tokens whose 0-based positions are an input, I64 [B, T]; numPositions bounds them; mask is [B, 1, T, S]. */
export function givenPositions(ids_BT: Tensor, mask: Tensor, numPositions: number): Positions {
  const rows = (table_PW: Tensor) => gather(table_PW, ids_BT);
  return { numPositions, queryRows: numPositions, rows, mask };
}

/** The tokens' rows of a table of a function of the 0-based position. */
export function tabulate(
  positions: Positions,
  width: number,
  value: (position: number, column: number) => number,
): Tensor {
  const { numPositions } = positions;
  const table = Float32Array.from({ length: numPositions * width }, (_, i) =>
    value(Math.floor(i / width), i % width),
  );
  return positions.rows(constant(table, [numPositions, width]));
}

/** Rows [T, W] or [B, T, W] in a shape that broadcasts over heads: [T, W] or [B, 1, T, W]. */
export function acrossHeads(rows: Tensor): Tensor {
  if (rows.shape.length === 2) return rows;
  const [batch, ...rest] = rows.shape;
  return reshape(rows, [batch!, 1, ...rest]);
}
