package policystore

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/cedar-policy/cedar-go/types"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/access"
	"github.com/copse-authz/copse/internal/engine"
)

// LogFull says what becomes of a decision that the decision log can't take.
type LogFull string

// With LogDrop it is given, and counted as lost. With LogWait no decision is given before its line is on
// disk, and one that can't be logged is refused.
const (
	LogDrop LogFull = "drop"
	LogWait LogFull = "wait"
)

// Logging is how a policy store's decisions are logged. It changes no answer.
type Logging struct {
	Full  LogFull  `json:"full"`
	Rules LogRules `json:"rules,omitzero"`
}

// stored is nil for what holds without being said.
func (l Logging) stored() *Logging {
	if l.Full == LogDrop && l.Rules.empty() {
		return nil
	}
	return &l
}

// LogRules say what of a request's context and of the attributes of its principal and resource is in the
// log: nothing but what a rule keeps or hashes. Paths are written as policies write them: context.ip,
// principal.address.country, resource["cost center"]; context, principal or resource alone is everything
// in it. The longest path that matches wins.
type LogRules struct {
	Keep []string `json:"keep,omitempty"`
	Hash []string `json:"hash,omitempty"`
	Drop []string `json:"drop,omitempty"`
	// HashIDs are of principal and resource: whose ids are hashed.
	HashIDs []string `json:"hashIds,omitempty"`
}

// empty reports whether there is no rule at all.
func (r *LogRules) empty() bool {
	return len(r.Keep) == 0 && len(r.Hash) == 0 && len(r.Drop) == 0 && len(r.HashIDs) == 0
}

// Quotas of the rules of one policy store. They are read with every snapshot.
const (
	MaxLogRules     = 64
	MaxLogPathBytes = 512
)

// LoggingUpdate changes a Logging: nil members stay as they are.
type LoggingUpdate struct {
	Full                      *LogFull
	Keep, Hash, Drop, HashIDs *[]string
}

// apply checks what comes out as a whole: a path may stand in one list only.
// Invalid lists everything that is wrong, by the paths of the settings. nil is the Logging that needs no row.
func (u *LoggingUpdate) apply(l Logging) (*Logging, error) {
	set(&l.Full, u.Full)
	set(&l.Rules.Keep, u.Keep)
	set(&l.Rules.Hash, u.Hash)
	set(&l.Rules.Drop, u.Drop)
	set(&l.Rules.HashIDs, u.HashIDs)
	f := findings{}
	if l.Full != LogDrop && l.Full != LogWait {
		f.add(copse.Field{Path: "decisionLog.full", Message: fmt.Sprintf("%q is neither %s nor %s", l.Full, LogDrop, LogWait)})
	}
	compileRules(&l.Rules, &f)
	return l.stored(), f.err(copse.ResourcePolicyStore, "these settings of the decision log are not valid")
}

// newLogging is that of a new policy store.
func (s *Service) newLogging() Logging {
	if s.logFull == LogWait {
		return Logging{Full: LogWait}
	}
	return Logging{Full: LogDrop}
}

// logging is Logging, ready for use.
// wait is LogWait; pick has the rules as a tree, if picks; key is nil without rules; bytes is their weight.
type logging struct {
	wait                    bool
	pick                    engine.Pickings
	picks                   bool
	hashPrincipal, hashItem bool
	key                     []byte
	bytes                   int64
}

// weight is nothing for nil, as of a policy store whose rows can't be read.
func (l *logging) weight() int64 {
	if l == nil {
		return 0
	}
	return 128 + l.bytes
}

// hashKey is a policy store's own: what is hashed alike in one means nothing in another, nor in one that comes
// after it under the same name.
func (s *Service) hashKey(incarnation copse.Incarnation) []byte {
	mac := hmac.New(sha256.New, s.logKey)
	_, _ = mac.Write([]byte("copse decision log hash v1\x00" + incarnation.String()))
	return mac.Sum(nil)
}

