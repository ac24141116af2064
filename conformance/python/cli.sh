#!/usr/bin/env bash
# The AWS command line against whatever AWS_ENDPOINT_URL_VERIFIEDPERMISSIONS names. It takes a second to
# start, so each call here is one that the others do not make alike: files, text output, paging, errors.
set -euo pipefail
avp() { aws verifiedpermissions "$@"; }
fail() { echo "$*" >&2; exit 1; }

ps=$(avp create-policy-store --validation-settings mode=STRICT --tags team=cli --query policyStoreId --output text)
[ ${#ps} = 22 ] || fail "policy store id: $ps"

cat >definition.json <<'EOF'
{"cedarJson": "{\"Shop\": {\"entityTypes\": {\"User\": {}, \"Invoice\": {}}, \"actions\": {\"view\": {\"appliesTo\": {\"principalTypes\": [\"User\"], \"resourceTypes\": [\"Invoice\"]}}}}}"}
EOF
avp put-schema --policy-store-id "$ps" --definition file://definition.json >/dev/null

cat >policy.json <<'EOF'
{"static": {"description": "alice views", "statement": "permit (principal == Shop::User::\"alice\", action == Shop::Action::\"view\", resource);"}}
EOF
policy=$(avp create-policy --policy-store-id "$ps" --definition file://policy.json --name name/alice --query policyId --output text)

answer=$(avp is-authorized --policy-store-id "$ps" --principal entityType=Shop::User,entityId=alice \
	--action actionType=Shop::Action,actionId=view --resource entityType=Shop::Invoice,entityId=1 \
	--query '[decision, determiningPolicies[0].policyId]' --output text)
[ "$answer" = "ALLOW	$policy" ] || fail "decision: $answer"

listed=$(avp list-policies --policy-store-id "$ps" --query 'policies[].definition.static.description' --output text)
[ "$listed" = "alice views" ] || fail "listed: $listed"

if avp get-policy --policy-store-id "$ps" --policy-id gone 2>error.txt; then fail 'a policy that is not there was found'; fi
grep -q '(ResourceNotFoundException) when calling the GetPolicy operation' error.txt || fail "$(cat error.txt)"

avp delete-policy-store --policy-store-id "$ps"
echo 'the AWS command line: done'
