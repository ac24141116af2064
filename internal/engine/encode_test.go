package engine

import (
	"fmt"
	"slices"
	"strings"

	"github.com/cedar-policy/cedar-go/types"
	"github.com/go-json-experiment/json"
)

// Encoders of values into the two wire formats, for tests: the way a client would write them.

func quoted(s string) string {
	out, err := json.Marshal(s)
	if err != nil {
		panic(err)
	}
	return string(out)
}

func avpIdentifierJSON(u types.EntityUID) string {
	return fmt.Sprintf(`{"entityType":%s,"entityId":%s}`, quoted(string(u.Type)), quoted(string(u.ID)))
}

func avpValueJSON(v types.Value) string {
	switch v := v.(type) {
	case types.Boolean:
		return fmt.Sprintf(`{"boolean":%v}`, bool(v))
	case types.Long:
		return fmt.Sprintf(`{"long":%d}`, int64(v))
	case types.String:
		return `{"string":` + quoted(string(v)) + `}`
	case types.EntityUID:
		return `{"entityIdentifier":` + avpIdentifierJSON(v) + `}`
	case types.Set:
		var parts []string
		for e := range v.All() {
			parts = append(parts, avpValueJSON(e))
		}
		return `{"set":[` + strings.Join(parts, ",") + `]}`
	case types.Record:
		return `{"record":` + avpMapJSON(v) + `}`
	case types.IPAddr:
		return `{"ipaddr":` + quoted(v.String()) + `}`
	case types.Decimal:
		return `{"decimal":` + quoted(v.String()) + `}`
	case types.Datetime:
		return `{"datetime":` + quoted(v.String()) + `}`
	case types.Duration:
		return `{"duration":` + quoted(v.String()) + `}`
	default:
		panic(fmt.Sprintf("%T", v))
	}
}

func avpMapJSON(r types.Record) string {
	var parts []string
	for _, name := range slices.Sorted(r.Keys()) {
		v, _ := r.Get(name)
		parts = append(parts, quoted(string(name))+":"+avpValueJSON(v))
	}
	return "{" + strings.Join(parts, ",") + "}"
}

func avpListJSON(entities []types.Entity) string {
	var parts []string
	for _, e := range entities {
		var parents []string
		for _, p := range slices.SortedFunc(e.Parents.All(), compareUIDs) {
			parents = append(parents, avpIdentifierJSON(p))
		}
		parts = append(parts, fmt.Sprintf(`{"identifier":%s,"attributes":%s,"parents":[%s],"tags":%s}`,
			avpIdentifierJSON(e.UID), avpMapJSON(e.Attributes), strings.Join(parents, ","), avpMapJSON(e.Tags)))
	}
	return "[" + strings.Join(parts, ",") + "]"
}

func cedarValueJSON(v types.Value) string {
	switch v := v.(type) {
	case types.Boolean:
		return fmt.Sprint(bool(v))
	case types.Long:
		return fmt.Sprint(int64(v))
	case types.String:
		return quoted(string(v))
	case types.EntityUID:
		return fmt.Sprintf(`{"__entity":{"type":%s,"id":%s}}`, quoted(string(v.Type)), quoted(string(v.ID)))
	case types.Set:
		var parts []string
		for e := range v.All() {
			parts = append(parts, cedarValueJSON(e))
		}
		return "[" + strings.Join(parts, ",") + "]"
	case types.Record:
		return cedarRecordJSON(v)
	case types.IPAddr:
		return cedarExtensionJSON("ip", v.String())
	case types.Decimal:
		return cedarExtensionJSON("decimal", v.String())
	case types.Datetime:
		return cedarExtensionJSON("datetime", v.String())
	case types.Duration:
		return cedarExtensionJSON("duration", v.String())
	default:
		panic(fmt.Sprintf("%T", v))
	}
}

func cedarExtensionJSON(fn, arg string) string {
	return fmt.Sprintf(`{"__extn":{"fn":%q,"arg":%s}}`, fn, quoted(arg))
}

func cedarRecordJSON(r types.Record) string {
	var parts []string
	for _, name := range slices.Sorted(r.Keys()) {
		v, _ := r.Get(name)
		parts = append(parts, quoted(string(name))+":"+cedarValueJSON(v))
	}
	return "{" + strings.Join(parts, ",") + "}"
}

func cedarListJSON(entities []types.Entity) string {
	var parts []string
	for _, e := range entities {
		var parents []string
		for _, p := range slices.SortedFunc(e.Parents.All(), compareUIDs) {
			parents = append(parents, fmt.Sprintf(`{"type":%s,"id":%s}`, quoted(string(p.Type)), quoted(string(p.ID))))
		}
		parts = append(parts, fmt.Sprintf(`{"attrs":%s,"uid":{"type":%s,"id":%s},"parents":[%s],"tags":%s}`,
			cedarRecordJSON(e.Attributes), quoted(string(e.UID.Type)), quoted(string(e.UID.ID)), strings.Join(parents, ","), cedarRecordJSON(e.Tags)))
	}
	return "[" + strings.Join(parts, ",") + "]"
}