// HashedUID is how the log has an entity's identifier, such as User::"alice", where rules hash it: for finding
// decisions by what is known. What is no identifier is returned as it is. Needs Read.
// It charges nothing and reads no request: the hash is the same whether or not the rules of now hash ids.
func (s *Service) HashedUID(ctx context.Context, c access.Caller, id copse.PolicyStoreID, text string) (string, error) {
	r, err := s.find(ctx, c, access.Read, id)
	if err != nil {
		return "", err
	}
	entityType, quoted, _ := strings.Cut(text, `::"`)
	name, err := strconv.Unquote(`"` + quoted)
	uid := types.NewEntityUID(types.EntityType(entityType), types.String(name))
	// Only the one spelling that the log would have: Go's escapes and Cedar's are not the same.
	if err != nil || uid.String() != text {
		return text, nil
	}
	l := logging{key: s.hashKey(r.incarnation)}
	return l.hashID(uid).String(), nil
}

// compileLogging makes what a decision's log line needs, once for each snapshot.
func (s *Service) compileLogging(l Logging, incarnation copse.Incarnation) *logging {
	out := &logging{wait: l.Full == LogWait}
	if l.Rules.empty() {
		return out
	}
	out.pick = compileRules(&l.Rules, &findings{}) // what is stored was checked
	out.picks = out.pick != engine.Pickings{}
	out.hashPrincipal, out.hashItem = slices.Contains(l.Rules.HashIDs, "principal"), slices.Contains(l.Rules.HashIDs, "resource")
	out.key = s.hashKey(incarnation)
	for _, paths := range [][]string{l.Rules.Keep, l.Rules.Hash, l.Rules.Drop} {
		for _, path := range paths {
			out.bytes += 256 + int64(len(path))
		}
	}
	return out
}

// hash is 128 bits in base 64: enough that no two values meet, and short in a log.
func (l *logging) hash(text []byte) string {
	mac := hmac.New(sha256.New, l.key)
	_, _ = mac.Write(text)
	return base64.RawURLEncoding.EncodeToString(mac.Sum(nil)[:16])
}

// hashID keeps the type, and hashes type and id together, so that equal ids of two types differ.
func (l *logging) hashID(uid types.EntityUID) types.EntityUID {
	return types.NewEntityUID(uid.Type, types.String("hash:"+l.hash(engine.AppendEntityJSON(nil, string(uid.Type), string(uid.ID)))))
}

// compileRules makes a tree of the rules, and adds what is wrong with them to the findings.
// Rules for one path, in whatever lists, are a mistake: which of them holds would be up to their order.
func compileRules(r *LogRules, f *findings) (out engine.Pickings) {
	// Before anything is read of them: what follows is as long as there are rules.
	if n := len(r.Keep) + len(r.Hash) + len(r.Drop) + len(r.HashIDs); n > MaxLogRules {
		f.add(copse.Field{Path: "decisionLog", Message: fmt.Sprintf("%d rules, at most %d are allowed", n, MaxLogRules)})
		return out
	}
	roots := map[string]*engine.Picking{}
	for _, list := range []struct {
		name  string
		paths []string
		keep  engine.Keep
	}{{"keep", r.Keep, engine.KeepValue}, {"hash", r.Hash, engine.KeepHash}, {"drop", r.Drop, engine.KeepNothing}} {
		for i, path := range list.paths {
			at := fmt.Sprintf("decisionLog.%s[%d]", list.name, i)
			parts, err := splitPath(path)
			if err != "" {
				f.add(copse.Field{Path: at, Message: err})
				continue
			}
			// Down the tree, which is made on the way. Only the last one is Given: the others say nothing.
			rule := roots[parts[0]]
			if rule == nil {
				rule = &engine.Picking{}
				roots[parts[0]] = rule
			}
			for _, name := range parts[1:] {
				below := rule.Members[name]
				if below == nil {
					below = &engine.Picking{}
					if rule.Members == nil {
						rule.Members = map[string]*engine.Picking{}
					}
					rule.Members[name] = below
				}
				rule = below
			}
			if rule.Given {
				f.add(copse.Field{Path: at, Message: fmt.Sprintf("there are two rules for %s", path)})
			}
			rule.Keep, rule.Given = list.keep, true
		}
	}
	for i, id := range r.HashIDs {
		at := fmt.Sprintf("decisionLog.hashIds[%d]", i)
		switch {
		case id != "principal" && id != "resource":
			f.add(copse.Field{Path: at, Message: fmt.Sprintf("%q is neither principal nor resource", id)})
		case slices.Contains(r.HashIDs[:i], id):
			f.add(copse.Field{Path: at, Message: fmt.Sprintf("%s is there twice", id)})
		}
	}
	return engine.Pickings{Context: roots["context"], Principal: roots["principal"], Resource: roots["resource"]}
}

