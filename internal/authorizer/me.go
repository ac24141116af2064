package authorizer

import (
	"io"
	"net/http"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/access"
	"github.com/copse-authz/copse/internal/member"
	"github.com/copse-authz/copse/internal/token"
)

// NewMe makes the handlers of GET and PUT /v1/me/tenant: which tenants the token's holder could act for, and
// which one the next tokens are for. The token says who asks and through which client; it stays what it is.
func NewMe(cfg Config, members *member.Service) (list, choose http.Handler) {
	m := &me{cfg: cfg, members: members, metrics: newMetrics(cfg.Metrics, "me", "Requests of members about their tenants")}
	return http.HandlerFunc(m.list), http.HandlerFunc(m.choose)
}

// me holds no state of its own.
type me struct {
	cfg     Config
	members *member.Service
	metrics *metrics
}

// MyTenants is the answer to GET /v1/me/tenant.
type MyTenants struct {
	Tenants []MyTenant `json:"tenants"`
}

// MyTenant is a tenant that the token's holder is in.
type MyTenant struct {
	Tenant string `json:"tenant"`
	Active bool   `json:"active"` // the next token of this client is for it
}

// list shows the tenants that the token's issuer may speak for. Other members of them are not named.
func (m *me) list(w http.ResponseWriter, r *http.Request) {
	start := time.Now()
	noStore(w)
	v, err := m.verify(r)
	if err != nil {
		m.refuse(w, r, v, err, start)
		return
	}
	// Who asks is the token's word alone: there is nothing in the request to say it with.
	choices, err := m.members.Choices(r.Context(), member.Who{Issuer: v.Issuer, Subject: v.Subject}, v.ClientID)
	if err != nil {
		m.refuse(w, r, v, err, start)
		return
	}
	out := MyTenants{Tenants: []MyTenant{}}
	for _, c := range choices {
		out.Tenants = append(out.Tenants, MyTenant{string(c.Tenant), c.Active})
	}
	w.Header()["Content-Type"] = jsonType
	_ = json.MarshalWrite(w, out) // the client may have gone
	m.metrics.decided(copse.Allow, time.Since(start))
}

// choose changes the tokens that are issued from then on; the one it was asked with stays what it is.
func (m *me) choose(w http.ResponseWriter, r *http.Request) {
	start := time.Now()
	noStore(w)
	v, err := m.verify(r)
	if err == nil {
		err = m.setActive(w, r, v)
	}
	if err != nil {
		m.refuse(w, r, v, err, start)
		return
	}
	w.WriteHeader(http.StatusNoContent)
	m.metrics.decided(copse.Allow, time.Since(start))
}

// setActive reads no more of a body than a name can need.
func (m *me) setActive(w http.ResponseWriter, r *http.Request, v *token.Verified) error {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 4<<10))
	if err != nil {
		return copse.Errorf(copse.Invalid, "the body can't be read, or is over 4 KB")
	}
	var in struct {
		Tenant copse.TenantID `json:"tenant"`
	}
	if err := json.Unmarshal(body, &in, json.RejectUnknownMembers(true)); err != nil {
		return copse.Errorf(copse.Invalid, `the body is not {"tenant":"..."}: %w`, err)
	}
	// The audit log gets "user" as the one who did it, with the request's id, and no name.
	err = m.members.SetActive(r.Context(), access.FormatActor("user", requestID(w)), member.Who{Issuer: v.Issuer, Subject: v.Subject}, v.ClientID, in.Tenant)
	if err != nil && copse.KindOf(err) == copse.NotFound {
		return copse.Errorf(copse.Denied, "the member is not in tenant %q", in.Tenant) // one answer with all that does not concern them
	}
	return err
}

// verify takes persons only: a machine has one tenant, its operator's to choose. Its error for a token
// of a machine is Denied, as for all that is not the holder's to ask.
func (m *me) verify(r *http.Request) (*token.Verified, error) {
	bearer, err := token.Bearer(r.Header)
	if err != nil {
		return nil, err
	}
	v, err := m.cfg.Verify(r.Context(), bearer)
	if err != nil {
		return nil, err
	}
	if v.Subject == "" {
		return nil, copse.Errorf(copse.Denied, "the token has no subject")
	}
	return v, nil
}

// refuse has one answer with the authorizer, by Kind. v may be nil: then the log names no tenant.
func (m *me) refuse(w http.ResponseWriter, r *http.Request, v *token.Verified, err error, start time.Time) {
	f := refusal{log: m.cfg.Log, metrics: m.metrics, what: "member refused", start: start}
	if v != nil {
		f.tenant = v.Tenant
	}
	f.write(w, r, err, nil)
}
