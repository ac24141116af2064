#!/bin/sh
# make.sh COPSE NAME: fills a data directory with the program COPSE and keeps it as NAME.tar.gz, for
# kept_test.go. One is kept of each release, made by that release's own program and never again:
#
#   first   git worktree add /tmp/first 2ba0369 && (cd /tmp/first && go build -o copse ./cmd/copse)
#           sh make.sh /tmp/first/copse first
#   second  sh make.sh "$PWD/copse" second      (templates and members are new in it)
set -eu
copse=$1 name=$2 here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'kill $server 2>/dev/null || true; rm -rf "$work"' EXIT
cd "$work"

"$copse" serve --data data --listen 127.0.0.1:0 --ops-listen "" >out 2>err &
server=$!
until grep -q '^copse serves' out; do sleep 0.1; kill -0 $server; done
COPSE_URL=$(sed -n 's/^copse serves \([^ ]*\) from.*/\1/p' out)
COPSE_KEY=$(cat data/root.key)
export COPSE_URL COPSE_KEY

mkdir acme globex
cat >acme.cedarschema <<'END'
entity Role;
entity User in [Role];
entity Invoice;
action view appliesTo { principal: [User], resource: [Invoice] };
END
echo 'permit (principal == User::"alice", action == Action::"view", resource);' >acme/alice.cedar
"$copse" tenant create acme --schema acme.cedarschema --policies acme --description 'The first one'
echo 'forbid (principal, action, resource == Invoice::"666");' >acme/never.cedar
"$copse" policy put acme --tenant acme
echo 'permit (principal, action, resource);' >globex/all.cedar
echo 'forbid (principal, action, resource) when { context.absent };' >globex/fails.cedar
"$copse" tenant create globex --policies globex --forbid-errors-deny
"$copse" tenant create initech --policies globex/all.cedar
"$copse" tenant suspend initech
"$copse" tenant create umbrella --policies globex/all.cedar
"$copse" tenant delete umbrella --yes
"$copse" issuer add https://idp.example.com --tenant acme --tenant-claim tenant_id --audience api \
	--email-domain example.com --group-claim roles --group-type Role
"$copse" key create --scope tenant:acme --allow decide --output json |
	sed -n 's/.*"credential": *"\([^"]*\)".*/\1/p' >data/decide.key

if "$copse" member --help 2>&1 | grep -q 'member add'; then
	mkdir linked
	echo 'permit (principal == ?principal, action == Action::"view", resource == ?resource);' >linked/viewers.cedar
	echo '[{"name": "alice-17", "template": "viewers", "principal": {"type": "User", "id": "alice"}, "resource": {"type": "Invoice", "id": "17"}}]' >linked/links.json
	"$copse" tenant create linked --policies linked
	"$copse" member add --tenant acme --issuer https://idp.example.com --subject alice --role clerk
fi

kill $server
wait $server
rm -f data/copse.lock
tar -C data --owner=0 --group=0 --sort=name -czf "$here/$name.tar.gz" .
ls -l "$here/$name.tar.gz"
