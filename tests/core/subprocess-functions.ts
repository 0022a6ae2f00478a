// What subprocess.test.ts calls in a process of its own.

export const double = (x: number) => Promise.resolve(2 * x);

export function crash(): never {
  process.stderr.write("about to crash\n");
  process.abort();
}

export function fail(): never {
  throw new Error("thrown inside");
}

export function hang(): Promise<never> {
  return new Promise(() => setInterval(() => undefined, 1000));
}