// splitPath reads context.a["b c"].d; wrong says what is wrong with it.
// Names in brackets have no escapes.
func splitPath(path string) (parts []string, wrong string) {
	switch {
	case len(path) > MaxLogPathBytes:
		return nil, fmt.Sprintf("a path has at most %d bytes, this one has %d", MaxLogPathBytes, len(path))
	case !utf8.ValidString(path):
		return nil, "the path is not valid UTF-8"
	}
	end := strings.IndexAny(path, ".[")
	if end < 0 {
		end = len(path)
	}
	root, rest := path[:end], path[end:]
	if root != "context" && root != "principal" && root != "resource" {
		return nil, fmt.Sprintf("%q begins with none of context, principal and resource", path)
	}
	parts = []string{root}
	for rest != "" {
		var name string
		if quoted, ok := strings.CutPrefix(rest, `["`); ok {
			if name, rest, ok = strings.Cut(quoted, `"]`); !ok || strings.ContainsAny(name, `\"`) {
				return nil, fmt.Sprintf("%q: what is in [\"...\"] ends with \"] and has neither quotes nor backslashes in it", path)
			}
		} else {
			rest, ok = strings.CutPrefix(rest, ".")
			if end = strings.IndexAny(rest, ".["); end < 0 {
				end = len(rest)
			}
			if name, rest = rest[:end], rest[end:]; !ok || !isIdentifier(name) {
				return nil, fmt.Sprintf("%q is not a path such as context.ip or principal[\"cost center\"]", path)
			}
		}
		parts = append(parts, name)
	}
	return parts, ""
}

// isIdentifier is Cedar's: ASCII letters, digits and _, not beginning with a digit.
func isIdentifier(name string) bool {
	for i := range len(name) {
		switch c := name[i]; {
		case c == '_', c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', i > 0 && c >= '0' && c <= '9':
		default:
			return false
		}
	}
	return name != ""
}

// Logged is what the decision log may have of a request, and how surely.
type Logged struct {
	Wait                bool // as LogWait
	Principal, Resource types.EntityUID
	Kept                engine.Picked
}

// Logged says what may be logged of a request that was decided, by the policy store's rules of now. An error
// means that this can't be known, and that the decision must not be given.
// NotFound for another incarnation, Throttled when no turn came.
func (s *Service) Logged(ctx context.Context, id copse.PolicyStoreID, incarnation copse.Incarnation, req *copse.Request) (Logged, error) {
	e, err := s.snapshot(ctx, id, incarnation)
	if err != nil {
		return Logged{}, err
	}
	l := e.logging
	out := Logged{Wait: l.wait, Principal: req.Principal, Resource: req.Resource}
	if l.key == nil {
		return out, nil
	}
	if l.picks {
		// It reads the request once more, which costs what it cost the decision.
		if noTurn := s.inTurn(ctx, id, e, int64(size(req)), func() { out.Kept, err = e.snapshot.Pick(req, l.pick, l.hash) }); noTurn != nil {
			return Logged{}, noTurn
		}
		if err != nil {
			return Logged{}, err
		}
	}
	if l.hashPrincipal {
		out.Principal = l.hashID(out.Principal)
	}
	if l.hashItem {
		out.Resource = l.hashID(out.Resource)
	}
	return out, nil
}
