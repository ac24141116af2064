package avp

import (
	"context"
	"errors"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"

	vp "github.com/aws/aws-sdk-go-v2/service/verifiedpermissions"
	"github.com/go-json-experiment/json"
	"github.com/google/go-cmp/cmp"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/access"
)

// The SDK knows all of AVP's operations; each is a row of the table.
func TestTableHasEveryOperationOfTheSDK(t *testing.T) {
	var sdk, table []string
	for method := range reflect.TypeFor[*vp.Client]().Methods() {
		// An operation takes (receiver, context, input, options) and returns (output, error).
		if method.Type.NumIn() == 4 && method.Type.In(1) == reflect.TypeFor[context.Context]() && method.Type.NumOut() == 2 {
			sdk = append(sdk, method.Name)
		}
	}
	for _, op := range operations {
		table = append(table, op.name)
		if op.run == nil || op.needs == 0 {
			t.Errorf("%s: the row is incomplete", op.name)
		}
	}
	slices.Sort(table)
	slices.Sort(sdk)
	if len(sdk) != 34 {
		t.Errorf("the SDK has %d operations, want 34", len(sdk))
	}
	if diff := cmp.Diff(sdk, table); diff != "" {
		t.Errorf("-sdk +table:\n%s", diff)
	}
}

func TestEveryKindHasAnException(t *testing.T) {
	if len(exceptions) != len(copse.Kinds()) {
		t.Fatalf("%d exceptions for %d kinds", len(exceptions), len(copse.Kinds()))
	}
	seen := map[string]bool{}
	for _, kind := range copse.Kinds() {
		x, body := describe(&copse.Error{Kind: kind, Resource: copse.ResourcePolicy, ID: "the-id", Detail: "the detail", Err: errors.New("the cause")})
		if x.Type == "" || x.Status < 400 || seen[x.Type] {
			t.Errorf("%s: exception %+v", kind, x)
		}
		seen[x.Type] = true
		if want := kind == copse.Internal || kind == copse.Unavailable; (x.Status >= 500) != want {
			t.Errorf("%s: status %d", kind, x.Status)
		}
		text := string(body.marshal())
		if strings.Contains(text, "the cause") {
			t.Errorf("%s tells its cause: %s", kind, text)
		}
		if shown := strings.Contains(text, "the detail"); shown == (kind == copse.Internal) {
			t.Errorf("%s: %s", kind, text)
		}
		var members map[string]any
		if err := json.Unmarshal([]byte(text), &members); err != nil {
			t.Fatal(err)
		}
		for _, member := range required[kind] {
			if members[member] == nil {
				t.Errorf("%s lacks %s, which its shape requires: %s", kind, member, text)
			}
		}
	}
}

// required are the members the service model requires, besides the message.
var required = map[copse.Kind][]string{
	copse.NotFound:      {"resourceId", "resourceType"},
	copse.Conflict:      {"resources"},
	copse.QuotaExceeded: {"resourceType"},
}

func TestUnclassifiedErrorsStayInside(t *testing.T) {
	for _, err := range []error{errors.New("disk on fire"), &copse.Error{Detail: "disk on fire"}} {
		x, body := describe(err)
		if x.Status != http.StatusInternalServerError || body.Message != "internal error" {
			t.Errorf("%v: %+v %+v", err, x, body)
		}
	}
	if x, _ := describe(context.DeadlineExceeded); x.Type != "ServiceUnavailableException" {
		t.Errorf("a context that ended: %+v", x)
	}
	// Text that is not UTF-8 can't be sent, and must not become an empty answer.
	_, body := describe(&copse.Error{Kind: copse.Invalid, Detail: "\xff"})
	if text := string(body.marshal()); !strings.Contains(text, "__type") {
		t.Errorf("%s", text)
	}
}

func TestEveryReasonHasAnException(t *testing.T) {
	for _, reason := range access.Reasons() {
		if _, ok := credentialExceptions[reason]; ok == (reason == access.Unavailable) {
			t.Errorf("%s: in the table: %t", reason, ok)
		}
	}
}

func TestFieldListIsBounded(t *testing.T) {
	e := &copse.Error{Kind: copse.Invalid, Fields: make([]copse.Field, 10_000)}
	if _, body := describe(e); len(body.FieldList) != maxFields {
		t.Errorf("%d findings are sent", len(body.FieldList))
	}
}
