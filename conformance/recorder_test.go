package conformance

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// recorder watches what a client and copse say to each other, as http.RoundTripper: each answer must
// have the shape that AWS's model gives the operation, each exception must be one that the operation
// documents.
type recorder struct {
	model *model
	next  http.RoundTripper

	mu       sync.Mutex
	seen     map[string]map[string]int // operation -> exception, "" for a success -> how often
	problems map[string]bool
}

func newRecorder(t *testing.T) *recorder {
	t.Helper()
	r := &recorder{
		model: loadModel(t), next: &http.Transport{MaxIdleConnsPerHost: 64},
		seen: map[string]map[string]int{}, problems: map[string]bool{},
	}
	t.Cleanup(func() {
		for _, p := range slices.Sorted(maps.Keys(r.problems)) {
			t.Error(p)
		}
	})
	return r
}

// RoundTrip passes a request on and looks at the answer.
func (r *recorder) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := r.next.RoundTrip(req)
	if err != nil {
		return resp, err
	}
	text, err := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	if err != nil {
		return nil, err
	}
	resp.Body = io.NopCloser(bytes.NewReader(text))
	operation, _ := strings.CutPrefix(req.Header.Get("X-Amz-Target"), "VerifiedPermissions.")
	exception, problems := r.judge(operation, resp, text)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.seen[operation] == nil {
		r.seen[operation] = map[string]int{}
	}
	r.seen[operation][exception]++
	for _, p := range problems {
		r.problems[operation+": "+p] = true
	}
	return resp, nil
}

// commonErrors are of every service of AWS and in no operation's list.
var commonErrors = []string{
	"MissingAuthenticationTokenException", "IncompleteSignatureException", "InvalidSignatureException",
	"UnrecognizedClientException", "RequestExpiredException", "ExpiredTokenException",
}

func (r *recorder) judge(operation string, resp *http.Response, text []byte) (exception string, problems []string) {
	op, known := r.model.Operations[operation]
	if !known {
		return "", []string{"the model does not know it"}
	}
	if resp.Header.Get("X-Amzn-Requestid") == "" || resp.Header.Get("Content-Type") != "application/x-amz-json-1.0" {
		problems = append(problems, fmt.Sprintf("headers %v", resp.Header))
	}
	v, err := decode(text)
	if err != nil {
		return "", append(problems, fmt.Sprintf("the answer is not JSON: %v: %s", err, text))
	}
	if resp.StatusCode == http.StatusOK {
		return "", append(problems, r.model.check(op.Output.Shape, v, "output")...)
	}
	members, _ := v.(map[string]any)
	exception, _ = members["__type"].(string)
	if exception == "" || exception != resp.Header.Get("X-Amzn-Errortype") {
		problems = append(problems, fmt.Sprintf("the exception is %q in the body and %q in the header", exception, resp.Header.Get("X-Amzn-Errortype")))
	}
	switch {
	case slices.Contains(commonErrors, exception):
	case !slices.Contains(r.model.errorsOf(operation), exception):
		problems = append(problems, "does not document "+exception+": "+clip(string(text)))
	default:
		want := http.StatusBadRequest
		if exception == "InternalServerException" {
			want = http.StatusInternalServerError
		}
		if resp.StatusCode != want {
			problems = append(problems, fmt.Sprintf("%s with status %d", exception, resp.StatusCode))
		}
		delete(members, "__type")
		problems = append(problems, r.model.check(exception, members, exception)...)
	}
	return exception, problems
}

// count tells how often an operation ended with an exception ("": none) so far.
func (r *recorder) count(operation, exception string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.seen[operation][exception]
}

// succeeded lists the operations that a client had a success of.
func (r *recorder) succeeded() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []string
	for operation, ends := range r.seen {
		if ends[""] > 0 {
			out = append(out, operation)
		}
	}
	slices.Sort(out)
	return out
}

// proxy is an address at which copse answers, watched by the recorder. The Host header is passed on
// as it is: it is part of what clients sign.
func (r *recorder) proxy(t *testing.T, target string) string {
	t.Helper()
	to, err := url.Parse(target)
	if err != nil {
		t.Fatal(err)
	}
	web := httptest.NewServer(&httputil.ReverseProxy{
		Transport: r,
		Rewrite: func(p *httputil.ProxyRequest) {
			p.Out.URL.Scheme, p.Out.URL.Host = to.Scheme, to.Host
		},
	})
	t.Cleanup(web.Close)
	return web.URL
}

// The watcher must see what is wrong: it would else prove nothing.
func TestRecorderBites(t *testing.T) {
	r := &recorder{model: loadModel(t)}
	now := time.Now().UTC().Format(time.RFC3339Nano)
	right := map[string]any{"arn": "arn:aws:verifiedpermissions::000000000000:policy-store/x", "createdDate": now, "lastUpdatedDate": now, "policyStoreId": "x"}
	for name, change := range map[string]func(map[string]any){
		"":                     func(map[string]any) {},
		"a member is missing":  func(m map[string]any) { delete(m, "arn") },
		"a member too many":    func(m map[string]any) { m["name"] = "x" },
		"a number for a date":  func(m map[string]any) { m["createdDate"] = json.Number("1") },
		"a text out of bounds": func(m map[string]any) { m["policyStoreId"] = "" },
		"a null":               func(m map[string]any) { m["arn"] = nil },
	} {
		out := maps.Clone(right)
		change(out)
		if problems := r.model.check("CreatePolicyStoreOutput", out, "output"); (len(problems) > 0) != (name != "") {
			t.Errorf("%q: %v", name, problems)
		}
	}
}
