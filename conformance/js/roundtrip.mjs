// The AWS SDK for JavaScript v3 against whatever AWS_ENDPOINT_URL_VERIFIEDPERMISSIONS names: each of the
// 34 operations at least once, the shapes of errors, and paging. The first difference ends it.
import assert from 'node:assert/strict'
import {
  VerifiedPermissions, paginateListPolicies, paginateListPolicyStores,
  ValidationException, ResourceNotFoundException, ConflictException, InvalidStateException,
  ServiceQuotaExceededException, TooManyTagsException,
} from '@aws-sdk/client-verifiedpermissions'

const avp = new VerifiedPermissions()
const idToken = process.env.TEST_ID_TOKEN
const accessToken = process.env.TEST_ACCESS_TOKEN
const pool = process.env.TEST_USER_POOL // its ARN
const poolId = pool.split('/')[1]

const user = (entityId) => ({ entityType: 'Shop::User', entityId })
const invoice = (entityId) => ({ entityType: 'Shop::Invoice', entityId })
const act = (actionId) => ({ actionType: 'Shop::Action', actionId })
const throws = async (promise, type, look = () => {}) => {
  await assert.rejects(promise, (e) => {
    assert.ok(e instanceof type, `want ${type.name}, got ${e.name}: ${e.message}`)
    assert.ok(e.$metadata.requestId, 'the error has a request id')
    look(e)
    return true
  })
}

const schema = JSON.stringify({
  Shop: {
    entityTypes: {
      User: { memberOfTypes: ['Role'] }, Role: {},
      Invoice: { shape: { type: 'Record', attributes: { owner: { type: 'Entity', name: 'User', required: false } } } },
    },
    actions: {
      view: { appliesTo: { principalTypes: ['User'], resourceTypes: ['Invoice'] } },
      pay: { appliesTo: { principalTypes: ['User'], resourceTypes: ['Invoice'] } },
    },
  },
})

async function policyStore() {
  const made = await avp.createPolicyStore({
    validationSettings: { mode: 'STRICT' }, description: 'from JavaScript', deletionProtection: 'ENABLED', tags: { team: 'js' },
  })
  const { policyStoreId, arn } = made
  assert.ok(made.createdDate instanceof Date && Math.abs(Date.now() - made.createdDate) < 3600_000, 'a date is a date')
  const got = await avp.getPolicyStore({ policyStoreId, tags: true })
  assert.equal(got.description, 'from JavaScript')
  assert.deepEqual(got.tags, { team: 'js' })
  assert.equal(got.cedarVersion, 'CEDAR_4')
  await throws(avp.deletePolicyStore({ policyStoreId }), InvalidStateException)
  await avp.updatePolicyStore({ policyStoreId, validationSettings: { mode: 'STRICT' }, deletionProtection: 'DISABLED' })
  await avp.tagResource({ resourceArn: arn, tags: { more: 'x' } })
  await avp.untagResource({ resourceArn: arn, tagKeys: ['team'] })
  assert.deepEqual((await avp.listTagsForResource({ resourceArn: arn })).tags, { more: 'x' })
  const crowd = Object.fromEntries(Array.from({ length: 50 }, (_, i) => [`k${i}`, '']))
  await throws(avp.tagResource({ resourceArn: arn, tags: crowd }), TooManyTagsException)
  let found = false
  for await (const page of paginateListPolicyStores({ client: avp }, { maxResults: 10 })) {
    found ||= page.policyStores.some((ps) => ps.policyStoreId === policyStoreId)
  }
  assert.ok(found, 'the policy store is listed')
  return policyStoreId
}

async function schemas(policyStoreId) {
  await throws(avp.getSchema({ policyStoreId }), ResourceNotFoundException, (e) => assert.equal(e.resourceType, 'SCHEMA'))
  const { namespaces } = await avp.putSchema({ policyStoreId, definition: { cedarJson: schema } })
  assert.deepEqual(namespaces, ['Shop'])
  assert.equal((await avp.getSchema({ policyStoreId })).schema, schema)
}

