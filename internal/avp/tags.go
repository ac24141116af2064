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

const maxTags = 50

// tags checks the tags of a policy store that is being made.
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

func (f *findings) tagKey(path, key string) {
	f.text(path, key, 1, 128)
	switch {
	case !onlyTagChars(key):
		f.add(path, "a key must satisfy regular expression pattern: "+tagPattern)
	case strings.HasPrefix(strings.ToLower(key), "aws:"):
		f.add(path, "keys that begin with aws: are reserved")
	}
}

const tagPattern = `[\p{L}\p{Z}\p{N}_.:/=+\-@]*`

func onlyTagChars(s string) bool {
	for _, r := range s {
		if r == utf8.RuneError || !unicode.In(r, unicode.L, unicode.Z, unicode.N) && !strings.ContainsRune("_.:/=+-@", r) {
			return false
		}
	}
	return true
}

// resourceInput names a policy store by its ARN, the only resource that has tags.
type resourceInput struct {
	ResourceARN string `json:"resourceArn"`
}

func (in *resourceInput) validate(f *findings) {
	if f.required("resourceArn", in.ResourceARN != "") {
		f.text("resourceArn", in.ResourceARN, 1, 2048)
		if !strings.HasPrefix(in.ResourceARN, "arn:") {
			f.add("resourceArn", "is not an ARN; GetPolicyStore returns that of a policy store")
		}
	}
}

// policyStore finds what the ARN names. An ARN of another service or account is of nothing here.
func (in *resourceInput) policyStore(h *handler) (copse.PolicyStoreID, error) {
	id, ok := strings.CutPrefix(in.ResourceARN, h.arn(""))
	if !ok || copse.PolicyStoreID(id).Validate() != nil || strings.Contains(id, "/") {
		return "", copse.NotFoundError(copse.ResourcePolicyStore, in.ResourceARN)
	}
	return copse.PolicyStoreID(id), nil
}

// named puts the ARN into the errors that have a place for it.
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

func (h *handler) listTagsForResource(ctx context.Context, c access.Caller, in *resourceInput) (listTagsOutput, error) {
	id, err := in.policyStore(h)
	if err != nil {
		return listTagsOutput{}, err
	}
	tags, err := h.policyStores.Tags(ctx, c, id)
	return listTagsOutput{Tags: tags}, in.named(err)
}

type tagResourceInput struct {
	resourceInput
	Tags map[string]string `json:"tags"`
}

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

type untagResourceInput struct {
	resourceInput
	TagKeys []string `json:"tagKeys"`
}

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

func (h *handler) untagResource(ctx context.Context, c access.Caller, in *untagResourceInput) (empty, error) {
	id, err := in.policyStore(h)
	if err != nil {
		return empty{}, err
	}
	return empty{}, in.named(h.policyStores.Untag(ctx, c, id, in.TagKeys))
}
