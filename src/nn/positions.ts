// Where a window's tokens stand: a fixed window starts at position 0; an exported model is told by its inputs.
// B = batch, T = sequence, S = keys (past and present), P = rows of a table of positions, W = width of a row

import * as g from "../graph/build.ts";
import type { Tensor } from "../graph/tensor.ts";
import { smallTiles } from "./tiling.ts";

export interface Positions {
  /** Rows that a table of positions must have. */
  readonly numPositions: number;
  /** The tokens' rows of a table [P, W]: [T, W], or [B, T, W] where every sequence has its own positions. */
  rows(table_PW: Tensor): Tensor;
  /**
   * Additive mask: of the last `rows` of `keys` consecutive tokens, which end before token `end`, against them all,
   * [rows, keys] or [B, 1, rows, keys], or given for all queries at once, [B, 1, T, S]. A query sees the last `window`
   * keys, its own among them; Infinity is all. One that is made `of` a tensor is not there before it, nor kept for others.
   */
  readonly mask: CausalMask | { readonly given: (window: number) => Tensor };
}

export interface CausalMask {
  readonly causal: (rows: number, keys: number, window: number, end: number, of?: Tensor) => Tensor;
  /** Queries that are computed at a time. */
  readonly queryRows: number;
}

/** Finite: as fast as -inf in ONNX Runtime, and free of NaN where a row sees nothing. */
export const MASKED = -1e9;

/** Tokens 0 to length - 1 of a window. */
export function fixedPositions(length: number, { queryRows } = smallTiles) {
  const masks = new Map<string, Tensor>();
  const causal: CausalMask["causal"] = (rows, keys, window, _end, of) => {
    // What is before the rows themselves hides nothing.
    if (of && window >= keys && keys > rows)
      return g.pad(g.constantAfter(causal(rows, rows, rows, rows), of), 1, keys - rows, 0);
    const visible = Math.min(window, keys); // one table for all windows that hide nothing
    const id = [rows, keys, visible].join();
    const known = masks.get(id);
    if (known) return known;
    const values = new Float32Array(rows * keys);
    for (let row = 0, start = 0; row < rows; row++, start += keys) {
      const own = keys - rows + row;
      values.fill(MASKED, start, start + Math.max(0, own - visible + 1));
      values.fill(MASKED, start + own + 1, start + keys);
    }
    const table = g.constant(values, [rows, keys]);
    masks.set(id, table);
    return table;
  };
  return {
    numPositions: length,
    rows: (table_PW) => g.slice(table_PW, 0, 0, length),
    mask: { causal, queryRows: queryRows(length) },
  } satisfies Positions;
}

/**
 * Windows side by side in a row, each from position 0 on, as an input says, I64 [B, T]: a token that stands at p sees
 * none but the p before it.
 */
export function packedPositions(positions_BT: Tensor, tiling = smallTiles): Positions {
  const length = Number(positions_BT.shape[1]);
  const { mask } = fixedPositions(length, tiling);
  const given = {
    numPositions: length,
    rows: (table_PW: Tensor) => g.gather(table_PW, positions_BT),
  };
  const places = (start: number, end: number) =>
    Float32Array.from({ length: end - start }, (_, i) => start + i);
  // Where in the row a token's window begins: floats, which every device compares.
  const position_BT1 = tabulate(given, 1, (position) => position);
  const first_B1T1 = acrossHeads(g.sub(g.constant(places(0, length), [length, 1]), position_BT1));
  const allPlaces = g.constant(places(0, length), [length]);
  const masks = new Map<string, Tensor>();
  const causal: CausalMask["causal"] = (rows, keys, window, end, of) => {
    const id = [rows, keys, Math.min(window, keys), end].join();
    const known = masks.get(id);
    if (known && !of) return known;
    const first = g.slice(first_B1T1, 2, end - rows, end);
    const isOwn = of
      ? g.lessOrEqual(g.constantAfter(first, of), g.slice(allPlaces, 0, end - keys, end))
      : g.lessOrEqual(first, g.constant(places(end - keys, end), [keys]));
    const own = mask.causal(rows, keys, window, end, of);
    const made = g.where(isOwn, own, g.scalar(MASKED));
    masks.set(id, made);
    return made;
  };
  return { ...given, mask: { causal, queryRows: mask.queryRows } };
}

/** Tokens whose 0-based positions are an input, I64 [B, T]; numPositions bounds them; masks are [B, 1, T, S]. */
export function givenPositions(
  ids_BT: Tensor,
  given: (window: number) => Tensor,
  numPositions: number,
): Positions {
  return { numPositions, rows: (table_PW) => g.gather(table_PW, ids_BT), mask: { given } };
}

/** The tokens' rows of a table of a function of the 0-based position. */
export function tabulate(
  positions: Omit<Positions, "mask">,
  width: number,
  value: (position: number, column: number) => number,
): Tensor {
  const { numPositions } = positions;
  const table = Float32Array.from({ length: numPositions * width }, (_, i) =>
    value(Math.floor(i / width), i % width),
  );
  return positions.rows(g.constant(table, [numPositions, width]));
}

/** Rows [T, W] or [B, T, W] in a shape that broadcasts over heads: [T, W] or [B, 1, T, W]. */
export function acrossHeads(rows: Tensor): Tensor {
  if (rows.shape.length === 2) return rows;
  const [batch, ...rest] = rows.shape;
  return g.reshape(rows, [batch!, 1, ...rest]);
}
