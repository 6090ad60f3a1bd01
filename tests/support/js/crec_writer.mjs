// A second writer of CREC v1, from docs/recording-format.md: one small file, for the Python reader to open.
//
//   node crec_writer.mjs OUT DEK-HEX KEK-HEX CHUNK-SIZE FRAMES     mono, 8 kHz; sample n is (n * 7) mod 30011

import { createCipheriv, createHmac, randomBytes } from "node:crypto";
import { writeFileSync } from "node:fs";
import { TYPES, deriveKey, makeNonce } from "./crec_reader.mjs";

function unsigned(bytes, value) {
  const out = Buffer.alloc(bytes);
  if (bytes === 8) out.writeBigUInt64BE(BigInt(value));
  else out.writeUIntBE(value, 0, bytes);
  return out;
}

function wrapAes(kek, dek) {
  const cipher = createCipheriv("id-aes256-wrap", kek, Buffer.alloc(8, 0xa6));
  return Buffer.concat([cipher.update(dek), cipher.final()]);
}

function slotsArea(kek, dek) {
  const keyId = Buffer.from(createHmac("sha256", kek).update("id").digest().subarray(0, 8).toString("hex"));
  const wrapped = wrapAes(kek, dek);
  const slot = [unsigned(2, 0x7f), unsigned(2, keyId.length), unsigned(2, wrapped.length), keyId, wrapped];
  const slots = Buffer.concat([unsigned(2, 1), ...slot]);
  return Buffer.concat([slots, Buffer.alloc(4096 - 96 - 40 - slots.length)]);
}

function seal(key, chunkSize, index, type, position, payload) {
  const inner = Buffer.alloc(chunkSize);
  inner[0] = type;
  inner.writeUInt32BE(payload.length, 4);
  inner.writeBigUInt64BE(BigInt(position), 8);
  payload.copy(inner, 16);
  const cipher = createCipheriv("aes-256-gcm", key, makeNonce(index, type === TYPES.FINAL), { authTagLength: 16 });
  return Buffer.concat([cipher.update(inner), cipher.final(), cipher.getAuthTag()]);
}

const [out, dekHex, kekHex, chunkText, framesText] = process.argv.slice(2);
const dek = Buffer.from(dekHex, "hex");
const chunkSize = Number(chunkText);
const frames = Number(framesText);
const salt = randomBytes(32);
const core = Buffer.concat([
  Buffer.from("89435245430d0a1a", "hex"), unsigned(1, 1), unsigned(1, 0), unsigned(2, 1), unsigned(4, 96),
  Buffer.alloc(16, 0xf1), salt, Buffer.alloc(16, 0x7e), unsigned(4, chunkSize), unsigned(4, 2), unsigned(4, 0),
  unsigned(4, 0),
]);
const area = slotsArea(Buffer.from(kekHex, "hex"), dek);
const key = deriveKey(dek, { core, salt }, "body");
const parts = [core, deriveKey(dek, { core, salt }, "commit"), unsigned(4, area.length), unsigned(4, 0), area];
const meta = { v: 1, kind: "audio", recording: "ab".repeat(16), segment: 2, rate_hz: 8000, channels: 1, layout: "mixed",
  sample_format: "s16le", from: "sip:anna@example", written_by: "node" };
let index = 0;
const add = (type, position, payload) => parts.push(seal(key, chunkSize, index++, type, position, payload));
add(TYPES.META, 0, Buffer.from(JSON.stringify(meta)));
const perRecord = Math.min((chunkSize - 16) / 2, 4000);
for (let start = 0; start < frames; start += perRecord) {
  const pcm = Buffer.alloc(2 * Math.min(perRecord, frames - start));
  for (let n = 0; n < pcm.length / 2; n++) pcm.writeInt16LE(((start + n) * 7) % 30011, 2 * n);
  add(TYPES.AUDIO, start, pcm);
}
add(TYPES.EVENT, frames, Buffer.from('{"event":"hold","channel":1}'));
const final = { frames, ended_by: "a", reason: "bye", next: null };
add(TYPES.FINAL, frames, Buffer.concat([unsigned(8, index + 1), Buffer.from(JSON.stringify(final))]));
writeFileSync(out, Buffer.concat(parts), { mode: 0o600 });
