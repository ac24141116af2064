package access

import (
	"crypto/sha256"
	"encoding/hex"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
)

// edit replaces the first occurrence of old in the Authorization header; it must be there.
func edit(t *testing.T, r *http.Request, old, replacement string) {
	t.Helper()
	header := r.Header.Get("Authorization")
	if !strings.Contains(header, old) {
		t.Fatalf("%q is not in %q", old, header)
	}
	r.Header.Set("Authorization", strings.Replace(header, old, replacement, 1))
}

func setBody(r *http.Request, body string) {
	r.Body, r.GetBody, r.ContentLength = io.NopCloser(strings.NewReader(body)), nil, int64(len(body))
}

// tampering is an attack on a signed request. before changes what is signed; after changes the
// request once it is signed.
type tampering struct {
	before func(*call)
	after  func(*testing.T, *http.Request)
	want   Reason
	stage  string
}

const precheck, signature = "precheck", "signature"

func tamperings() map[string]tampering {
	cases := map[string]tampering{}
	for _, group := range []map[string]tampering{tamperedContent(), tamperedAuthorization(), unsupportedSigning()} {
		for name, c := range group {
			cases[name] = c
		}
	}
	return cases
}

func tamperedContent() map[string]tampering {
	header := func(name string, values ...string) func(*testing.T, *http.Request) {
		return func(_ *testing.T, r *http.Request) { r.Header[name] = values }
	}
	url := func(target string) func(*testing.T, *http.Request) {
		return func(t *testing.T, r *http.Request) {
			u, err := r.URL.Parse(target)
			if err != nil {
				t.Fatal(err)
			}
			r.URL = u
		}
	}
	withHash := func(c *call) { c.contentHash = true }
	list := func(c *call) { c.target = "/v1/tenants?a=1&b=2" }
	ifMatch := func(c *call) { c.header.Set("If-Match", `"1"`) }
	return map[string]tampering{
		"body changed":              {nil, func(_ *testing.T, r *http.Request) { setBody(r, `{"policyStoreId":"ps2"}`) }, InvalidSignature, signature},
		"body changed, hash signed": {withHash, func(_ *testing.T, r *http.Request) { setBody(r, `{"policyStoreId":"ps2"}`) }, InvalidSignature, signature},
		"body emptied":              {nil, func(_ *testing.T, r *http.Request) { setBody(r, "") }, InvalidSignature, signature},
		"body and hash changed": {withHash, func(_ *testing.T, r *http.Request) {
			setBody(r, "x")
			r.Header.Set("X-Amz-Content-Sha256", hashOf("x"))
		}, InvalidSignature, precheck},
		"hash of another body signed":  {func(c *call) { c.header.Set("X-Amz-Content-Sha256", hashOf("other")) }, nil, InvalidSignature, precheck},
		"hash added":                   {nil, header("X-Amz-Content-Sha256", hashOf(newCall("", "").body)), IncompleteSignature, precheck},
		"operation changed":            {nil, header("X-Amz-Target", "VerifiedPermissions.DeletePolicyStore"), InvalidSignature, signature},
		"operation sent twice":         {nil, header("X-Amz-Target", "VerifiedPermissions.GetPolicyStore", "VerifiedPermissions.DeletePolicyStore"), IncompleteSignature, precheck},
		"x-amz header added":           {nil, header("X-Amz-Anything", "x"), IncompleteSignature, precheck},
		"user token's key added":       {nil, header("X-Copse-Key", "x"), IncompleteSignature, precheck},
		"condition added":              {nil, header("If-Match", "*"), IncompleteSignature, precheck},
		"condition changed":            {ifMatch, header("If-Match", "*"), InvalidSignature, signature},
		"condition removed":            {ifMatch, func(_ *testing.T, r *http.Request) { r.Header.Del("If-Match") }, IncompleteSignature, signature},
		"content type changed":         {nil, header("Content-Type", "application/json"), InvalidSignature, signature},
		"content type added":           {func(c *call) { c.header.Del("Content-Type") }, header("Content-Type", "application/json"), IncompleteSignature, precheck},
		"content encoding added":       {nil, header("Content-Encoding", "gzip"), IncompleteSignature, precheck},
		"signed header removed":        {nil, func(_ *testing.T, r *http.Request) { r.Header.Del("X-Amz-Target") }, IncompleteSignature, signature},
		"method changed":               {nil, func(_ *testing.T, r *http.Request) { r.Method = "PUT" }, InvalidSignature, signature},
		"host changed":                 {nil, func(_ *testing.T, r *http.Request) { r.Host = "other.example" }, InvalidSignature, signature},
		"path changed":                 {list, url("/v1/issuers?a=1&b=2"), InvalidSignature, signature},
		"path with dot segments":       {list, url("/v1/x/%2e%2e/tenants?a=1&b=2"), IncompleteSignature, precheck},
		"path with empty segments":     {list, func(_ *testing.T, r *http.Request) { r.URL.Path = "/v1//tenants" }, IncompleteSignature, precheck},
		"path escaped otherwise":       {list, url("/v1/%74enants?a=1&b=2"), InvalidSignature, signature},
		"query changed":                {list, url("/v1/tenants?a=1&b=3"), InvalidSignature, signature},
		"query extended":               {list, url("/v1/tenants?a=1&b=2&c=3"), InvalidSignature, signature},
		"query dropped":                {list, url("/v1/tenants"), InvalidSignature, signature},
		"query value moved":            {list, url("/v1/tenants?a=2&b=1"), InvalidSignature, signature},
		"query with broken escapes":    {list, func(_ *testing.T, r *http.Request) { r.URL.RawQuery = "a=1&b=2&c=%zz" }, IncompleteSignature, precheck},
		"query with semicolons":        {list, func(_ *testing.T, r *http.Request) { r.URL.RawQuery = "a=1&b=2;c=3" }, IncompleteSignature, precheck},
		"query with an empty pair":     {list, func(_ *testing.T, r *http.Request) { r.URL.RawQuery = "a=1&&b=2" }, IncompleteSignature, precheck},
		"date changed, within window":  {nil, func(_ *testing.T, r *http.Request) { r.Header.Set("X-Amz-Date", shift(r, time.Second)) }, InvalidSignature, ""},
		"date missing":                 {nil, func(_ *testing.T, r *http.Request) { r.Header.Del("X-Amz-Date") }, IncompleteSignature, precheck},
		"date sent twice":              {nil, func(_ *testing.T, r *http.Request) { r.Header.Add("X-Amz-Date", shift(r, 0)) }, IncompleteSignature, precheck},
		"date in another form":         {nil, header("X-Amz-Date", time.Now().UTC().Format(time.RFC1123)), IncompleteSignature, precheck},
		"Date instead of X-Amz-Date":   {nil, func(_ *testing.T, r *http.Request) { r.Header.Set("Date", shift(r, 0)); r.Header.Del("X-Amz-Date") }, IncompleteSignature, precheck},
		"too old":                      {func(c *call) { c.at = c.at.Add(-window - 20*time.Second) }, nil, RequestExpired, precheck},
		"too early":                    {func(c *call) { c.at = c.at.Add(window + 20*time.Second) }, nil, RequestExpired, precheck},
		"old, with a fresh X-Amz-Date": {func(c *call) { c.at = c.at.Add(-48 * time.Hour) }, header("X-Amz-Date", time.Now().UTC().Format(amzDateFormat)), InvalidSignature, precheck},
	}
}

