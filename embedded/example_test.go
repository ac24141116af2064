package embedded_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"testing/fstest"

	"github.com/cedar-policy/cedar-go/types"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/embedded"
)

// One directory per tenant; in a program, os.DirFS or an embed.FS.
var files = fstest.MapFS{
	"acme/schema.cedarschema": {Data: []byte(`entity User; entity Invoice { amount: Long }; action pay appliesTo { principal: User, resource: Invoice };`)},
	"acme/pay.cedar":          {Data: []byte(`permit (principal, action == Action::"pay", resource is Invoice) when { resource.amount <= 1000 };`)},
	"globex/nobody.cedar":     {Data: []byte(`forbid (principal, action, resource);`)},
}

func ExampleLoad() {
	pdp, err := embedded.Load(files, embedded.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer pdp.Close()

	request := copse.Request{
		Principal: types.NewEntityUID("User", "alice"),
		Action:    types.NewEntityUID("Action", "pay"),
		Resource:  types.NewEntityUID("Invoice", "17"),
		Entities: copse.Data{Format: copse.FormatCedarJSON,
			Bytes: []byte(`[{"uid": {"type": "Invoice", "id": "17"}, "attrs": {"amount": 900}, "parents": []}]`)},
	}
	for _, tenant := range []copse.TenantID{"acme", "globex", "initech"} {
		answer, err := pdp.DecideFor(context.Background(), tenant, request)
		if err != nil {
			fmt.Println(tenant, copse.KindOf(err))
			continue
		}
		fmt.Println(tenant, answer.Decision, answer.Determining[0].Name)
	}
	// Output:
	// acme ALLOW pay
	// globex DENY nobody
	// initech Denied
}

// What is wrong with the files is told all at once, with its place.
func ExampleLoad_errors() {
	_, err := embedded.Load(fstest.MapFS{
		"acme/schema.cedarschema": {Data: []byte("entity User;\nentity Invoice { amount: Long };\naction pay appliesTo { principal: User, resource: Invoice };\n")},
		"acme/pay.cedar":          {Data: []byte("// small amounts\npermit (principal, action, resource is Invoice)\nwhen { resource.amuont <= 1000 };\n")},
		"globex/all.cedar":        {Data: []byte("permit (principal, action resource);")},
	}, embedded.Options{})
	e, ok := errors.AsType[*copse.Error](err)
	fmt.Println(ok, e.Detail)
	for _, f := range e.Fields {
		fmt.Printf("%s:%d\n", f.Path, f.Line)
	}
	// Output:
	// true the files do not hold valid policy stores
	// acme/pay.cedar:2
	// globex/all.cedar:1
}

func ExampleOpen() {
	dir, err := os.MkdirTemp("", "copse-example-")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)

	// In a program: the directory of a server that is not running, or a copy of it.
	pdp, err := embedded.Open(dir, embedded.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer pdp.Close()
	_, err = pdp.Lookup(context.Background(), "acme")
	fmt.Println(copse.KindOf(err))
	// Output: NotFound
}
