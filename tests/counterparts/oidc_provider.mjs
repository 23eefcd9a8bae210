// A real OpenID provider (npm oidc-provider, certified) on loopback.
//
//   node oidc_provider.mjs '{"clients": [...], "users": {...}}'
//
// Prints one line, {"issuer": "http://127.0.0.1:PORT"}, and runs until its standard input closes, so that it ends with
// the process that started it. All settings, with their defaults, are in `config` below.
//
// POST /test/users/LOGIN     sets the user's claims; null removes the user
// POST /test/clients/ID      changes a client, for example {"redirect_uris": [...]}; a new id creates a client
// POST /test/rotate-keys     replaces the signing key
// GET  /test/requests        the number of requests per path, as {"/jwks": 2}

import { generateKeyPairSync, randomUUID } from 'node:crypto';
import { createServer } from 'node:http';
import { json } from 'node:stream/consumers';

// Standard output is for the ready line; the library would print its notices there.
console.info = console.error;
const { Provider } = await import('oidc-provider');

const config = {
  port: 0, // 0 takes a free one.
  alg: 'RS256', // Of every signature: RS256, ES256 or EdDSA.
  // Each has client_id and redirect_uris, and any other client metadata that the library supports.
  clients: [{ client_id: 'roster', redirect_uris: [] }],
  // Claims by login name. The login name is the subject, every password is accepted, and no other user can sign in.
  users: {},
  // Whether ID tokens contain the claims of the scopes; otherwise only userinfo does.
  claims_in_id_token: true,
  // Access tokens become JWTs for this audience. Userinfo then refuses them, because they are for another audience.
  audience: null,
  token_ttl_seconds: 600,
  ...JSON.parse(process.argv[2] ?? '{}'),
};

const ROLES = 'urn:zitadel:iam:org:project:roles';
// The redirect URI of the tests when they act as a client themselves. Nothing listens there.
const TESTS_REDIRECT_URI = 'http://127.0.0.1:9/tokens';
const EMAIL = ['email', 'email_verified'];

function newKey() {
  const { privateKey } = {
    RS256: () => generateKeyPairSync('rsa', { modulusLength: 2048 }),
    ES256: () => generateKeyPairSync('ec', { namedCurve: 'P-256' }),
    EdDSA: () => generateKeyPairSync('ed25519'),
  }[config.alg]();
  return { ...privateKey.export({ format: 'jwk' }), use: 'sig', alg: config.alg, kid: randomUUID() };
}

// One object per set of clients, claims and keys, because the library fixes these for its lifetime. Its store is
// outside of it, so that sessions, codes and tokens survive a change.
function newProvider() {
  const names = new Set(Object.values(config.users).flatMap((claims) => Object.keys(claims)));
  const provider = new Provider(issuer, {
    clients: config.clients.map((client) => ({
      client_secret: 'a-client-secret-for-tests',
      id_token_signed_response_alg: config.alg,
      grant_types: ['authorization_code', 'refresh_token', 'client_credentials'],
      response_types: ['code'],
      post_logout_redirect_uris: client.redirect_uris,
      ...client,
      redirect_uris: [...(client.redirect_uris ?? []), TESTS_REDIRECT_URI],
    })),
    jwks: { keys: [key] },
    cookies: { keys: cookieKeys },
    // As in authentik and Zitadel: `profile` includes the groups and roles, and each can be requested alone.
    claims: {
      openid: ['sub'],
      email: EMAIL,
      profile: [...names].filter((name) => !EMAIL.includes(name)),
      groups: ['groups'],
      [ROLES]: [ROLES],
    },
    conformIdTokenClaims: !config.claims_in_id_token,
    features: {
      devInteractions: { enabled: true },
      userinfo: { enabled: true },
      introspection: { enabled: true },
      revocation: { enabled: true },
      clientCredentials: { enabled: true },
      rpInitiatedLogout: { enabled: true },
      resourceIndicators: {
        enabled: config.audience !== null,
        defaultResource: () => config.audience,
        useGrantedResource: () => true,
        getResourceServerInfo: () => ({
          audience: config.audience,
          scope: 'openid email profile groups',
          accessTokenFormat: 'jwt',
          jwt: { sign: { alg: config.alg } },
        }),
      },
    },
    ttl: {
      AccessToken: config.token_ttl_seconds,
      ClientCredentials: config.token_ttl_seconds,
      IdToken: config.token_ttl_seconds,
      Grant: 86400,
      Session: 86400,
      Interaction: 600,
      RefreshToken: 86400,
    },
    findAccount: (_, login) =>
      Object.hasOwn(config.users, login)
        ? { accountId: login, claims: () => ({ ...config.users[login], sub: login }) }
        : undefined,
  });
  for (const event of ['server_error', 'authorization.error', 'grant.error', 'userinfo.error']) {
    provider.on(event, (_, error) => console.error(event, error.error_detail ?? error));
  }
  return provider.callback();
}

const requests = {};

async function control(request, answer, path) {
  const body = request.method === 'POST' ? await json(request).catch(() => undefined) : undefined;
  const [what, name] = path.split('/').slice(2).map(decodeURIComponent);
  if (what === 'requests') {
    return answer.end(JSON.stringify(requests));
  } else if (what === 'rotate-keys') {
    key = newKey();
  } else if (what === 'users' && body === null) {
    delete config.users[name];
  } else if (what === 'users' && body) {
    config.users[name] = body;
  } else if (what === 'clients' && body) {
    const known = config.clients.find((client) => client.client_id === name);
    if (known) Object.assign(known, body);
    else config.clients.push({ client_id: name, ...body });
  } else {
    answer.statusCode = 400;
    return answer.end();
  }
  provider = newProvider();
  answer.statusCode = 204;
  answer.end();
}

const server = createServer((request, answer) => {
  const { pathname } = new URL(request.url, issuer);
  if (pathname.startsWith('/test/')) {
    control(request, answer, pathname).catch((error) => {
      answer.statusCode = 400;
      answer.end(String(error));
    });
  } else {
    requests[pathname] = (requests[pathname] ?? 0) + 1;
    provider(request, answer);
  }
});
await new Promise((listening) => server.listen(config.port, '127.0.0.1', listening));

const issuer = `http://127.0.0.1:${server.address().port}`;
const cookieKeys = [randomUUID()];
let key = newKey();
let provider = newProvider();

process.stdin.on('end', () => process.exit()).resume();
console.log(JSON.stringify({ issuer }));
