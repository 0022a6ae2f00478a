// Dynamic loss scaling (Micikevicius et al., 2018): a factor on the loss keeps cotangents in half precision between
// underflow and overflow. It is a power of two, so that scaling rounds nothing.

const INITIAL = 2 ** 10;
const SMALLEST = 2 ** -10;
const LARGEST = 2 ** 16;
/** Finite steps in a row after which a larger scale is tried. */
const GROWTH_INTERVAL = 200;

export class LossScale {
  value = INITIAL;
  #finiteSteps = 0;

  /** Takes note of a step's gradients; true if the step should be tried again, at half the scale. */
  shouldRetry(isFinite: boolean): boolean {
    if (isFinite) {
      this.#finiteSteps++;
      if (this.#finiteSteps % GROWTH_INTERVAL === 0) this.value = Math.min(LARGEST, 2 * this.value);
      return false;
    }
    this.#finiteSteps = 0;
    if (this.value <= SMALLEST) return false;
    this.value /= 2;
    return true;
  }
}
