// The thread of helper.ts.

import { workerData } from "node:worker_threads";
import { answerQueue } from "../core/worker.ts";
import { type HostWork, perform, type Share } from "./host.ts";

answerQueue((work: HostWork) => Promise.resolve(perform(work, workerData as Share)));