func shift(r *http.Request, d time.Duration) string {
	at, _ := time.Parse(amzDateFormat, r.Header.Get("X-Amz-Date"))
	return at.Add(d).Format(amzDateFormat)
}

func tamperedAuthorization() map[string]tampering {
	auth := func(old, replacement string) func(*testing.T, *http.Request) {
		return func(t *testing.T, r *http.Request) { edit(t, r, old, replacement) }
	}
	rewrite := func(f func(string) string) func(*testing.T, *http.Request) {
		return func(_ *testing.T, r *http.Request) { r.Header.Set("Authorization", f(r.Header.Get("Authorization"))) }
	}
	return map[string]tampering{
		"no authorization":    {nil, func(_ *testing.T, r *http.Request) { r.Header.Del("Authorization") }, MissingAuthenticationToken, precheck},
		"authorization twice": {nil, func(_ *testing.T, r *http.Request) { r.Header.Add("Authorization", r.Header.Get("Authorization")) }, IncompleteSignature, precheck},
		"a bearer before it": {nil, func(_ *testing.T, r *http.Request) {
			r.Header["Authorization"] = []string{"Bearer x", r.Header.Get("Authorization")}
		}, IncompleteSignature, precheck},
		"another scheme": {nil, auth("AWS4-HMAC-SHA256", "AWS4-ECDSA-P256-SHA256"), IncompleteSignature, precheck},
		"signature changed": {nil, rewrite(func(s string) string {
			return s[:len(s)-1] + string("0123456789abcdef"[(strings.IndexByte("0123456789abcdef", s[len(s)-1])+1)%16])
		}), InvalidSignature, signature},
		"signature of zeros":          {nil, rewrite(func(s string) string { return s[:len(s)-64] + strings.Repeat("0", 64) }), InvalidSignature, signature},
		"signature cut":               {nil, rewrite(func(s string) string { return s[:len(s)-2] }), IncompleteSignature, precheck},
		"signature empty":             {nil, rewrite(func(s string) string { return s[:len(s)-64] }), IncompleteSignature, precheck},
		"signature in capitals":       {nil, rewrite(func(s string) string { return s[:len(s)-64] + strings.ToUpper(s[len(s)-64:]) + "" }), IncompleteSignature, precheck},
		"signature twice":             {nil, rewrite(func(s string) string { return s + ", Signature=" + s[len(s)-64:] }), IncompleteSignature, precheck},
		"no signed headers":           {nil, auth("SignedHeaders=", "Ignored="), IncompleteSignature, precheck},
		"host not signed":             {nil, auth(";host", ""), IncompleteSignature, precheck},
		"date not signed":             {nil, auth(";x-amz-date", ""), IncompleteSignature, precheck},
		"operation not signed":        {nil, auth(";x-amz-target", ""), IncompleteSignature, precheck},
		"content type not signed":     {nil, auth(";content-type", ""), IncompleteSignature, precheck},
		"signed headers out of order": {nil, auth("content-length;content-type", "content-type;content-length"), IncompleteSignature, precheck},
		"signed header twice":         {nil, auth(";host;", ";host;host;"), IncompleteSignature, precheck},
		"signed header in capitals":   {nil, auth(";host;", ";Host;"), IncompleteSignature, precheck},
		"a header that is not there":  {nil, auth(";host;", ";host;if-match;"), IncompleteSignature, signature},
		"another service":             {func(c *call) { c.service = "s3" }, nil, InvalidSignature, precheck},
		"service renamed":             {func(c *call) { c.service = "s3" }, auth("/s3/", "/verifiedpermissions/"), InvalidSignature, signature},
		"region changed":              {nil, auth("eu-central-1", "us-east-1"), InvalidSignature, signature},
		"region with a slash":         {nil, auth("eu-central-1", "eu/central"), IncompleteSignature, precheck},
		"terminator changed":          {nil, auth("aws4_request", "aws4_requesT"), IncompleteSignature, precheck},
		"terminator missing":          {nil, auth("/aws4_request", ""), IncompleteSignature, precheck},
		"day in credential changed":   {nil, auth(time.Now().UTC().Format("/20060102/"), "/20200101/"), InvalidSignature, precheck},
		"unknown key":                 {func(c *call) { c.id = newKeyID() }, nil, UnrecognizedClient, precheck},
		"an id that can't be one":     {func(c *call) { c.id = "short" }, nil, UnrecognizedClient, precheck},
		"another key's id":            {nil, func(t *testing.T, r *http.Request) { edit(t, r, "Credential=CPK", "Credential=ZZZ") }, UnrecognizedClient, precheck},
		"root id, own secret":         {func(c *call) { c.id = rootID }, nil, InvalidSignature, signature},
		"wrong secret":                {func(c *call) { c.secret = string(newSecret()) }, nil, InvalidSignature, signature},
		"secret's prefix":             {func(c *call) { c.secret = c.secret[:39] }, nil, InvalidSignature, signature},
	}
}

