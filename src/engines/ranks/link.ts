// What ranks ask and answer, and how each knows that the others are there.

import { hostname } from "node:os";
import { deserialize, serialize } from "node:v8";
import { messageOf, UserError } from "../../core/errors.ts";
import { isRunning } from "../../files/lock.ts";
import { DeviceError } from "../failure.ts";
import { type Launch, openWire } from "./mpi.ts";

/** What one rank does for another, by name. */
export type Served = Readonly<Record<string, (asked: never) => Promise<unknown>>>;

export interface LinkOptions {
  /** Seconds without a sign of life after which a rank counts as lost. */
  readonly timeout: number;
}

type Failure = Readonly<Record<"message", string> & Record<"isDevice" | "isOutOfMemory", boolean>>;
/** Without a number: a sign of life. */
type Message = { readonly id?: number; readonly failure?: Failure } & (
  | { readonly op: string; readonly asked: unknown }
  | { readonly op?: never; readonly answer?: unknown }
);

interface Waiting {
  resolve(answer: unknown): void;
  reject(error: unknown): void;
}

/** Joins these ranks, and serves them. Each is heard every second, or `onLost` hears of it, once. */
export async function openLink(
  launch: Launch,
  peers: readonly number[],
  served: Served,
  { timeout }: LinkOptions,
  onLost: (error: DeviceError) => void,
) {
  /** Who they are, where they have said it. */
  const known = new Map<number, { readonly host: string; readonly pid: number }>();
  const silent = new Map(peers.map((rank) => [rank, 0]));
  const waiting = new Map<number, Waiting>();
  let lost: DeviceError | undefined;
  const lose = (why: string) => {
    if (lost) return;
    lost = new DeviceError(why);
    for (const { reject } of waiting.values()) reject(lost);
    onLost(lost);
  };
  const failed = (error: unknown) => lose(`the ranks cannot be reached: ${messageOf(error)}`);
  const nameOf = (rank: number) => {
    const { host, pid } = known.get(rank) ?? {};
    return `rank ${rank}${pid ? ` (process ${pid} on ${host})` : ""}`;
  };
  const hear = (from: number, bytes: Uint8Array) => {
    silent.set(from, 0);
    const { id, failure, ...message } = deserialize(bytes) as Message;
    if (id === undefined) return;
    if (message.op !== undefined) {
      const work = served[message.op]!(message.asked as never);
      const answered = work.then(
        (answer) => send(from, { id, answer }),
        (error: unknown) => send(from, { id, failure: failureFrom(error) }),
      );
      return void answered.catch(failed);
    }
    const { resolve, reject } = waiting.get(id)!;
    waiting.delete(id);
    if (failure) reject(errorFrom(failure, nameOf(from)));
    else resolve(message.answer);
  };
  const wire = await openWire(launch, hear, failed);
  const send = (to: number, message: Message) => wire.send(to, serialize(message));
  const unsent = new Set<number>();
  // Counts the seconds in which this process was there to hear, not those in which it was held up itself.
  const watch = setInterval(() => {
    for (const [rank, seconds] of silent) {
      const { host, pid = 0 } = known.get(rank) ?? {};
      silent.set(rank, seconds + 1);
      if (host === hostname() && !isRunning(pid)) lose(`${nameOf(rank)} has ended`);
      else if (seconds >= timeout) lose(`${nameOf(rank)} was silent for ${timeout} s`);
      if (unsent.has(rank)) continue;
      unsent.add(rank);
      send(rank, {}).then(() => unsent.delete(rank), failed);
    }
  }, 1000);
  let number = 0;
  return {
    known,
    nameOf,
    lost: () => lost,
    ask: (to: number, op: string, asked: unknown) =>
      new Promise<unknown>((resolve, reject) => {
        if (lost) return reject(lost);
        const id = number++;
        waiting.set(id, { resolve, reject });
        send(to, { id, op, asked }).catch(failed);
      }),
    /** In order, with all others; or without them. */
    close: (isOrderly: boolean) => {
      clearInterval(watch);
      wire.close(isOrderly);
    },
  };
}

function failureFrom(error: unknown): Failure {
  const isDevice = error instanceof DeviceError;
  const hint = error instanceof UserError && error.hint ? ` (${error.hint})` : "";
  const isOutOfMemory = isDevice && error.isOutOfMemory;
  return { message: messageOf(error) + hint, isDevice, isOutOfMemory };
}

function errorFrom({ message, isDevice, isOutOfMemory }: Failure, who: string): UserError {
  const said = `${who}: ${message}`;
  return isDevice ? new DeviceError(said, isOutOfMemory) : new UserError(said, { exitCode: 1 });
}
