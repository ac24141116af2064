//go:build !race

package engine

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/cedar-policy/cedar-go/types"

	"github.com/copse-authz/copse"
)

const referenceValues = 6_000

// Texts of extension values are values for both or for none, and the same ones. Where only one of the two takes a text, a
// condition over what a caller sent is an error for one, and may be true for the other.
func TestReferenceOnExtensionTexts(t *testing.T) {
	r := startReference(t)
	random := rand.New(rand.NewPCG(20261126, 0))
	kinds := []struct {
		constructor, alphabet string
		seeds                 []string
		// same is a condition that holds of the text's value alone, given what the engine made of it.
		same func(text string, v *value) string
	}{
		{"decimal", "0123456789.+-eE _", []string{"1.5", "+1.5", "-1.5", "0.0", "-0.0", "00.10", "1.2345", "922337203685477.5807", "-922337203685477.5808", "1.", ".5", "1"},
			func(text string, v *value) string {
				whole, fraction, sign := v.num/10_000, v.num%10_000, ""
				if v.num < 0 {
					whole, fraction, sign = -whole, -fraction, "-"
				}
				return fmt.Sprintf(`decimal(%s) == decimal("%s%d.%04d")`, quoted(text), sign, whole, fraction)
			}},
		{"ip", "0123456789abcdefABCDEF:./%x", []string{"10.0.0.1", "10.0.0.0/8", "::1", "fe80::1%eth0", "::/0", "1:2:3:4:5:6:7:8", "::ffff:10.0.0.1", "0.0.0.0/32", "010.1.1.1", "1::/128", "1:2:3:4:5:6:7::", "10.0.0.1/08"},
			func(text string, v *value) string {
				return fmt.Sprintf(`ip(%s) == ip(%s)`, quoted(text), quoted(v.ip().String()))
			}},
		{"datetime", "0123456789-:.TZ+ tz", []string{"2024-01-02", "2024-01-02T03:04:05Z", "2024-01-02T03:04:05.678Z", "2024-01-02T03:04:05+0100", "2024-01-02T03:04:05.678-2359", "0000-01-01", "9999-12-31", "2024-02-30", "2023-02-29", "2024-01-02T23:59:60Z", "2024-01-02T24:00:00Z", "1969-12-31T23:59:59.999Z", "2024-01-02T03:04:05+2400", "2024-01-02T03:04:05+0060"},
			func(text string, v *value) string {
				return fmt.Sprintf(`datetime(%s).durationSince(datetime("1970-01-01")).toMilliseconds() == %d`, quoted(text), v.num)
			}},
		{"duration", "0123456789dhms-+ ", []string{"1d2h3m4s5ms", "-1d", "1h", "5ms", "0d", "1m1ms", "106751991167d", "9223372036854775807ms", "-9223372036854775808ms", "1s1h", "1d1d", "", "-", "d", "00001h"},
			func(text string, v *value) string {
				return fmt.Sprintf(`duration(%s).toMilliseconds() == %d`, quoted(text), v.num)
			}},
	}
	request := types.Request{Principal: uid("User", "a"), Action: uid("Action", "view"), Resource: uid("Doc", "d")}
	const batch = 50
	for _, kind := range kinds {
		taken, differences := 0, 0
		for done := 0; done < referenceValues/len(kinds); done += batch {
			policies, texts := map[string]written{}, map[string]string{}
			takes := map[string]bool{}
			for i := range batch {
				text := kind.seeds[random.IntN(len(kind.seeds))]
				if done == 0 && i < len(kind.seeds) {
					text = kind.seeds[i]
				} else {
					text = edited(random, text, kind.alphabet)
				}
				var c call
				v := c.values.one()
				id, condition := fmt.Sprintf("p%d", i), fmt.Sprintf(`%[1]s(%[2]s) == %[1]s(%[2]s)`, kind.constructor, quoted(text))
				if takes[id] = c.construct(v, kind.constructor, text); takes[id] {
					taken++
					condition = kind.same(text, v)
				}
				texts[id], policies[id] = text, written{text: "permit(principal, action, resource) when { " + condition + " };"}
			}
			var want referenceVerdict
			r.ask(t, "isAuthorized", authorizationJSON("", policySetJSON(policies), "[]", "{}", request), &want)
			if want.refused() {
				t.Fatalf("%s: %+v", kind.constructor, want.Errors)
			}
			failed, met := map[string]bool{}, map[string]bool{}
			for _, e := range want.Response.Diagnostics.Errors {
				failed[e.PolicyID] = true
			}
			for _, id := range want.Response.Diagnostics.Reason {
				met[id] = true
			}
			for id, text := range texts {
				if takes[id] == failed[id] || takes[id] && !met[id] {
					if differences++; differences < 10 {
						t.Errorf("%s(%q): the engine takes it: %t; the reference takes it: %t, for the same value: %t", kind.constructor, text, takes[id], !failed[id], met[id])
					}
				}
			}
		}
		t.Logf("%s: %d texts are values, %d differences", kind.constructor, taken, differences)
		if taken < 100 || taken > referenceValues/len(kinds)-100 {
			t.Errorf("%s: %d texts are values: the run is too narrow", kind.constructor, taken)
		}
	}
}

