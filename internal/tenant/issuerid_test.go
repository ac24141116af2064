package tenant

import (
	"crypto/sha256"
	"fmt"
	"math/big"
	"strings"
	"testing"
)

// Ids are stored: they must never come out another way than they first did, by math/big.
func TestIssuerIDIsWhatItWas(t *testing.T) {
	if got := issuerID("https://idp.example.com"); len(got) != 22 {
		t.Fatal(got)
	}
	short := 0
	for n := range 20_000 {
		url := fmt.Sprintf("https://idp.example.com/%d", n)
		sum := sha256.Sum256([]byte(url))
		text := new(big.Int).SetBytes(sum[:]).Text(62)
		if len(text) < 43 {
			short++
		}
		if want := (text + strings.Repeat("0", 22))[:22]; issuerID(url) != want {
			t.Fatalf("%s: %s, want %s", url, issuerID(url), want)
		}
	}
	if short == 0 {
		t.Error("no digest has fewer digits than most: the leading zeros were not tried")
	}
}
