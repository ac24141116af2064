"""boto3 against whatever AWS_ENDPOINT_URL_VERIFIEDPERMISSIONS names: each of the 34 operations at least
once, the shapes of errors, and paging. The first difference ends it."""

import datetime
import json
import os

import boto3

avp = boto3.client("verifiedpermissions")
ID_TOKEN, ACCESS_TOKEN, POOL = (os.environ[n] for n in ("TEST_ID_TOKEN", "TEST_ACCESS_TOKEN", "TEST_USER_POOL"))
POOL_ID = POOL.split("/")[1]

SCHEMA = json.dumps({"Shop": {
    "entityTypes": {"User": {"memberOfTypes": ["Role"]}, "Role": {}, "Invoice": {}},
    "actions": {name: {"appliesTo": {"principalTypes": ["User"], "resourceTypes": ["Invoice"]}} for name in ("view", "pay")},
}})


def user(name):
    return {"entityType": "Shop::User", "entityId": name}


def invoice(name):
    return {"entityType": "Shop::Invoice", "entityId": name}


def act(name):
    return {"actionType": "Shop::Action", "actionId": name}


class Throws:
    """A block that must end in an exception of this name; `error` is then its answer."""

    def __init__(self, name):
        self.name, self.error = name, None

    def __enter__(self):
        return self

    def __exit__(self, _, exception, __):
        assert exception is not None, f"want {self.name}, got none"
        if not isinstance(exception, getattr(avp.exceptions, self.name)):
            return False
        self.error = exception.response
        assert self.error["ResponseMetadata"]["RequestId"]
        assert self.error["ResponseMetadata"]["HTTPStatusCode"] == 400
        return True


def policy_store():
    made = avp.create_policy_store(validationSettings={"mode": "STRICT"}, description="from Python", deletionProtection="ENABLED", tags={"team": "py"})
    ps, arn = made["policyStoreId"], made["arn"]
    assert isinstance(made["createdDate"], datetime.datetime)
    got = avp.get_policy_store(policyStoreId=ps, tags=True)
    assert got["tags"] == {"team": "py"} and got["description"] == "from Python", got
    with Throws("InvalidStateException"):
        avp.delete_policy_store(policyStoreId=ps)
    avp.update_policy_store(policyStoreId=ps, validationSettings={"mode": "STRICT"}, deletionProtection="DISABLED")
    avp.tag_resource(resourceArn=arn, tags={"more": "x"})
    avp.untag_resource(resourceArn=arn, tagKeys=["team"])
    assert avp.list_tags_for_resource(resourceArn=arn)["tags"] == {"more": "x"}
    with Throws("TooManyTagsException"):
        avp.tag_resource(resourceArn=arn, tags={f"k{i}": "" for i in range(50)})
    stores = [item["policyStoreId"] for page in avp.get_paginator("list_policy_stores").paginate() for item in page["policyStores"]]
    assert stores.count(ps) == 1
    return ps


def schema(ps):
    with Throws("ResourceNotFoundException") as absent:
        avp.get_schema(policyStoreId=ps)
    assert absent.error["resourceType"] == "SCHEMA", absent.error
    assert avp.put_schema(policyStoreId=ps, definition={"cedarJson": SCHEMA})["namespaces"] == ["Shop"]
    assert avp.get_schema(policyStoreId=ps)["schema"] == json.dumps(json.loads(SCHEMA), separators=(",", ":"))


def policies(ps):
    def create(statement, **more):
        return avp.create_policy(policyStoreId=ps, definition={"static": {"statement": statement}}, **more)

    statement = 'permit (principal == Shop::User::"alice", action == Shop::Action::"view", resource);'
    made = create(statement, name="name/alice")
    assert made["effect"] == "Permit" and made["principal"] == user("alice") and made["actions"] == [act("view")], made
    with Throws("ConflictException") as taken:
        create(statement, name="name/alice")
    assert taken.error["resources"][0]["resourceType"] == "POLICY", taken.error
    with Throws("ValidationException") as invalid:
        create("permit (principal, action, resource) when { 1 + };")
    assert invalid.error["fieldList"][0]["path"] == "definition.static.statement", invalid.error
    assert avp.get_policy(policyStoreId=ps, policyId="name/alice")["definition"]["static"]["statement"] == statement
    avp.update_policy(policyStoreId=ps, policyId=made["policyId"], definition={"static": {"statement": statement.replace("view", "pay")}})
    others = [create(f'permit (principal, action, resource == Shop::Invoice::"{i}");')["policyId"] for i in range(11)]
    pages = avp.get_paginator("list_policies").paginate(policyStoreId=ps, PaginationConfig={"PageSize": 4})
    listed = [item["policyId"] for page in pages for item in page["policies"]]
    assert sorted(listed) == sorted([made["policyId"], *others])
    batch = avp.batch_get_policy(requests=[{"policyStoreId": ps, "policyId": made["policyId"]}, {"policyStoreId": "gone", "policyId": "x"}])
    assert batch["results"][0]["policyId"] == made["policyId"] and batch["errors"][0]["code"] == "POLICY_STORE_NOT_FOUND", batch
    for policy in others:
        avp.delete_policy(policyStoreId=ps, policyId=policy)
    return made["policyId"]


