#!/usr/bin/env node
// Receives Roster's webhooks and shows how to verify them. Requires only Node 18 or later.
//
//   ROSTER_WEBHOOK_SECRET=whsec_… node receive.mjs [PORT]
//
// During a rotation set both secrets, separated by a comma. Each genuine event is printed on one line.

import { createHmac, timingSafeEqual } from 'node:crypto';
import { createServer } from 'node:http';

const AGE_MAX_S = 300;
const BODY_BYTES_MAX = 1024 * 1024;

/** Whether the request comes from Roster, unchanged and recently. `body` must be the exact bytes that were received. */
export function isGenuine(headers, body, secrets, now = Date.now() / 1000) {
  const timestamp = headers['x-roster-timestamp'] ?? '';
  if (!/^\d{1,12}$/.test(timestamp) || Math.abs(now - Number(timestamp)) > AGE_MAX_S) return false;
  // During a rotation the header has two signatures, of which one must match.
  const offered = (headers['x-roster-signature'] ?? '').split(',').map((part) => part.trim());
  return secrets.some((secret) => {
    const digest = createHmac('sha256', secret).update(`${timestamp}.`).update(body).digest('hex');
    const expected = Buffer.from(`v1=${digest}`);
    return offered.some((one) => {
      const text = Buffer.from(one);
      return text.length === expected.length && timingSafeEqual(text, expected);
    });
  });
}

const secrets = (process.env.ROSTER_WEBHOOK_SECRET ?? '').split(',').filter(Boolean);
if (secrets.length === 0) {
  console.error('set ROSTER_WEBHOOK_SECRET to the secret that was shown when the webhook was created');
  process.exit(1);
}
// An event can be delivered twice: after a crash, or if our answer was lost. A real receiver stores the ids of the last
// deliveries with its data.
const seen = new Set();

const server = createServer((request, response) => {
  const pieces = [];
  let bytes = 0;
  request.on('data', (piece) => {
    bytes += piece.length;
    if (bytes > BODY_BYTES_MAX) request.destroy();
    else pieces.push(piece);
  });
  request.on('end', () => {
    const body = Buffer.concat(pieces);
    if (!isGenuine(request.headers, body, secrets)) return response.writeHead(401).end();
    const delivery = request.headers['x-roster-delivery'];
    if (!seen.has(delivery)) {
      console.log(JSON.stringify({ delivery, ...JSON.parse(body) }));
      seen.add(delivery);
      if (seen.size > 10_000) seen.delete(seen.values().next().value);
    }
    // Answer only after processing: Roster delivers an event again unless the answer is 2xx.
    response.writeHead(204).end();
  });
});
server.listen(Number(process.argv[2] ?? 8099), '127.0.0.1', () => {
  console.error(`listening on http://127.0.0.1:${server.address().port}`);
});
