// A second reader of CREC v1, written from docs/recording-format.md alone. Node 18 or later, node:crypto only.
//
//   node crec_reader.mjs read FILE DEK-HEX     verdict, META, records as one JSON object
//   node crec_reader.mjs vectors DIRECTORY     {vector name: verdict} as one JSON object
//   node crec_reader.mjs whole DEK-HEX FILE... the content of all segments of a recording or an artefact, and what is
//                                              wrong between them, as one JSON object
//   node crec_reader.mjs whole-vectors FILE... the same of vectors, each with its own key
//
// It is here to show that the page suffices and that two implementations agree; it holds whole files in memory.

import { createDecipheriv, createHash, createHmac, hkdfSync, timingSafeEqual } from "node:crypto";
import { readFileSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const MAGIC = Buffer.from("89435245430d0a1a", "hex");
const SIDECAR_MAGIC = Buffer.from("89435245530d0a1a", "hex");
const CHUNK_SIZES = [4096, 8192, 16384, 32768, 65536];
export const TYPES = { AUDIO: 1, META: 2, EVENT: 3, DATA: 4, FINAL: 0x7f };

export class Refused extends Error {}

function refuse(reason) {
  throw new Refused(reason);
}

export function deriveKey(dek, head, label) {
  const coreHash = createHash("sha256").update(head.core).digest();
  const info = Buffer.concat([Buffer.from("crec/v1/" + label), Buffer.from([0]), coreHash]);
  return Buffer.from(hkdfSync("sha256", dek, head.salt, info, 32));
}

export function makeNonce(index, final) {
  const nonce = Buffer.alloc(12);
  nonce[0] = 1;
  nonce[1] = final ? 1 : 0;
  nonce.writeBigUInt64BE(BigInt(index), 4);
  return nonce;
}

export function parseHead(file) {
  if (file.length < 8 || !file.subarray(0, 8).equals(MAGIC)) refuse("not-a-recording");
  if (file.length < 16) refuse("head-cut");
  if (file[8] !== 1) refuse("version major");
  if (file.readUInt16BE(10) !== 1) refuse("version suite");
  const coreLen = file.readUInt32BE(12);
  if (coreLen < 96 || coreLen > 4096) refuse("malformed core_len");
  if (file.length < coreLen + 40) refuse("head-cut");
  const slotsLen = file.readUInt32BE(coreLen + 32);
  const body = coreLen + 40 + slotsLen;
  if (slotsLen > 65536 || body % 4096 !== 0) refuse("malformed slots_len");
  if (file.length < body) refuse("head-cut");
  if (file.readUInt32BE(88) !== 0) refuse("version flags");
  const chunkSize = file.readUInt32BE(80);
  if (!CHUNK_SIZES.includes(chunkSize)) refuse("malformed chunk_size");
  return {
    core: file.subarray(0, coreLen),
    fileId: file.subarray(16, 32),
    salt: file.subarray(32, 64),
    tenant: file.subarray(64, 80),
    chunkSize,
    segment: file.readUInt32BE(84),
    commitment: file.subarray(coreLen, coreLen + 32),
    generation: file.readUInt32BE(coreLen + 36),
    slotsArea: file.subarray(coreLen + 40, body),
    body,
  };
}

// The slots and where they end; null if the bytes break a rule.
function parseSlots(area) {
  if (area.length < 2) return null;
  const count = area.readUInt16BE(0);
  if (count > 16) return null;
  const slots = [];
  let at = 2;
  for (let n = 0; n < count; n++) {
    if (area.length < at + 6) return null;
    const keyIdAt = at + 6;
    const wrappedAt = keyIdAt + area.readUInt16BE(at + 2);
    const end = wrappedAt + area.readUInt16BE(at + 4);
    if (end > area.length) return null;
    slots.push({
      provider: area.readUInt16BE(at),
      keyId: area.subarray(keyIdAt, wrappedAt).toString("latin1"),
      wrapped: area.subarray(wrappedAt, end),
    });
    at = end;
  }
  return { slots, end: at };
}

function sidecarSlots(data, fileId) {
  if (data.length < 32 || !data.subarray(0, 8).equals(SIDECAR_MAGIC)) return [];
  if (!data.subarray(8, 24).equals(fileId) || data.readUInt32BE(28) !== data.length - 32) return [];
  const parsed = parseSlots(data.subarray(32));
  return parsed !== null && parsed.end === data.length - 32 ? parsed.slots : [];
}

function embeddedSlots(area) {
  const parsed = parseSlots(area);
  return parsed !== null && area.subarray(parsed.end).every((byte) => byte === 0) ? parsed.slots : [];
}

// RFC 3394; null if the integrity check fails.
function unwrapAes(kek, wrapped) {
  try {
    const decipher = createDecipheriv("id-aes256-wrap", kek, Buffer.alloc(8, 0xa6));
    return Buffer.concat([decipher.update(wrapped), decipher.final()]);
  } catch {
    return null;
  }
}

function matches(head, dek) {
  return timingSafeEqual(deriveKey(dek, head, "commit"), head.commitment);
}

function findDek(head, { dek, kek, sidecars = [] }) {
  if (dek !== undefined) {
    if (!matches(head, dek)) refuse("wrong-key");
    return dek;
  }
  const keyId = createHmac("sha256", kek).update("id").digest().subarray(0, 8).toString("hex");
  const slots = sidecars.flatMap((data) => sidecarSlots(data, head.fileId)).concat(embeddedSlots(head.slotsArea));
  const ours = slots.filter((slot) => slot.provider === 0x7f && slot.keyId === keyId);
  if (ours.length === 0) refuse("missing-slot");
  for (const slot of ours) {
    const found = unwrapAes(kek, slot.wrapped);
    if (found !== null && found.length === 32 && matches(head, found)) return found;
  }
  refuse("wrong-key");
}

// One record, or null if it is not authentic or breaks a rule.
function openRecord(key, index, sealed) {
  for (const final of [false, true]) {
    const decipher = createDecipheriv("aes-256-gcm", key, makeNonce(index, final), { authTagLength: 16 });
    decipher.setAuthTag(sealed.subarray(sealed.length - 16));
    const inner = decipher.update(sealed.subarray(0, sealed.length - 16));
    try {
      decipher.final();
    } catch {
      continue;
    }
    const type = inner[0];
    const length = inner.readUInt32BE(4);
    if (final !== (type === TYPES.FINAL) || length > inner.length - 16) return null;
    return { index, type, position: Number(inner.readBigUInt64BE(8)), payload: inner.subarray(16, 16 + length) };
  }
  return null;
}

function endsInZeros(file, offset, recordLength) {
  let last = file.length - 1;
  while (last >= offset && file[last] === 0) last--;
  return Math.ceil((last + 1) / 512) * 512 < offset + recordLength;
}

// Opens `file` (a Buffer) and reads it to its end: {head, records, state, good}. Throws Refused.
export function read(file, keys) {
  const head = parseHead(file);
  const key = deriveKey(findDek(head, keys), head, "body");
  const recordLength = head.chunkSize + 16;
  const records = [];
  let offset = head.body;
  while (offset + recordLength <= file.length) {
    const record = openRecord(key, records.length, file.subarray(offset, offset + recordLength));
    if (record === null || (record.index === 0 && record.type !== TYPES.META)) break;
    records.push(record);
    offset += recordLength;
    if (record.type === TYPES.FINAL) break;
  }
  const good = records.length;
  const last = records[good - 1];
  let state = "corrupt";
  if (good > 0 && last.type === TYPES.FINAL) {
    const counted = last.payload.length >= 8 && last.payload.readBigUInt64BE(0) === BigInt(good);
    if (counted && offset === file.length) state = "complete";
  } else if (good > 0 && (file.length - offset < recordLength || endsInZeros(file, offset, recordLength))) {
    state = "incomplete";
  }
  return { head, records, state, good };
}

function verdict(file, keys) {
  try {
    const { state, good } = read(file, keys);
    return state === "complete" ? state : `${state} ${good}`;
  } catch (error) {
    if (error instanceof Refused) return `refused ${error.message}`;
    throw error;
  }
}

function parseVector(data) {
  const end = data.indexOf("\n\n");
  const keys = { sidecars: [] };
  for (const line of data.subarray(0, end).toString().split("\n").slice(1)) {
    const [name, value] = line.split(/: (.*)/s);
    if (name === "dek" || name === "kek") keys[name] = Buffer.from(value, "hex");
    if (name === "sidecar") keys.sidecars.push(Buffer.from(value, "hex"));
  }
  return { keys, file: data.subarray(end + 2) };
}

function readAll(path, dek) {
  const { head, records, state, good } = read(readFileSync(path), { dek });
  return {
    state,
    good,
    file_id: head.fileId.toString("hex"),
    tenant_handle: head.tenant.toString("hex"),
    segment: head.segment,
    meta: JSON.parse(records[0].payload.toString("utf8")),
    records: records.map(({ type, position, payload }) => ({ type, position, payload: payload.toString("hex") })),
  };
}

const named = (id) => id ?? "none";

// What is wrong between neighbours `last` and `next` of a recording that began with `first`, as the page's table names it.
function between(first, last, next) {
  const faults = [];
  const add = (kind, detail, segment = next.number) => faults.push({ kind, segment, detail });
  for (const key of ["recording", "kind", "rate_hz", "channels", "sample_format", "sha256", "parent"]) {
    if (next.meta[key] !== first.meta[key]) add("foreign", key);
  }
  if (next.number > last.number + 1) {
    add("missing", `${last.number + 1} to ${next.number - 1}`, last.number + 1);
  } else if (next.number <= last.number) add("wrong link", "a number twice");
  else {
    if (named(next.meta.previous) !== last.id) add("wrong link", "previous");
    if (last.final !== null && named(last.final.next) !== next.id) add("wrong link", "next");
    if (next.start > last.end) add("hole", next.start - last.end);
  }
  if (next.start < last.end) add("overlap", last.end - next.start);
  return faults;
}

// Where the authentic part of a segment ends: frames of audio, or bytes of a document.
function endOf(records, frameBytes) {
  const last = records[records.length - 1];
  const size = { [TYPES.AUDIO]: frameBytes, [TYPES.DATA]: 1 }[last.type];
  return last.position + (size === undefined ? 0 : last.payload.length / size);
}

function segmentOf({ file, keys }) {
  const { head, records, state } = read(file, keys);
  const meta = JSON.parse(records[0].payload.toString("utf8"));
  const last = records[records.length - 1];
  return {
    id: head.fileId.toString("hex"),
    number: head.segment,
    meta,
    state,
    start: records[0].position,
    end: endOf(records, 2 * (meta.channels ?? 1)),
    final: last.type === TYPES.FINAL ? JSON.parse(last.payload.subarray(8).toString("utf8")) : null,
    content: records.filter(({ type }) => type === TYPES.AUDIO || type === TYPES.DATA),
  };
}

// All segments of one recording or artefact, in whatever order the files are given.
function readWhole(files) {
  const segments = files.map(segmentOf).sort((one, other) => one.number - other.number);
  const first = segments[0];
  const last = segments[segments.length - 1];
  const faults = [];
  if (first.number > 0) faults.push({ kind: "missing", segment: 0, detail: `0 to ${first.number - 1}` });
  else if (first.meta.previous !== null) faults.push({ kind: "wrong link", segment: 0, detail: "previous" });
  for (let n = 1; n < segments.length; n++) {
    faults.push(...between(first, segments[n - 1], segments[n]));
  }
  if (last.final !== null && last.final.next !== null) {
    faults.push({ kind: "missing", segment: last.number + 1, detail: last.final.next });
  }
  const content = Buffer.concat(segments.flatMap((segment) => segment.content.map(({ payload }) => payload)));
  const sha256 = createHash("sha256").update(content).digest("hex");
  const { kind, parent, media_type } = first.meta;
  return {
    kind,
    parent,
    media_type,
    states: segments.map(({ state }) => state),
    faults,
    sha256,
    sha256_matches: first.meta.sha256 === undefined ? null : first.meta.sha256 === sha256,
    content: content.toString("base64"),
  };
}

function main([command, ...rest]) {
  let result;
  if (command === "read") {
    result = readAll(rest[0], Buffer.from(rest[1], "hex"));
  } else if (command === "vectors") {
    const names = readdirSync(rest[0]).filter((name) => name.endsWith(".vector"));
    result = Object.fromEntries(
      names.map((name) => {
        const { keys, file } = parseVector(readFileSync(join(rest[0], name)));
        return [name.slice(0, -".vector".length), verdict(file, keys)];
      }),
    );
  } else if (command === "whole") {
    const dek = Buffer.from(rest[0], "hex");
    result = readWhole(rest.slice(1).map((path) => ({ file: readFileSync(path), keys: { dek } })));
  } else if (command === "whole-vectors") {
    result = readWhole(rest.map((path) => parseVector(readFileSync(path))));
  } else {
    throw new Error(`unknown command ${command}`);
  }
  process.stdout.write(JSON.stringify(result) + "\n");
}

if (import.meta.url === pathToFileURL(process.argv[1]).href) main(process.argv.slice(2));