def templates(ps):
    statement = 'permit (principal == ?principal, action == Shop::Action::"view", resource == ?resource);'
    template = avp.create_policy_template(policyStoreId=ps, name="name/viewer", statement=statement)["policyTemplateId"]
    avp.create_policy(policyStoreId=ps, definition={"templateLinked": {"policyTemplateId": template, "principal": user("bob"), "resource": invoice("7")}})

    def decide(name):
        return avp.is_authorized(policyStoreId=ps, principal=user("bob"), action=act(name), resource=invoice("7"))["decision"]

    assert decide("view") == "ALLOW"
    avp.update_policy_template(policyStoreId=ps, policyTemplateId=template, statement=statement.replace("view", "pay"))
    assert (decide("view"), decide("pay")) == ("DENY", "ALLOW")
    assert avp.get_policy_template(policyStoreId=ps, policyTemplateId="name/viewer")["policyTemplateId"] == template
    assert len(avp.list_policy_templates(policyStoreId=ps)["policyTemplates"]) == 1
    avp.delete_policy_template(policyStoreId=ps, policyTemplateId=template)
    assert decide("pay") == "DENY"


def decisions(ps, policy):
    alias = "policy-store-alias/python"
    avp.create_policy_store_alias(aliasName=alias, policyStoreId=ps)
    assert avp.get_policy_store_alias(aliasName=alias)["state"] == "Active"
    question = {"principal": user("alice"), "action": act("pay"), "resource": invoice("1")}
    for name in (ps, alias):
        answer = avp.is_authorized(policyStoreId=name, context={"contextMap": {"big": {"long": 9007199254740993}}}, **question)
        assert (answer["decision"], answer["determiningPolicies"], answer["errors"]) == ("ALLOW", [{"policyId": policy}], []), answer
    batch = avp.batch_is_authorized(policyStoreId=ps, requests=[question, {**question, "action": act("view")}])
    assert [r["decision"] for r in batch["results"]] == ["ALLOW", "DENY"], batch
    assert len(avp.list_policy_store_aliases(filter={"policyStoreId": ps})["policyStoreAliases"]) == 1
    avp.delete_policy_store_alias(aliasName=alias, deletionMode="HardDelete")
    with Throws("ResourceNotFoundException"):
        avp.is_authorized(policyStoreId=alias, **question)


def tokens(ps):
    def configuration(client):
        return {"cognitoUserPoolConfiguration": {"userPoolArn": POOL, "clientIds": [client], "groupConfiguration": {"groupEntityType": "Shop::Role"}}}

    source = avp.create_identity_source(policyStoreId=ps, configuration=configuration("client-1"), principalEntityType="Shop::User")["identitySourceId"]
    with Throws("ServiceQuotaExceededException"):
        avp.create_identity_source(policyStoreId=ps, configuration=configuration("client-1"))
    avp.create_policy(policyStoreId=ps, definition={"static": {"statement": f'permit (principal in Shop::Role::"{POOL_ID}|clerk", action == Shop::Action::"view", resource);'}})
    for token in ({"identityToken": ID_TOKEN}, {"accessToken": ACCESS_TOKEN}):
        answer = avp.is_authorized_with_token(policyStoreId=ps, action=act("view"), resource=invoice("1"), **token)
        assert answer["decision"] == "ALLOW" and answer["principal"] == user(POOL_ID + "|alice"), answer
        batch = avp.batch_is_authorized_with_token(policyStoreId=ps, requests=[{"action": act(a), "resource": invoice("1")} for a in ("view", "pay")], **token)
        assert [r["decision"] for r in batch["results"]] == ["ALLOW", "DENY"], batch
    with Throws("ValidationException"):
        avp.is_authorized_with_token(policyStoreId=ps, identityToken=ACCESS_TOKEN, action=act("view"), resource=invoice("1"))
    assert avp.list_identity_sources(policyStoreId=ps)["identitySources"][0]["identitySourceId"] == source
    avp.update_identity_source(policyStoreId=ps, identitySourceId=source, updateConfiguration=configuration("another"))
    got = avp.get_identity_source(policyStoreId=ps, identitySourceId=source)
    assert got["configuration"]["cognitoUserPoolConfiguration"]["clientIds"] == ["another"], got
    avp.delete_identity_source(policyStoreId=ps, identitySourceId=source)


def main():
    ps = policy_store()
    schema(ps)
    policy = policies(ps)
    templates(ps)
    decisions(ps, policy)
    tokens(ps)
    avp.delete_policy_store(policyStoreId=ps)
    with Throws("ResourceNotFoundException"):
        avp.get_policy_store(policyStoreId=ps)
    print("boto3: done")


main()
