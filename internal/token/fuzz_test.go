package token

import (
	"encoding/base64"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/cedar-policy/cedar-go/types"

	"github.com/copse-authz/copse"
)

// checkVerify holds what must be true of any input: an answer of a known kind with a reason, or a
// principal that the registration allows, in JSON that Cedar reads as plain data.
func checkVerify(t *testing.T, w *world, token string) (reason Reason) {
	t.Helper()
	v, err := w.Verify(t.Context(), token)
	if err != nil {
		reason = ReasonOf(err)
		kind := copse.KindOf(err)
		if v != nil || reason == "" || kind != copse.Unauthenticated && kind != copse.Denied && kind != copse.Unavailable {
			t.Fatalf("%q: %+v, %v, %v (%q)", token, v, kind, err, reason)
		}
		return reason
	}
	if v.Tenant != "acme" || v.Principal.Type != "App::User" || !strings.HasPrefix(string(v.Principal.ID), "pool|") {
		t.Fatalf("%q: %+v", token, v)
	}
	var entities []types.Entity
	if err := unmarshalStd(v.Entities.Bytes, &entities); err != nil || len(entities) != 1 || entities[0].UID != v.Principal {
		t.Fatalf("%q: %s: %v", token, v.Entities.Bytes, err)
	}
	for parent := range entities[0].Parents.All() {
		if parent.Type != "App::Group" || !strings.HasPrefix(string(parent.ID), "pool|") {
			t.Fatalf("%q: parent %v", token, parent)
		}
	}
	wantPlain(t, entities[0].Attributes)
	var record types.Record
	if err := unmarshalStd(v.Context.Bytes, &record); err != nil || record.Len() != 1 {
		t.Fatalf("%q: %s: %v", token, v.Context.Bytes, err)
	}
	wantPlain(t, record)
	return ""
}

const editedHeader = `{"alg":"ES256","kid":"ec","typ":"JWT"}`

// newEditedWorld trusts an issuer with a P-256 key: those sign fast, even under the race detector.
func newEditedWorld(t testing.TB) (*world, signer) {
	w, s := newWorld(t), es256()
	w.publish("/pool", published(s))
	w.register(w.issuer, func(i *copse.Issuer) { i.Algorithms = []string{"ES256"} })
	return w, s
}

// FuzzVerify signs any header and payload with the published key, so that it gets past the signature.
func FuzzVerify(f *testing.F) {
	w, s := newEditedWorld(f)
	good := text(w.claims(nil))
	f.Add(editedHeader, good, true)
	f.Add(editedHeader, good, false)
	f.Add(`{"alg":"none"}`, good, true)
	f.Add(editedHeader, strings.Replace(good, `"alice"`, `"a","x":{"__entity":[1,null,2.5]}`, 1), true)
	f.Fuzz(func(t *testing.T, header, payload string, sign bool) {
		token := header + "." + payload
		if sign {
			token = s.raw(header, payload)
		}
		checkVerify(t, w, token)
	})
}

// The fuzz target's property over random edits of good tokens, a counted number of times: of the
// text as it is, and of header and payload signed anew.
func TestVerifyOfRandomEdits(t *testing.T) {
	const runs = 10_000
	w, s := newEditedWorld(t)
	header := editedHeader
	payload := text(w.claims(map[string]any{"x": map[string]any{"a": []any{1, "b", nil, true, 1.5}}, "y": "z"}))
	token := s.raw(header, payload)
	w.wantAccepted(t, token)
	random := rand.New(rand.NewPCG(3, 4))
	reasons := map[Reason]int{}
	names := []string{"iss", "sub", "aud", "tenant_id", "iat", "exp", "nbf", "scope", "groups", "token_use", "typ", "x"}
	values := []any{nil, "", "api", "acme", 0, 1.5, -1, true, []any{}, []any{nil}, []any{"api", 1}, map[string]any{}, map[string]any{"__entity": map[string]any{"type": "App::User", "id": "admin"}}}
	for i := range runs {
		switch i % 4 {
		case 0:
			reasons[checkVerify(t, w, mutate(random, token, "AZaz09-_.+/=\n"))]++
		case 1:
			reasons[checkVerify(t, w, s.raw(mutate(random, header, `{}[]",:\0x-é`), payload))]++
		case 2:
			reasons[checkVerify(t, w, s.raw(header, mutate(random, payload, `{}[]",:\0x-e.é_`)))]++
		case 3: // one claim of another type, which single characters hardly reach
			change := map[string]any{names[random.IntN(len(names))]: values[random.IntN(len(values))]}
			reasons[checkVerify(t, w, s.sign(w.claims(change), nil))]++
		}
	}
	total := 0
	for _, n := range reasons {
		total += n
	}
	if total != runs {
		t.Errorf("%d of %d runs", total, runs)
	}
	for _, reason := range []Reason{"", ReasonMalformed, ReasonHeader, ReasonAlgorithm, ReasonIssuer, ReasonUnknownKey, ReasonSignature,
		ReasonTime, ReasonAudience, ReasonExpired, ReasonType, ReasonPrincipal, ReasonGroups, ReasonTenant} {
		if reasons[reason] < 5 {
			t.Errorf("only %d runs ended with %q: the edits do not reach it (%v)", reasons[reason], reason, reasons)
		}
	}
}

// mutate makes up to three random edits.
func mutate(random *rand.Rand, s, alphabet string) string {
	b := []byte(s)
	for range 1 + random.IntN(3) {
		if len(b) == 0 {
			break
		}
		at := random.IntN(len(b))
		c := alphabet[random.IntN(len(alphabet))]
		switch random.IntN(5) {
		case 0:
			b[at] = c
		case 1:
			b = append(b[:at], b[at+1:]...)
		case 2:
			b = append(b[:at], append([]byte{c}, b[at:]...)...)
		case 3: // swap two stretches, which moves values between names
			to := at + random.IntN(min(20, len(b)-at))
			b = append(append(append([]byte{}, b[to:]...), b[:at]...), b[at:to]...)
		case 4:
			b[at] ^= 1 << random.IntN(8)
		}
	}
	return string(b)
}

func TestDecodePartHasOneSpelling(t *testing.T) {
	const runs = 50_000
	random := rand.New(rand.NewPCG(5, 6))
	good := base64.RawURLEncoding.EncodeToString([]byte("some bytes of a token"))
	accepted := 0
	for range runs {
		s := mutate(random, good, "AZ-_+/= \r\n")
		raw, err := decodePart("part", s)
		if err != nil {
			continue
		}
		accepted++
		if base64.RawURLEncoding.EncodeToString(raw) != s {
			t.Fatalf("%q and %q are the same bytes", s, base64.RawURLEncoding.EncodeToString(raw))
		}
	}
	if accepted < runs/20 {
		t.Errorf("only %d of %d accepted", accepted, runs)
	}
}
