package access

import (
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/copse-authz/copse"
)

const goodAuthorization = "AWS4-HMAC-SHA256 Credential=CPKAAAAAAAAAAAAAAAAA/20260131/eu-central-1/verifiedpermissions/aws4_request, " +
	"SignedHeaders=content-type;host;x-amz-date, Signature=0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

func TestParseAuthorizationForms(t *testing.T) {
	for name, header := range map[string]string{
		"as AWS writes it": goodAuthorization,
		"without spaces":   strings.ReplaceAll(goodAuthorization, ", ", ","),
		"another order":    "AWS4-HMAC-SHA256 " + strings.Join(reversed(strings.Split(strings.TrimPrefix(goodAuthorization, "AWS4-HMAC-SHA256 "), ", ")), ", "),
	} {
		t.Run(name, func(t *testing.T) {
			a, err := parseAuthorization(header)
			if err != nil {
				t.Fatal(err)
			}
			if a.keyID != "CPKAAAAAAAAAAAAAAAAA" || a.date != "20260131" || a.region != "eu-central-1" || len(a.signedHeaders) != 3 || a.signature[1] != 0x23 {
				t.Errorf("%+v", a)
			}
			if !a.signs("host") || a.signs("x-amz-target") || a.signs("") {
				t.Error("signed headers misread")
			}
		})
	}
}

func reversed(s []string) []string {
	out := make([]string, 0, len(s))
	for i := range s {
		out = append(out, s[len(s)-1-i])
	}
	return out
}

// checkParsed holds what must be true of any header: it is refused with a reason, or what was read,
// written again, reads the same.
func checkParsed(t *testing.T, header string) (accepted bool) {
	t.Helper()
	a, err := parseAuthorization(header)
	if err != nil {
		if copse.KindOf(err) != copse.Unauthenticated || ReasonOf(err) == "" {
			t.Fatalf("%q: %v without a reason", header, err)
		}
		return false
	}
	if !validKeyID(a.keyID) || len(a.date) != 8 || strings.ToLower(a.signedHeadersText) != a.signedHeadersText {
		t.Fatalf("%q: accepted %+v", header, a)
	}
	rest := header[strings.Index(header, "Credential="):]
	if !strings.HasPrefix(rest, "Credential="+a.keyID+"/"+a.date+"/"+a.region+"/verifiedpermissions/aws4_request") {
		t.Fatalf("%q: read as %+v", header, a)
	}
	if strings.Join(a.signedHeaders, ";") != a.signedHeadersText {
		t.Fatalf("%q: signed headers %q", header, a.signedHeaders)
	}
	return true
}

func FuzzParseAuthorization(f *testing.F) {
	f.Add(goodAuthorization)
	f.Add("AWS4-HMAC-SHA256 Credential=,SignedHeaders=,Signature=")
	f.Add("Bearer copse_a_b")
	f.Fuzz(func(t *testing.T, header string) { checkParsed(t, header) })
}

// The fuzz target's property over random edits of a good header, a counted number of times.
func TestParseAuthorizationOfRandomEdits(t *testing.T) {
	const runs = 100_000
	random := rand.New(rand.NewPCG(1, 2))
	const alphabet = "AZaz09=,;/ -_.%\x00\xffé\n\"SignedHeaders=Credential="
	accepted, refused := 0, 0
	for range runs {
		b := []byte(goodAuthorization)
		for range random.IntN(3) {
			at := random.IntN(len(b))
			c := alphabet[random.IntN(len(alphabet))]
			switch random.IntN(4) {
			case 0:
				b[at] = c
			case 1:
				b = append(b[:at], b[at+1:]...)
			case 2:
				b = append(b[:at], append([]byte{c}, b[at:]...)...)
			case 3:
				b = append(b[:at], append([]byte(goodAuthorization[random.IntN(len(goodAuthorization)):]), b[at:]...)...)
			}
		}
		if checkParsed(t, string(b)) {
			accepted++
		} else {
			refused++
		}
	}
	if accepted+refused != runs || accepted < runs/10 || refused < runs/10 {
		t.Fatalf("%d accepted, %d refused: the edits miss one side", accepted, refused)
	}
}
