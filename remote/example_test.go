package remote_test

import (
	"fmt"
	"os"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/remote"
)

// Whoever asks must say whose decision it is; package pep does, from a token it verified.
func ExampleNewPDP() {
	pdp, err := remote.NewPDP(remote.PDPOptions{URL: "https://copse.example.com", Key: "copse_CPK1_" + os.Getenv("COPSE_SECRET")})
	fmt.Println(pdp != nil, copse.KindOf(err))
	// Output: false Invalid
}
