package server_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/copse-authz/copse/internal/api"
)

// Whatever is sent, the answer is a 4xx that says where, nothing is stored, and the server goes on, in
// bounded time and memory.

// door is a route that takes a body, with one that it accepts. %s stands for the policy store.
type door struct {
	name  string
	limit int // of the body
	good  string
	send  func(s *site, token, body string) reply
}

func doors(policyStoreID string) []door {
	control := func(limit int, method, path, good string, headers ...string) door {
		return door{method + " " + path, limit, good, func(s *site, _, body string) reply {
			return s.as(s.root, method, strings.Replace(path, "{id}", policyStoreID, 1), body, headers...)
		}}
	}
	amazon := func(operation, members string) door {
		good := fmt.Sprintf(`{"policyStoreId":%q%s}`, policyStoreID, members)
		return door{operation, 1_000_000, good, func(s *site, _, body string) reply { return s.amazon(s.root, operation, body) }}
	}
	const static = `,"definition":{"static":{"statement":"permit (principal, action, resource);"}}`
	return []door{
		{"POST /v1/authorize", 1_000_000, viewDoc, func(s *site, token, body string) reply { return s.authorize(token, body) }},
		control(16<<20, "POST", "/v1/tenants", `{"tenant":"new","policies":[]}`),
		control(16<<20, "PUT", "/v1/policy-stores/{id}/contents", `{"policies":[]}`, "If-Match", "*"),
		control(1_000_000, "PUT", "/v1/policy-stores/{id}/schema", `{"cedar":"entity Unwanted;"}`),
		control(1_000_000, "POST", "/v1/issuers", `{"url":"https://idp.example.com","allTenants":true,"tokenType":"id","audiences":["x"],"algorithms":["ES256"],"tenantClaim":"t","principalType":"User"}`),
		control(1_000_000, "POST", "/v1/keys", `{"scope":{"all":true},"verbs":["read"]}`),
		amazon("IsAuthorized", `,"principal":{"entityType":"User","entityId":"alice"},"action":{"actionType":"Action","actionId":"view"},"resource":{"entityType":"Doc","entityId":"1"}`),
		amazon("CreatePolicy", static),
		amazon("UpdatePolicy", `,"policyId":"somebody"`+static),
		amazon("PutSchema", `,"definition":{"cedarJson":"{}"}`),
		amazon("GetPolicyStore", ``),
		amazon("ListPolicies", ``),
		{"CreatePolicyStore", 1_000_000, `{"validationSettings":{"mode":"OFF"}}`, func(s *site, _, body string) reply {
			return s.amazon(s.root, "CreatePolicyStore", body)
		}},
	}
}

// patient is a server with a tenant whose contents nothing here may change, and one without a schema.
type patient struct {
	*site
	tenant, plain     api.Tenant
	token, plainToken string
	before            string
}

func newPatient(t *testing.T) *patient {
	p := &patient{site: start(t)}
	idp := newIDP(t)
	p.tenant = p.onboard("acme", map[string]string{"view": aliceViews}, docSchema)
	p.plain = p.onboard("plain", map[string]string{"view": aliceViews})
	idp.register(p.site, idp.registration())
	p.token, p.plainToken = idp.token("acme", "alice"), idp.token("plain", "alice")
	p.before = p.everything()
	return p
}

// everything is what is stored, as text.
func (p *patient) everything() string {
	p.t.Helper()
	out := ""
	for _, path := range []string{"/v1/tenants", "/v1/policy-stores", "/v1/policy-stores/" + p.tenant.PolicyStoreID + "/contents",
		"/v1/policy-stores/" + p.plain.PolicyStoreID + "/contents", "/v1/issuers", "/v1/keys"} {
		out += path + " " + p.must(200, "GET", path, nil).body
	}
	return out
}

