// The sample's identity provider: oidc-provider as it is, with its development login, in front of a list
// of people. What makes it part of the chain is extraTokenClaims below: before a token is signed, copse is
// asked whose tenant it is for, and without an answer there is no token.
//
//   COPSE_HOOK_KEY=copse_... node idp.mjs PORT COPSE_URL [ISSUER_NAME]
//
// It prints its issuer URL once it listens.
import { generateKeyPairSync, randomBytes } from 'node:crypto';
import Provider, { errors } from 'oidc-provider';

const [port, copse] = process.argv.slice(2);
const issuer = `http://127.0.0.1:${port}`;
const api = 'https://api.payments.example';

const key = generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey.export({ format: 'jwk' });

// Everybody who can sign in, at any customer: the provider does not know which.
const people = ['alice', 'mona', 'eve', 'bob', 'nobody'];

// claimsFor asks copse. Whatever is wrong, an unknown member or copse being away, the token is refused.
async function claimsFor(token) {
  const machine = token.kind === 'ClientCredentials';
  const question = { issuer, clientId: token.clientId };
  if (!machine) {
    Object.assign(question, { subject: token.accountId, email: `${token.accountId}@example.com`, emailVerified: true });
  }
  const answer = await fetch(`${copse}/v1/hooks/token`, {
    method: 'POST',
    headers: { Authorization: `Bearer ${process.env.COPSE_HOOK_KEY}`, 'Content-Type': 'application/json' },
    body: JSON.stringify(question),
    signal: AbortSignal.timeout(5000),
  }).catch(() => null);
  if (!answer?.ok) {
    throw new errors.AccessDenied(answer?.status === 403 ? 'you are no member of a customer' : 'it can not be known now whose member you are');
  }
  return (await answer.json()).claims;
}

const provider = new Provider(issuer, {
  clients: [
    {
      client_id: 'web', application_type: 'native', token_endpoint_auth_method: 'none',
      redirect_uris: ['http://127.0.0.1/signed-in'], grant_types: ['authorization_code'], response_types: ['code'],
    },
    {
      client_id: 'robot', client_secret: 'robot-secret-of-the-sample', redirect_uris: [],
      grant_types: ['client_credentials'], response_types: [],
    },
  ],
  jwks: { keys: [{ ...key, alg: 'RS256', use: 'sig', kid: 'sample' }] },
  cookies: { keys: [randomBytes(32).toString('hex')] },
  pkce: { required: () => true },
  claims: { openid: ['sub'], email: ['email', 'email_verified'] },
  findAccount: (_ctx, id) => people.includes(id) && {
    accountId: id,
    claims: () => ({ sub: id, email: `${id}@example.com`, email_verified: true }),
  },
  extraTokenClaims: (_ctx, token) => claimsFor(token),
  ttl: { AccessToken: 600, ClientCredentials: 600, Grant: 3600, Session: 3600, Interaction: 600, IdToken: 600, AuthorizationCode: 60 },
  features: {
    devInteractions: { enabled: true }, // any password; a real provider's login goes here
    clientCredentials: { enabled: true },
    resourceIndicators: {
      enabled: true,
      defaultResource: () => api,
      useGrantedResource: () => true,
      getResourceServerInfo: () => ({ scope: '', audience: api, accessTokenFormat: 'jwt', jwt: { sign: { alg: 'RS256' } } }),
    },
  },
});

provider.listen(Number(port), '127.0.0.1', () => console.log(issuer));