func unsupportedSigning() map[string]tampering {
	hash := func(value string) func(*testing.T, *http.Request) {
		return func(_ *testing.T, r *http.Request) { r.Header.Set("X-Amz-Content-Sha256", value) }
	}
	withHash := func(c *call) { c.contentHash = true }
	return map[string]tampering{
		"unsigned payload":        {withHash, hash("UNSIGNED-PAYLOAD"), IncompleteSignature, precheck},
		"streaming payload":       {withHash, hash("STREAMING-AWS4-HMAC-SHA256-PAYLOAD"), IncompleteSignature, precheck},
		"streaming, with trailer": {withHash, hash("STREAMING-UNSIGNED-PAYLOAD-TRAILER"), IncompleteSignature, precheck},
		"empty hash":              {withHash, hash(""), IncompleteSignature, precheck},
		"hash in capitals":        {withHash, hash(strings.ToUpper(hashOf(newCall("", "").body))), IncompleteSignature, precheck},
		"session token":           {func(c *call) { c.sessionToken = "FwoGZXIvYXdzE" }, nil, UnrecognizedClient, precheck},
		"trailers": {nil, func(_ *testing.T, r *http.Request) {
			r.Trailer = http.Header{"X-Late": nil}
			r.ContentLength = -1
		}, IncompleteSignature, precheck},
		"presigned URL": {nil, func(t *testing.T, r *http.Request) {
			creds := aws.Credentials{AccessKeyID: rootID, SecretAccessKey: rootSecret}
			clean := r.Clone(t.Context())
			clean.Header = http.Header{}
			uri, _, err := v4.NewSigner().PresignHTTP(t.Context(), creds, clean, hashOf(""), service, "eu-west-1", time.Now())
			if err != nil {
				t.Fatal(err)
			}
			u, err := r.URL.Parse(uri)
			if err != nil {
				t.Fatal(err)
			}
			r.URL = u
			r.Header.Del("Authorization")
		}, IncompleteSignature, precheck},
		"presigned name in small letters": {nil, func(_ *testing.T, r *http.Request) { r.URL.RawQuery = "x%2Damz-signature=x" }, IncompleteSignature, precheck},
	}
}

func hashOf(body string) string {
	sum := sha256.Sum256([]byte(body))
	return hex.EncodeToString(sum[:])
}
