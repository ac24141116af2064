package avp

import (
	"context"
	"errors"
	"fmt"
	"regexp"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/policystore"
	"github.com/copse-authz/copse/internal/token"
)

// isAuthorizedWithToken decides for the principal that a token names, by the
// policy store's identity source. Nothing else in the message says who asks. The
// answer says who that was, in its member principal. Where the policy store has no identity source, it is
// ResourceNotFound for one.
func (h *handler) isAuthorizedWithToken(ctx context.Context, c *call) ([]byte, error) {
	in := question{byToken: true}
	view, verified, err := h.readWithToken(ctx, c, "IsAuthorizedWithToken", &in)
	if err != nil {
		return nil, err
	}
	req := in.request(&in.asked)
	speakFor(verified, &req)
	resp, err := view.Decide(ctx, &req)
	if err != nil {
		return nil, err
	}
	if err := h.recordOne(ctx, c, &view, &req, &resp); err != nil {
		return nil, err
	}
	out := appendDecision(make([]byte, 0, 512), &resp)
	return append(appendPrincipal(out, verified.Principal), '}'), nil
}

// batchIsAuthorizedWithToken decides several requests for one principal by one revision. All of them
// are for the same token, which is verified once.
func (h *handler) batchIsAuthorizedWithToken(ctx context.Context, c *call) ([]byte, error) {
	in := question{byToken: true, batch: true}
	view, verified, err := h.readWithToken(ctx, c, "BatchIsAuthorizedWithToken", &in)
	if err != nil {
		return nil, err
	}
	out, err := h.decideAll(ctx, c, &in, view, func(req *copse.Request) { speakFor(verified, req) })
	if err != nil {
		return nil, err
	}
	return append(appendPrincipal(out, verified.Principal), '}'), nil
}

// speakFor puts what the token says where only the server's own knowledge goes.
// The caller's entities and context stay where they were: the engine holds the
// two apart, and refuses caller entities of the types that a token speaks for.
func speakFor(v *token.Verified, req *copse.Request) {
	req.Principal = v.Principal
	req.ServerEntities, req.ServerContext = v.Entities, v.Context
	req.ReservedTypes = v.ReservedTypes
}

// readWithToken reads the message and verifies its tokens, by the
// revision that decides as well. Rights and charge come before the tokens
// are looked at, so a key without Decide can't have signatures verified.
func (h *handler) readWithToken(ctx context.Context, c *call, operation string, in *question) (policystore.View, *token.Verified, error) {
	if err := h.read(ctx, c, in); err != nil {
		return policystore.View{}, nil, err
	}
	// The bound is AVP's for batches only.
	if err := in.checkCrowd(); in.batch && err != nil {
		return policystore.View{}, nil, err
	}
	// The plan is charged with each decision, as one batch may hold many.
	view, err := h.policyStores.ViewAs(ctx, c.caller, operation, copse.PolicyStoreID(in.policyStoreID), max(len(in.requests), 1))
	if err != nil {
		return policystore.View{}, nil, err
	}
	verified, err := h.verifyTokens(ctx, in, &view)
	return view, verified, err
}

// verifyTokens proves an ID token, an access token, or both, by the policy store's identity
// source. In the policy store of a tenant they must also be of that tenant, and not older
// than this life of it. Both together must be of one user. Its errors are Invalid with the
// member's path for a token that does not verify, see [tokenError]; NotFound without an
// identity source; what can't be known, such as an issuer's keys, is Unavailable.
func (h *handler) verifyTokens(ctx context.Context, in *question, view *policystore.View) (*token.Verified, error) {
	if view.IdentitySource == nil {
		return nil, &copse.Error{Kind: copse.NotFound, Resource: copse.ResourceIdentitySource, ID: in.policyStoreID,
			Detail: "the policy store has no identity source, so it takes no tokens"}
	}
	// A token that was not given gives nil and no error.
	verify := func(path, text string, kind copse.TokenType) (*token.Verified, error) {
		if text == "" {
			return nil, nil
		}
		v, err := h.verifyBy(ctx, token.Presented{Token: text, Kind: kind, Source: view.IdentitySource, Tenant: view.Tenant.Tenant})
		// A tenant that was deleted and made again under its name is
		// another; tokens of its former users are refused.
		if err == nil && view.Tenant.Tenant != "" {
			err = v.SameLife(&view.Tenant)
		}
		return v, tokenError(path, err)
	}
	id, err := verify("identityToken", in.identityToken, copse.TokenID)
	if err != nil {
		return nil, err
	}
	access, err := verify("accessToken", in.accessToken, copse.TokenAccess)
	switch {
	case err != nil:
		return nil, err
	// One of the two is enough. With both, each must have verified before they are joined.
	case id == nil:
		return access, nil
	case access == nil:
		return id, nil
	}
	both, err := token.Join(id, access)
	return both, tokenError("accessToken", err)
}

// tokenError turns the refusal of a user's token into one of the request: the caller's own credential
// is good. Unavailable, Denied and the like stay what they are.
func tokenError(path string, err error) error {
	if err == nil || copse.KindOf(err) != copse.Unauthenticated {
		return err
	}
	// The verifier's detail is written for callers; its cause, in Err, is for the log.
	detail := "the token does not verify"
	if e, ok := errors.AsType[*copse.Error](err); ok && e.Detail != "" {
		detail = e.Detail
	}
	return &copse.Error{Kind: copse.Invalid, Detail: "the token is not valid", Err: err,
		Fields: []copse.Field{{Path: path, Message: detail}}}
}

// validateTokens wants one token or one of each kind. What is in them, and which kinds the
// identity source takes, is for the verifier.
func (q *question) validateTokens(f *findings) {
	if q.identityToken == "" && q.accessToken == "" {
		f.add("accessToken", "Member must not be null: give accessToken, identityToken or both")
	}
	f.token("identityToken", q.identityToken)
	f.token("accessToken", q.accessToken)
}

// maxToken is the model's bound; what the verifier takes is less, copse.MaxTokenBytes. A longer token
// than that is refused before anything parses it.
const maxToken = 131_072

// tokenPattern is the model's: three parts, and it does not insist on the dots between them. So it is
// wide on purpose, and refuses only what no token could be.
var tokenPattern = regexp.MustCompile(`^[A-Za-z0-9-_=]+.[A-Za-z0-9-_=]+.[A-Za-z0-9-_=]+$`)

// token checks the form of a token that is there. One that was not given
// is [question.validateTokens]' business.
func (f *findings) token(path, value string) {
	if value == "" {
		return
	}
	f.text(path, value, 1, maxToken)
	f.pattern(path, value, tokenPattern)
}

// token reads a token: null counts as absent, an empty one does not.
func (x *cutter) token(path string) (string, error) {
	given := x.dec.PeekKind() == '"'
	text, err := x.text(path)
	if err == nil && given && text == "" {
		err = invalidMember(path, fmt.Sprintf("Member must have length between 1 and %d, has 0", maxToken))
	}
	return text, err
}
