// A real SMTP server (npm smtp-server) on loopback that writes each mail to a file.
//
//   node smtp_server.mjs DIRECTORY '{"auth": "USER:PASSWORD"}' [--reject ADDRESS]...
//
// Prints one line, {"port": PORT, "ca": FILE, "mails": FILE}, and runs until its standard input closes. Every mail is
// one line of the file: {from, to, subject, text, html, headers, secure, user, raw}, where `from` and `to` come from
// the envelope, `secure` says whether it came over TLS, and `user` is the authenticated user. The server's certificate
// is for 127.0.0.1 and localhost; `ca` is the authority to trust. All settings, with their defaults, are in `config`
// below.

import { execFileSync } from 'node:child_process';
import { appendFileSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { buffer } from 'node:stream/consumers';
import PostalMime from 'postal-mime';
import { SMTPServer } from 'smtp-server';

const [directory, settings = '{}', ...flags] = process.argv.slice(2);
const config = {
  port: 0, // 0 takes a free one.
  tls: 'starttls', // starttls, implicit (as on port 465) or none.
  auth: null, // USER:PASSWORD; then nobody else may send.
  reject: [], // Recipients that do not exist, ever.
  tempfail: 0, // So many mails are put off with 451 before the first is taken.
  ...JSON.parse(settings),
};
for (let i = 0; i + 1 < flags.length; i += 2) {
  if (flags[i] === '--reject') config.reject.push(flags[i + 1]);
}
const mails = path.join(directory, 'mails.jsonl');
writeFileSync(mails, '');

// An authority and a certificate signed by it, because strict clients do not accept an authority's own certificate for
// a server.
function certificate() {
  const at = (name) => path.join(directory, name);
  const openssl = (...args) => execFileSync('openssl', args, { stdio: ['ignore', 'ignore', 'pipe'] });
  const newKey = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes'];
  writeFileSync(at('leaf.ext'), 'basicConstraints=CA:FALSE\nsubjectAltName=IP:127.0.0.1,DNS:localhost\n');
  openssl(
    'req', '-x509', ...newKey, '-days', '2', '-subj', '/CN=Test authority',
    '-keyout', at('ca.key'), '-out', at('ca.pem'),
  );
  openssl('req', ...newKey, '-subj', '/CN=localhost', '-keyout', at('leaf.key'), '-out', at('leaf.csr'));
  openssl(
    'x509', '-req', '-in', at('leaf.csr'), '-days', '2', '-extfile', at('leaf.ext'), '-out', at('leaf.pem'),
    '-CA', at('ca.pem'), '-CAkey', at('ca.key'), '-set_serial', '1',
  );
  return { key: readFileSync(at('leaf.key')), cert: readFileSync(at('leaf.pem')), ca: at('ca.pem') };
}

const failure = (responseCode, message) => Object.assign(new Error(message), { responseCode });
const { ca = null, ...pair } = config.tls === 'none' ? {} : certificate();

const server = new SMTPServer({
  ...pair,
  name: 'localhost',
  secure: config.tls === 'implicit',
  hideSTARTTLS: config.tls === 'none',
  disabledCommands: [...(config.tls === 'none' ? ['STARTTLS'] : []), ...(config.auth === null ? ['AUTH'] : [])],
  authOptional: config.auth === null,
  // A client must not send a password in clear, so the server accepts one without TLS only when TLS is off.
  allowInsecureAuth: config.tls === 'none',
  disableReverseLookup: true,
  onAuth: ({ username, password }, _, done) =>
    `${username}:${password}` === config.auth ? done(null, { user: username }) : done(failure(535, '5.7.8 no')),
  onRcptTo: ({ address }, _, done) =>
    config.reject.includes(address) ? done(failure(550, '5.1.1 no such user')) : done(),
  onData(stream, { envelope, secure, user }, done) {
    buffer(stream)
      .then(async (raw) => {
        if (config.tempfail-- > 0) throw failure(451, '4.3.0 try again later');
        const mail = await PostalMime.parse(raw);
        const line = {
          from: envelope.mailFrom.address,
          to: envelope.rcptTo.map(({ address }) => address),
          subject: mail.subject ?? '',
          text: mail.text ?? '',
          html: mail.html ?? '',
          headers: Object.fromEntries(mail.headers.map(({ key, value }) => [key, value])),
          secure,
          user: user ?? null,
          raw: raw.toString(),
        };
        appendFileSync(mails, `${JSON.stringify(line)}\n`);
      })
      .then(() => done(), done);
  },
});
server.on('error', (error) => console.error(error.message)); // A client that hangs up is no reason to end.

process.stdin.on('end', () => process.exit()).resume();
server.listen(config.port, '127.0.0.1', () => {
  console.log(JSON.stringify({ port: server.server.address().port, ca, mails }));
});
