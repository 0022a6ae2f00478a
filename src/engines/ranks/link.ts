// What ranks ask and answer, and how each knows that the others are there.

import { setTimeout as delay } from "node:timers/promises";
import { messageOf, UserError } from "../../core/errors.ts";
import { isAlive, type thisProcess } from "../../files/lock.ts";
import { DeviceError } from "../failure.ts";
import { type Launch, openWire } from "./mpi.ts";

/** What one rank does for another, by name. */
export type Served = Readonly<Record<string, (asked: never) => Promise<unknown>>>;

/** Without a number: a sign of life, or the sender's last word. */
type Message = { readonly id?: number; readonly isLast?: boolean } & (
  | { readonly op: string; readonly asked: unknown }
  | { readonly op?: never; readonly answer?: unknown; readonly failure?: Failure }
);
type Failure = Readonly<{ message: string; isOutOfMemory: boolean }>;

/** Processes by rank, where they have said who they are. */
export type Processes = Map<number, Awaited<ReturnType<typeof thisProcess>>>;

export type Link = Awaited<ReturnType<typeof openLink>>;

/** Joins these ranks, and serves all; one of them that is silent for `timeout` seconds is lost, as `onLost` hears, once. */
export async function openLink(
  launch: Launch,
  peers: readonly number[],
  served: Served,
  { known, timeout }: { readonly known: Processes; readonly timeout: number },
  onLost: (error: DeviceError) => void,
) {
  const silent = new Map(peers.map((rank) => [rank, 0]));
  const waiting = new Map<number, (answer: unknown, error?: Error) => void>();
  let lost: DeviceError | undefined;
  const lose = (why: string) => {
    if (lost) return;
    lost = new DeviceError(why);
    for (const settle of waiting.values()) settle(undefined, lost);
    onLost(lost);
  };
  const failed = (error: unknown) => lose(`the ranks cannot be reached: ${messageOf(error)}`);
  const nameOf = (rank: number) => {
    const { host, pid } = known.get(rank) ?? {};
    return `rank ${rank}${pid ? ` (process ${pid} on ${host})` : ""}`;
  };
  const answer = async (to: number, id: number, work: Promise<unknown>) => {
    const failing = (error: unknown) => ({ id, failure: failureFrom(error) });
    await send(to, await work.then((answer) => ({ id, answer }), failing));
  };
  const onPiece = (from: number) => void (silent.has(from) && silent.set(from, 0));
  const present = new Set(peers);
  let part: () => void;
  const parted = new Promise<void>((resolve) => (part = resolve));
  const hear = (from: number, heard: unknown) => {
    onPiece(from);
    const { id, isLast, ...message } = heard as Message;
    if (isLast && present.delete(from) && present.size === 0) part();
    if (id === undefined) return;
    if (message.op !== undefined) {
      answer(from, id, served[message.op]!(message.asked as never)).catch(failed);
      return;
    }
    const { message: said, isOutOfMemory } = message.failure ?? {};
    const error = said && new DeviceError(`${nameOf(from)}: ${said}`, isOutOfMemory);
    waiting.get(id)!(message.answer, error || undefined);
    waiting.delete(id);
  };
  const wire = await openWire(launch, { hear, onPiece, fail: failed });
  const send = (to: number, message: Message) => wire.send(to, message);
  const unsent = new Set<number>();
  // Counts the seconds in which this process was there to hear, not those in which it was held up itself.
  const watch = setInterval(() => {
    for (const [rank, seconds] of silent) {
      const process = known.get(rank);
      silent.set(rank, seconds + 1);
      if (seconds >= timeout) lose(`${nameOf(rank)} was silent for ${timeout} s`);
      if (process)
        void isAlive(process).then((isThere) => isThere || lose(`${nameOf(rank)} has ended`));
      if (unsent.has(rank)) continue;
      unsent.add(rank);
      send(rank, {}).then(() => unsent.delete(rank), failed);
    }
  }, 1000);
  let number = 0;
  return {
    nameOf,
    lost: () => lost,
    ask: (to: number, op: string, asked: unknown) =>
      new Promise<unknown>((resolve, reject) => {
        if (lost) return reject(lost);
        const id = number++;
        waiting.set(id, (answer, error) => (error ? reject(error) : resolve(answer)));
        send(to, { id, op, asked }).catch(failed);
      }),
    /** In order, when all have said their last word and heard the others'; or without them. */
    close: async (isOrderly: boolean) => {
      clearInterval(watch);
      if (!isOrderly) return wire.close(false);
      await Promise.all(peers.map((rank) => send(rank, { isLast: true })));
      await Promise.race([parted, delay(1000 * timeout, undefined, { ref: false })]);
      await wire.close(present.size === 0);
    },
  };
}

function failureFrom(error: unknown): Failure {
  const hint = error instanceof UserError && error.hint ? ` (${error.hint})` : "";
  const isOutOfMemory = error instanceof DeviceError && error.isOutOfMemory;
  return { message: messageOf(error) + hint, isOutOfMemory };
}
