// Byte-pair merging of short words by plain scans. The library's own merging writes each pair as JSON to look it up,
// which is most of its time.

export type Ranks = ReadonlyMap<string, ReadonlyMap<string, number>>;

/** The rank of each pair, by its left and then its right side. */
export function mergeRanks(merges: Iterable<readonly [string, string]>): Ranks {
  const ranks = new Map<string, Map<string, number>>();
  let rank = 0;
  for (const [left, right] of merges) {
    const row = ranks.get(left);
    if (row) row.set(right, rank++);
    else ranks.set(left, new Map([[right, rank++]]));
  }
  return ranks;
}

/** Merges the pair of the lowest rank, the leftmost of several, until no pair has one (Sennrich et al., 2016). */
export function mergePairs(word: string, ranks: Ranks): string[] {
  const parts = Array.from(word);
  const rankAt = (at: number): number => ranks.get(parts[at]!)?.get(parts[at + 1]!) ?? Infinity;
  const pairs = parts.slice(1).map((_, at) => rankAt(at));
  for (;;) {
    let lowest = -1;
    let lowestRank = Infinity;
    for (let at = 0; at < pairs.length; at++) {
      if (pairs[at]! < lowestRank) [lowest, lowestRank] = [at, pairs[at]!];
    }
    if (lowest < 0) return parts;
    parts.splice(lowest, 2, parts[lowest]! + parts[lowest + 1]!);
    pairs.splice(lowest, 1);
    if (lowest > 0) pairs[lowest - 1] = rankAt(lowest - 1);
    if (lowest < pairs.length) pairs[lowest] = rankAt(lowest);
  }
}