// refuses sends something bad: the answer must be one of the statuses and hold the place.
func (p *patient) refuses(t *testing.T, send func() reply, place string, statuses ...int) {
	t.Helper()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	began := time.Now()
	r := send()
	took := time.Since(began)
	runtime.ReadMemStats(&after)
	body := r.body
	if len(body) > 20_000 {
		t.Errorf("the answer has %d bytes", len(body))
		body = body[:1000]
	}
	if !slices.Contains(statuses, r.status) {
		t.Fatalf("got %d %s, want %v", r.status, body, statuses)
	}
	if !strings.Contains(body, place) {
		t.Errorf("the answer does not name %q: %s", place, body)
	}
	if took > 10*time.Second {
		t.Errorf("it took %v", took)
	}
	if allocated := (after.TotalAlloc - before.TotalAlloc) >> 20; allocated > 400 {
		t.Errorf("it took %d MiB of memory", allocated)
	}
}

// unharmed holds at the end of every test of bad input.
func (p *patient) unharmed() {
	p.t.Helper()
	if after := p.everything(); after != p.before {
		p.t.Errorf("stored before was\n%s\nand after\n%s", p.before, after)
	}
	wantDecision(p.t, p.authorize(p.token, viewDoc), "ALLOW")
	if n := p.count("copse_http_panics_total"); n != 0 {
		p.t.Errorf("%d requests ended in a panic", n)
	}
	if n := p.count(`copse_http_requests_total{code="5xx"}`); n != 0 {
		p.t.Errorf("%d requests were answered with a 5xx", n)
	}
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	if m.HeapAlloc > 300<<20 {
		p.t.Errorf("%d MiB are in use at the end", m.HeapAlloc>>20)
	}
}

// Every route refuses every body that is not what it takes.
func TestBadInputJSON(t *testing.T) {
	p := newPatient(t)
	for _, d := range doors(p.tenant.PolicyStoreID) {
		first, _, _ := strings.Cut(d.good[2:], `"`)
		rest := "," + d.good[1:]
		nested := func(open, end string, n int) string {
			return fmt.Sprintf(`{%q:%s1%s%s`, first, strings.Repeat(open, n), strings.Repeat(end, n), rest)
		}
		for _, c := range []struct{ name, body, place string }{
			{"empty", "", ""},
			{"open", "{", ""},
			{"cut in two", d.good[:len(d.good)/2], ""},
			{"more after it", d.good + "x", ""},
			{"twice", d.good + d.good, ""},
			{"null", "null", ""},
			{"a list", "[" + d.good + "]", ""},
			{"a string", `"` + first + `"`, ""},
			{"NUL", "\x00", ""},
			{"byte order mark", "\xef\xbb\xbf" + d.good, ""},
			{"single quotes", strings.ReplaceAll(d.good, `"`, `'`), ""},
			{"trailing comma", d.good[:len(d.good)-1] + ",}", ""},
			{"comment", "/**/" + d.good, ""},
			{"member twice", fmt.Sprintf(`{%q:{}%s`, first, rest), first},
			{"member twice, escaped", fmt.Sprintf(`{"\u%04x%s":{}%s`, first[0], first[1:], rest), first},
			{"unknown member", `{"surprise":1` + rest, "surprise"},
			{"member in another case", fmt.Sprintf(`{%q:{}%s`, strings.ToUpper(first), rest), strings.ToUpper(first)},
			{"invalid UTF-8 in a name", "{\"surprise\xff\":1" + rest, ""},
			{"invalid UTF-8 in a value", fmt.Sprintf("{%q:\"\xc3\x28\"}", first), ""},
			{"half a surrogate pair", fmt.Sprintf(`{%q:"\ud800"}`, first), ""},
			{"line break in a string", fmt.Sprintf("{%q:\"a\nb\"}", first), ""},
			{"100,000 lists", nested("[", "]", 100_000), ""},
			{"100,000 objects", nested(`{"a":`, "}", 100_000), ""},
			{"100,000 lists in the unknown", strings.Replace(nested("[", "]", 100_000), first, "surprise", 1), ""},
			{"100,000 lists, open", fmt.Sprintf(`{%q:%s`, first, strings.Repeat("[", 100_000)), ""},
		} {
			t.Run(d.name+"/"+c.name, func(t *testing.T) {
				p.refuses(t, func() reply { return d.send(p.site, p.token, c.body) }, c.place, 400)
			})
		}
		t.Run(d.name+"/too large", func(t *testing.T) {
			padded := "{" + strings.Repeat(" ", d.limit) + d.good[1:]
			p.refuses(t, func() reply { return d.send(p.site, p.token, padded) }, "", 413)
		})
	}
	p.unharmed()
}

