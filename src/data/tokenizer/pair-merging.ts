// Byte-pair merging (Sennrich et al., 2016) over ids, in time that grows little faster than the word: words of
// SentencePiece's kind are whole lines.

/** By the id of the left and then of the right side: what the two become, and how early. */
export type Merges = ReadonlyMap<number, ReadonlyMap<number, Merge>>;

interface Merge {
  readonly rank: number;
  readonly id: number;
}

/** The merges in order of rank; `idOf` also gives the id of a merged pair. */
export function readMerges(
  merges: Iterable<readonly [string, string]>,
  idOf: (piece: string) => number,
  joinedOf: (left: string, right: string) => string,
): Merges {
  const rows = new Map<number, Map<number, Merge>>();
  let rank = 0;
  for (const [left, right] of merges) {
    const merge = { rank: rank++, id: idOf(joinedOf(left, right)) };
    const row = rows.get(idOf(left));
    if (row) row.set(idOf(right), merge);
    else rows.set(idOf(left), new Map([[idOf(right), merge]]));
  }
  return rows;
}

/** Merges the pair of the lowest rank, the leftmost of several, until no pair has one. */
export function mergePairs(ids: readonly number[], merges: Merges): number[] {
  const parts = [...ids];
  const next = parts.map((_, at) => at + 1);
  const previous = parts.map((_, at) => at - 1);
  const mergeAt = (at: number) => merges.get(parts[at]!)?.get(parts[next[at]!]!);
  // A heap of rank and place, of which some are out of date when their turn comes.
  const waiting: number[] = [];
  const add = (at: number): void => {
    const merge = mergeAt(at);
    if (merge) push(waiting, merge.rank * places + at);
  };
  for (const at of parts.keys()) add(at);
  while (waiting.length > 0) {
    const key = pop(waiting);
    const at = key % places;
    const merge = mergeAt(at);
    if (merge?.rank !== Math.floor(key / places)) continue;
    const gone = next[at]!;
    parts[at] = merge.id;
    parts[gone] = -1;
    next[at] = next[gone]!;
    if (next[at] < parts.length) previous[next[at]] = at;
    add(at);
    if (previous[at]! >= 0) add(previous[at]!);
  }
  return parts.filter((id) => id >= 0);
}

const places = 2 ** 30;

function push(heap: number[], key: number): void {
  let at = heap.length;
  for (let parent; at > 0 && heap[(parent = (at - 1) >> 1)]! > key; at = parent)
    heap[at] = heap[parent]!;
  heap[at] = key;
}

function pop(heap: number[]): number {
  const lowest = heap[0]!;
  const key = heap.pop()!;
  if (heap.length === 0) return lowest;
  let at = 0;
  for (;;) {
    let child = 2 * at + 1;
    if (heap[child + 1]! < heap[child]!) child++;
    if (!(heap[child]! < key)) break;
    heap[at] = heap[child]!;
    at = child;
  }
  heap[at] = key;
  return lowest;
}