async function policies(policyStoreId) {
  const create = (statement, more = {}) => avp.createPolicy({ policyStoreId, definition: { static: { statement } }, ...more })
  const statement = 'permit (principal == Shop::User::"alice", action == Shop::Action::"view", resource);'
  const made = await create(statement, { name: 'name/alice' })
  assert.equal(made.effect, 'Permit')
  assert.deepEqual(made.principal, user('alice'))
  assert.deepEqual(made.actions, [act('view')])
  await throws(create(statement, { name: 'name/alice' }), ConflictException, (e) => assert.equal(e.resources[0].resourceType, 'POLICY'))
  await throws(create('permit (principal, action, resource) when { 1 + };'), ValidationException, (e) => {
    assert.equal(e.fieldList[0].path, 'definition.static.statement')
    assert.match(e.fieldList[0].message, /line 1/)
  })
  const got = await avp.getPolicy({ policyStoreId, policyId: 'name/alice' })
  assert.equal(got.definition.static.statement, statement)
  await avp.updatePolicy({
    policyStoreId, policyId: made.policyId,
    definition: { static: { statement: 'permit (principal == Shop::User::"alice", action == Shop::Action::"pay", resource);', description: 'now pays' } },
  })
  const others = []
  for (let i = 0; i < 11; i++) others.push((await create(`permit (principal, action, resource == Shop::Invoice::"${i}");`)).policyId)
  let listed = []
  for await (const page of paginateListPolicies({ client: avp }, { policyStoreId, maxResults: 5, filter: { policyType: 'STATIC' } })) {
    listed.push(...page.policies.map((p) => p.policyId))
  }
  assert.deepEqual(listed.sort(), [made.policyId, ...others].sort())
  const batch = await avp.batchGetPolicy({ requests: [{ policyStoreId, policyId: made.policyId }, { policyStoreId, policyId: 'gone' }] })
  assert.equal(batch.results[0].definition.static.description, 'now pays')
  assert.equal(batch.errors[0].code, 'POLICY_NOT_FOUND')
  for (const policyId of others) await avp.deletePolicy({ policyStoreId, policyId })
  await throws(avp.getPolicy({ policyStoreId, policyId: others[0] }), ResourceNotFoundException, (e) => assert.equal(e.resourceId, others[0]))
  return made.policyId
}

async function templates(policyStoreId) {
  const { policyTemplateId } = await avp.createPolicyTemplate({
    policyStoreId, name: 'name/viewer', statement: 'permit (principal == ?principal, action == Shop::Action::"view", resource == ?resource);',
  })
  const linked = await avp.createPolicy({ policyStoreId, definition: { templateLinked: { policyTemplateId, principal: user('bob'), resource: invoice('7') } } })
  assert.equal(linked.policyType, 'TEMPLATE_LINKED')
  const decide = async (actionId) => (await avp.isAuthorized({ policyStoreId, principal: user('bob'), action: act(actionId), resource: invoice('7') })).decision
  assert.equal(await decide('view'), 'ALLOW')
  await avp.updatePolicyTemplate({ policyStoreId, policyTemplateId, statement: 'permit (principal == ?principal, action == Shop::Action::"pay", resource == ?resource);' })
  assert.equal(await decide('view'), 'DENY')
  assert.equal(await decide('pay'), 'ALLOW')
  assert.equal((await avp.getPolicyTemplate({ policyStoreId, policyTemplateId: 'name/viewer' })).policyTemplateId, policyTemplateId)
  assert.equal((await avp.listPolicyTemplates({ policyStoreId })).policyTemplates.length, 1)
  await avp.deletePolicyTemplate({ policyStoreId, policyTemplateId })
  assert.equal(await decide('pay'), 'DENY')
}

