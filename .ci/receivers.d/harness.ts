// Asks the sample about one request, as `vectors.py` describes it.
import { readFileSync } from "node:fs";
import { verify } from "./sample.js";

const [, , headersFile, bodyFile, now] = process.argv;
const lines = readFileSync(headersFile, "latin1").split("\r\n").filter((line) => line !== "");
const headers = Object.fromEntries(lines.map((line) => [line.slice(0, line.indexOf(":")), line.slice(line.indexOf(":") + 2)]));
const given = now === undefined ? undefined : Number(now);
process.exit(verify(process.env.SECRET!, headers, readFileSync(bodyFile), given) ? 0 : 10);
