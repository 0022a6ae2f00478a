// A thread that hashes large files, while the main one goes on.

import { createHash } from "node:crypto";
import { answerQueue } from "../core/worker.ts";
import { hashOfFile } from "./safetensors.ts";

answerQueue((path: string) => hashOfFile(path, createHash("sha256")));