async function decisions(policyStoreId, policyId) {
  const alias = 'policy-store-alias/javascript'
  await avp.createPolicyStoreAlias({ aliasName: alias, policyStoreId })
  assert.equal((await avp.getPolicyStoreAlias({ aliasName: alias })).state, 'Active')
  const question = { principal: user('alice'), action: act('pay'), resource: invoice('1') }
  for (const id of [policyStoreId, alias]) {
    const answer = await avp.isAuthorized({
      policyStoreId: id, ...question,
      context: { contextMap: { big: { long: 4503599627370497 }, at: { datetime: '2026-11-25' } } },
      entities: { entityList: [{ identifier: invoice('1'), attributes: { owner: { entityIdentifier: user('alice') } } }] },
    })
    assert.deepEqual([answer.decision, answer.determiningPolicies, answer.errors], ['ALLOW', [{ policyId }], []])
  }
  const batch = await avp.batchIsAuthorized({ policyStoreId, requests: [question, { ...question, action: act('view') }] })
  assert.deepEqual(batch.results.map((r) => r.decision), ['ALLOW', 'DENY'])
  assert.deepEqual(batch.results[1].request.action, act('view'))
  assert.equal((await avp.listPolicyStoreAliases({ filter: { policyStoreId } })).policyStoreAliases.length, 1)
  await avp.deletePolicyStoreAlias({ aliasName: alias, deletionMode: 'HardDelete' })
  await throws(avp.isAuthorized({ policyStoreId: alias, ...question }), ResourceNotFoundException)
}

async function tokens(policyStoreId) {
  const configuration = { cognitoUserPoolConfiguration: { userPoolArn: pool, clientIds: ['client-1'], groupConfiguration: { groupEntityType: 'Shop::Role' } } }
  const { identitySourceId } = await avp.createIdentitySource({ policyStoreId, configuration, principalEntityType: 'Shop::User' })
  await throws(avp.createIdentitySource({ policyStoreId, configuration }), ServiceQuotaExceededException)
  await avp.createPolicy({ policyStoreId, definition: { static: { statement: `permit (principal in Shop::Role::"${poolId}|clerk", action == Shop::Action::"view", resource);` } } })
  for (const token of [{ identityToken: idToken }, { accessToken }]) {
    const answer = await avp.isAuthorizedWithToken({ policyStoreId, ...token, action: act('view'), resource: invoice('1') })
    assert.equal(answer.decision, 'ALLOW')
    assert.deepEqual(answer.principal, user(`${poolId}|alice`))
    const batch = await avp.batchIsAuthorizedWithToken({ policyStoreId, ...token, requests: [{ action: act('view'), resource: invoice('1') }, { action: act('pay'), resource: invoice('1') }] })
    assert.deepEqual(batch.results.map((r) => r.decision), ['ALLOW', 'DENY'])
  }
  await throws(avp.isAuthorizedWithToken({ policyStoreId, identityToken: accessToken, action: act('view'), resource: invoice('1') }), ValidationException)
  assert.equal((await avp.listIdentitySources({ policyStoreId })).identitySources[0].identitySourceId, identitySourceId)
  await avp.updateIdentitySource({
    policyStoreId, identitySourceId, updateConfiguration: { cognitoUserPoolConfiguration: { userPoolArn: pool, clientIds: ['another'], groupConfiguration: { groupEntityType: 'Shop::Role' } } },
  })
  const got = await avp.getIdentitySource({ policyStoreId, identitySourceId })
  assert.deepEqual(got.configuration.cognitoUserPoolConfiguration.clientIds, ['another'])
  await avp.deleteIdentitySource({ policyStoreId, identitySourceId })
}

const id = await policyStore()
await schemas(id)
const alices = await policies(id)
await templates(id)
await decisions(id, alices)
await tokens(id)
await avp.deletePolicyStore({ policyStoreId: id })
await throws(avp.getPolicyStore({ policyStoreId: id }), ResourceNotFoundException)
await throws(avp.getPolicyStore({ policyStoreId: 'not an id' }), ValidationException, (e) => assert.equal(e.fieldList[0].path, 'policyStoreId'))
console.log('the AWS SDK for JavaScript: done')