// edited changes a few characters of a text.
func edited(random *rand.Rand, text, alphabet string) string {
	for range random.IntN(3) {
		at, with := random.IntN(len(text)+1), string(alphabet[random.IntN(len(alphabet))])
		switch random.IntN(3) {
		case 0:
			text = text[:at] + with + text[at:]
		case 1:
			if at < len(text) {
				text = text[:at] + text[at+1:]
			}
		default:
			if at < len(text) {
				text = text[:at] + with + text[at+1:]
			}
		}
	}
	return text
}

// A policy says so too, not only a request: the value a caller sends as text reaches the constructor there.
func TestDecimalsHaveNoPlusSign(t *testing.T) {
	snapshot := compileText(t, nil, copse.Settings{}, `permit(principal, action, resource) when { decimal(context.x) == decimal("1.5") };`)
	for text, want := range map[string]copse.Decision{"1.5": copse.Allow, "+1.5": copse.Deny} {
		got, err := snapshot.Decide(&copse.Request{Principal: uid("U", "a"), Action: uid("Action", "v"), Resource: uid("R", "r"), Context: cedarJSON(`{"x":"` + text + `"}`)})
		if err != nil || got.Decision != want || (len(got.Errors) > 0) != strings.HasPrefix(text, "+") {
			t.Errorf("%s: %+v, %v", text, got, err)
		}
	}
}

