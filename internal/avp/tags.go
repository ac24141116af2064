package avp

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/access"
)

// maxTags is AVP's bound on the tags of one resource.
const maxTags = 50

// tags checks the tags of a policy store that is being made. Findings
// name the member and not the key: a key that is not valid is no path.
func (f *findings) tags(path string, tags map[string]string) {
	if len(tags) > maxTags {
		f.add(path, "Member must have at most %d entries, has %d", maxTags, len(tags))
		return
	}
	for key, value := range tags {
		f.tagKey(path, key)
		f.text(path, value, 0, 256)
		if !onlyTagChars(value) {
			f.add(path, "a value must satisfy regular expression pattern: "+tagPattern)
		}
	}
}

// tagKey bounds a key and keeps AWS's own prefix free, in whatever case it is written.
func (f *findings) tagKey(path, key string) {
	f.text(path, key, 1, 128)
	switch {
	case !onlyTagChars(key):
		f.add(path, "a key must satisfy regular expression pattern: "+tagPattern)
	case strings.HasPrefix(strings.ToLower(key), "aws:"):
		f.add(path, "keys that begin with aws: are reserved")
	}
}

// tagPattern is the service model's; [onlyTagChars] is the same by hand.
const tagPattern = `[\p{L}\p{Z}\p{N}_.:/=+\-@]*`

// onlyTagChars passes an empty text, as the pattern does. Text that is not UTF-8 does not pass.
func onlyTagChars(s string) bool {
	for _, r := range s {
		if r == utf8.RuneError || !unicode.In(r, unicode.L, unicode.Z, unicode.N) && !strings.ContainsRune("_.:/=+-@", r) {
			return false
		}
	}
	return true
}

// resourceInput names a policy store by its ARN, the only resource that has tags. An alias' ARN is a
// resource too, but takes no tags in AVP.
type resourceInput struct {
	ResourceARN string `json:"resourceArn"`
}

// validate checks the form only: what the ARN names is found out by [resourceInput.policyStore], with
// another exception.
func (in *resourceInput) validate(f *findings) {
	if f.required("resourceArn", in.ResourceARN != "") {
		f.text("resourceArn", in.ResourceARN, 1, 2048)
		if !strings.HasPrefix(in.ResourceARN, "arn:") {
			f.add("resourceArn", "is not an ARN; GetPolicyStore returns that of a policy store")
		}
	}
}

// policyStore finds what the ARN names. An ARN of another service or account is of nothing here. ARNs
// are compared with what copse itself would write, so each policy store has exactly one.
func (in *resourceInput) policyStore(h *handler) (copse.PolicyStoreID, error) {
	id, ok := strings.CutPrefix(in.ResourceARN, h.arn(""))
	// An alias' ARN, or anything longer than a policy store's, must not be cut down to an id.
	if !ok || copse.PolicyStoreID(id).Validate() != nil || strings.Contains(id, "/") {
		return "", copse.NotFoundError(copse.ResourcePolicyStore, in.ResourceARN)
	}
	return copse.PolicyStoreID(id), nil
}

// named puts the ARN into the errors that have a place for it. The error given is not changed; others
// than these two have no member for it.
func (in *resourceInput) named(err error) error {
	e, ok := errors.AsType[*copse.Error](err)
	if !ok || e.Kind != copse.TooManyTags && e.Kind != copse.NotFound {
		return err
	}
	moved := *e
	moved.ID = in.ResourceARN
	return &moved
}

type listTagsOutput struct {
	Tags map[string]string `json:"tags"`
}

// listTagsForResource answers an empty map for a policy store without tags.
func (h *handler) listTagsForResource(ctx context.Context, c access.Caller, in *resourceInput) (listTagsOutput, error) {
	id, err := in.policyStore(h)
	if err != nil {
		return listTagsOutput{}, err
	}
	tags, err := h.policyStores.Tags(ctx, c, id)
	return listTagsOutput{Tags: tags}, in.named(err)
}

// tagResourceInput adds tags and replaces those with the same key.
type tagResourceInput struct {
	resourceInput
	Tags map[string]string `json:"tags"`
}

// validate can't tell whether there are too many: those that the policy store has count as well.
func (in *tagResourceInput) validate(f *findings) {
	in.resourceInput.validate(f)
	if !f.required("tags", in.Tags != nil) || len(in.Tags) > maxTags {
		return // more than a policy store can have: the exception for that is the service's to raise
	}
	f.tags("tags", in.Tags)
}

func (h *handler) tagResource(ctx context.Context, c access.Caller, in *tagResourceInput) (empty, error) {
	id, err := in.policyStore(h)
	if err != nil {
		return empty{}, err
	}
	return empty{}, in.named(h.policyStores.Tag(ctx, c, id, in.Tags))
}

// untagResourceInput's bounds are the service model's.
type untagResourceInput struct {
	resourceInput
	TagKeys []string `json:"tagKeys"`
}

// validate checks keys for length only: what could never have been a key is removed like
// any that is absent.
func (in *untagResourceInput) validate(f *findings) {
	in.resourceInput.validate(f)
	if !f.required("tagKeys", in.TagKeys != nil) {
		return
	}
	if n := len(in.TagKeys); n < 1 || n > 200 {
		f.add("tagKeys", "Member must have length between 1 and 200, has %d", n)
		return
	}
	for i, key := range in.TagKeys {
		f.text(fmt.Sprintf("tagKeys[%d]", i), key, 1, 128)
	}
}

// untagResource succeeds for keys that are absent.
func (h *handler) untagResource(ctx context.Context, c access.Caller, in *untagResourceInput) (empty, error) {
	id, err := in.policyStore(h)
	if err != nil {
		return empty{}, err
	}
	return empty{}, in.named(h.policyStores.Untag(ctx, c, id, in.TagKeys))
}
