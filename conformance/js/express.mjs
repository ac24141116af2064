// An Express application behind @cedar-policy/authorization-for-expressjs, deciding with
// @verifiedpermissions/authorization-clients-js: both as they are published. The schema is the one that
// their own tool makes of openapi.json.
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { createRequire } from 'node:module'
import { readFileSync } from 'node:fs'
import { once } from 'node:events'
import express from 'express'
import { VerifiedPermissions } from '@aws-sdk/client-verifiedpermissions'

const require = createRequire(import.meta.url)
const { ExpressAuthorizationMiddleware } = require('@cedar-policy/authorization-for-expressjs')
const { AVPAuthorizationEngine } = require('@verifiedpermissions/authorization-clients-js')

const pool = process.env.TEST_USER_POOL
const poolId = pool.split('/')[1]
const clerks = `${poolId}|clerk`

const tool = require.resolve('@cedar-policy/authorization-for-expressjs').replace(/dist.*/, 'node_modules/@cedar-policy/cedar-authorization/dist/bin.js')
execFileSync(process.execPath, [tool, 'generate-schema', '--api-spec', 'openapi.json', '--namespace', 'Shop', '--mapping-type', 'SimpleRest'])
const schema = readFileSync('v4.cedarschema.json', 'utf8')

const avp = new VerifiedPermissions()
const { policyStoreId } = await avp.createPolicyStore({ validationSettings: { mode: 'STRICT' } })
await avp.putSchema({ policyStoreId, definition: { cedarJson: schema } })
const policy = (statement) => avp.createPolicy({ policyStoreId, definition: { static: { statement } } })
const permit = await policy(`permit (principal in Shop::UserGroup::"${clerks}", action in [Shop::Action::"get /invoices", Shop::Action::"get /invoices/{invoiceId}"], resource);`)
await avp.createIdentitySource({
  policyStoreId, principalEntityType: 'Shop::User',
  configuration: { cognitoUserPoolConfiguration: { userPoolArn: pool, groupConfiguration: { groupEntityType: 'Shop::UserGroup' } } },
})
await avp.createPolicyStoreAlias({ aliasName: 'policy-store-alias/express', policyStoreId })

async function serve(engine, principalConfiguration) {
  const guard = new ExpressAuthorizationMiddleware({
    schema: { type: 'jsonString', schema }, authorizationEngine: engine, principalConfiguration,
    skippedEndpoints: [{ httpVerb: 'get', path: '/login' }], logger: { log: console.error },
  })
  const app = express()
  app.use(guard.middleware)
  app.get('/login', (_, res) => res.send('come in'))
  app.all('/*all', (_, res) => res.json(res.locals.authorizerInfo))
  const server = app.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return { url: `http://127.0.0.1:${server.address().port}`, close: () => server.close() }
}

// The middleware answers a denial with 401, and an error of the decision point with 500.
async function expectAnswers(name, app, clerk, stranger) {
  for (const [method, path, headers, status] of [
    ['GET', '/login', {}, 200],
    ['GET', '/invoices', clerk, 200],
    ['GET', '/invoices/17', clerk, 200],
    ['POST', '/invoices', clerk, 401],
    ['GET', '/invoices', stranger, 401],
    ['GET', '/nothing', clerk, 404],
  ]) {
    const answer = await fetch(app.url + path, { method, headers })
    const text = await answer.text()
    assert.equal(answer.status, status, `${name}: ${method} ${path}: ${answer.status} ${text}`)
    if (status === 200 && path !== '/login') {
      assert.deepEqual(JSON.parse(text).determiningPolicies, [permit.policyId])
    }
  }
  app.close()
}

const groups = (req) => (req.headers['x-groups'] ? [{ type: 'Shop::UserGroup', id: req.headers['x-groups'] }] : [])
const entities = { type: 'custom', getPrincipalEntity: async (req) => ({ uid: { type: 'Shop::User', id: 'alice' }, attrs: {}, parents: groups(req) }) }
for (const id of [policyStoreId, 'policy-store-alias/express']) {
  const app = await serve(new AVPAuthorizationEngine({ policyStoreId: id, callType: 'isAuthorized' }), entities)
  await expectAnswers(id, app, { 'x-groups': clerks }, {})
}
for (const [callType, token, other] of [
  ['identityToken', process.env.TEST_ID_TOKEN, process.env.TEST_STRANGER_ID_TOKEN],
  ['accessToken', process.env.TEST_ACCESS_TOKEN, process.env.TEST_STRANGER_ACCESS_TOKEN],
]) {
  const app = await serve(new AVPAuthorizationEngine({ policyStoreId, callType }), { type: callType })
  await expectAnswers(callType, app, { authorization: `Bearer ${token}` }, { authorization: `Bearer ${other}` })
}
console.log('the Express middleware: done')