// What functions of extension values come to, at the edges too: times before 1970, spans that overflow, ranges of both families.
func TestReferenceOnExtensionFunctions(t *testing.T) {
	r := startReference(t)
	random := rand.New(rand.NewPCG(20261126, 1))
	of := func(texts ...string) string { return texts[random.IntN(len(texts))] }
	address := func() string {
		return of("127.0.0.1", "127.255.0.1", "126.0.0.1", "10.0.0.0/8", "10.0.0.0/0", "::1", "::2", "::1/127", "ff00::2", "fe80::/10", "224.0.0.1", "239.255.255.255", "224.0.0.0/3", "240.0.0.0",
			"127.0.0.0/8", "127.0.0.0/7", "0.0.0.0/0", "::/0", "ff00::/8", "ff00::/7", "::7f00:1", "10.1.2.3/32", fmt.Sprintf("%d.%d.0.1/%d", random.IntN(256), random.IntN(256), random.IntN(33)),
			fmt.Sprintf("%x::%x/%d", random.IntN(1<<16), random.IntN(1<<16), random.IntN(129)))
	}
	span := func() string {
		return of("1h", "-1ms", "0ms", "-5m", "1d2h3m4s5ms", "-1d2h3m4s5ms", "9223372036854775807ms", "-9223372036854775808ms", "-9223372036854775807ms", "999ms", "-999ms", fmt.Sprintf("-%dms", random.Uint64()>>1))
	}
	var moment func(depth int) string
	moment = func(depth int) string {
		if depth > 0 && random.IntN(2) == 0 {
			return moment(depth-1) + of(`.offset(duration("`+span()+`"))`, `.toDate()`)
		}
		return fmt.Sprintf(`datetime("%s")`, of("1970-01-01", "1969-12-31", "1969-12-31T23:59:59.999Z", "2024-02-29T01:02:03Z", "0000-01-01", "9999-12-31T23:59:59.999-2359", "0001-01-01T00:00:00+2359", "1969-12-30T00:00:00.001Z"))
	}
	duration := func() string {
		return of(fmt.Sprintf(`duration("%s")`, span()), moment(1)+".toTime()", moment(2)+".durationSince("+moment(1)+")")
	}
	condition := func() string {
		switch random.IntN(5) {
		case 0:
			return fmt.Sprintf(`ip("%s").%s()`, address(), of("isIpv4", "isIpv6", "isLoopback", "isMulticast"))
		case 1:
			return fmt.Sprintf(`ip("%s").isInRange(ip("%s"))`, address(), address())
		case 2:
			return fmt.Sprintf(`%s %s %s`, moment(2), of("<", "<=", ">", ">=", "=="), moment(2))
		case 3:
			return fmt.Sprintf(`%s %s %s`, duration(), of("<", "<=", ">", ">=", "=="), duration())
		default:
			return fmt.Sprintf(`%s.%s() %s %d`, duration(), of("toDays", "toHours", "toMinutes", "toSeconds", "toMilliseconds"), of("<", "<=", "=="), random.IntN(40)-20)
		}
	}
	request := types.Request{Principal: uid("User", "a"), Action: uid("Action", "view"), Resource: uid("Doc", "d")}
	const batch = 50
	met, failed, differences := 0, 0, 0
	for range referenceValues / batch {
		policies := map[string]written{}
		var sources []Source
		for i := range batch {
			id, text := fmt.Sprintf("p%02d", i), "permit(principal, action, resource) when { "+condition()+" };"
			policies[id] = written{text: text}
			sources = append(sources, Source{Ref: copse.PolicyRef{ID: copse.PolicyID(id)}, Policy: mustPolicies(t, id, text)[0]})
		}
		var want referenceVerdict
		r.ask(t, "isAuthorized", authorizationJSON("", policySetJSON(policies), "[]", "{}", request), &want)
		snapshot, err := Compile(nil, copse.Settings{}, sources)
		if err != nil {
			t.Fatal(err)
		}
		got, err := snapshot.Decide(&copse.Request{Principal: request.Principal, Action: request.Action, Resource: request.Resource})
		if err != nil || want.refused() {
			t.Fatal(err, want.Errors)
		}
		outcome := map[string][2]string{} // of a policy: here, there
		note := func(id string, side int, what string) {
			o := outcome[id]
			o[side] = what
			outcome[id] = o
		}
		for _, p := range got.Determining {
			note(string(p.ID), 0, "met")
			met++
		}
		for _, e := range got.Errors {
			note(string(e.Policy.ID), 0, "failed")
			failed++
		}
		for _, id := range want.Response.Diagnostics.Reason {
			note(id, 1, "met")
		}
		for _, e := range want.Response.Diagnostics.Errors {
			note(e.PolicyID, 1, "failed")
		}
		for id, o := range outcome {
			if o[0] != o[1] {
				if differences++; differences < 20 {
					t.Errorf("%s: here %q, by the reference %q", policies[id].text, o[0], o[1])
				}
			}
		}
	}
	t.Logf("%d conditions: %d met, %d failed, %d differences", referenceValues, met, failed, differences)
	if met < 500 || failed < 200 {
		t.Error("the run is too narrow")
	}
}