// Every member of every body, with values of every other type.
func TestBadInputTypes(t *testing.T) {
	p := newPatient(t)
	tried := 0
	for _, d := range doors(p.tenant.PolicyStoreID) {
		var members map[string]any
		if err := json.Unmarshal([]byte(d.good), &members); err != nil {
			t.Fatal(err)
		}
		for name, was := range members {
			for _, wrong := range []any{7, 1e300, true, "text", []any{map[string]any{}}, []any{[]any{}}, map[string]any{"surprise": 1}} {
				// A text in place of a text may be right, and so on.
				if fmt.Sprintf("%T", wrong) == fmt.Sprintf("%T", was) || wrong == 7 && fmt.Sprintf("%T", was) == "float64" {
					continue
				}
				changed := map[string]any{}
				for n, v := range members {
					changed[n] = v
				}
				changed[name] = wrong
				body, err := json.Marshal(changed)
				if err != nil {
					t.Fatal(err)
				}
				t.Run(fmt.Sprintf("%s/%s=%v", d.name, name, wrong), func(t *testing.T) {
					p.refuses(t, func() reply { return d.send(p.site, p.token, string(body)) }, name, 400)
				})
				tried++
			}
		}
	}
	if tried < 100 {
		t.Errorf("only %d wrong types were tried", tried)
	}
	p.unharmed()
}

// A body that does not say how long it is, is cut off at the same limit, and nobody reads on for ever.
func TestBadInputBodyWithoutAnEnd(t *testing.T) {
	p := newPatient(t)
	for _, route := range []struct{ request, limit string }{
		{"POST /v1/authorize HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + p.token, "413"},
		{"POST / HTTP/1.1\r\nHost: x\r\nX-Amz-Target: VerifiedPermissions.IsAuthorized\r\nContent-Type: application/x-amz-json-1.0\r\nAuthorization: Bearer " + p.root, "413"},
		{"PUT /v1/policy-stores/" + p.tenant.PolicyStoreID + "/contents HTTP/1.1\r\nHost: x\r\nIf-Match: *\r\nContent-Type: application/json\r\nAuthorization: Bearer " + p.root, "413"},
	} {
		conn, err := net.Dial("tcp", p.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(30 * time.Second))
		fmt.Fprintf(conn, "%s\r\nTransfer-Encoding: chunked\r\n\r\n", route.request)
		sent := make(chan int64, 1)
		go func() {
			chunk := fmt.Sprintf("10000\r\n%s\r\n", strings.Repeat(" ", 0x10000))
			total := int64(0)
			for {
				n, err := io.WriteString(conn, chunk)
				total += int64(n)
				if err != nil || total > 200<<20 {
					sent <- total
					return
				}
			}
		}()
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Errorf("%.30s: no answer: %v", route.request, err)
			continue
		}
		if !strings.HasPrefix(resp.Status, route.limit) {
			t.Errorf("%.30s: %s, want %s", route.request, resp.Status, route.limit)
		}
		conn.Close()
		if n := <-sent; n > 60<<20 {
			t.Errorf("%.30s: %d MiB were taken", route.request, n>>20)
		}
	}
	p.unharmed()
}
