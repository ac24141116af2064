package token

import (
	"testing"

	"github.com/copse-authz/copse"
)

func TestCanonicalPath(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"/", "/"},
		{"/a/b", "/a/b"},
		{"/a/b/", "/a/b/"},
		{"/a?b=/../", "/a"},
		{"/%61/%7e", "/a/~"},
		{"/%e2%82%AC", "/%E2%82%AC"},
		{"/a b", "/a%20b"},
		{"/a%3fb", "/a%3Fb"},
		{"/a+b%2B", "/a+b+"},
		{"/€", "/%E2%82%AC"},
		{"/...", "/..."},
	} {
		got, err := CanonicalPath(c.in)
		if got != c.want || err != nil {
			t.Errorf("%q: %q, %v; want %q", c.in, got, err, c.want)
		}
		if again, err := CanonicalPath(got); again != got || err != nil {
			t.Errorf("%q is canonical, and becomes %q, %v", got, again, err)
		}
	}
	for _, in := range []string{"", "a", "*", "http://host/a", "//", "//a", "/a//b", "/.", "/..", "/a/./b", "/a/../b", "/a/%2e%2E/b", "/a/%2E",
		"/a%2fb", "/a%2Fb", "/a%5cb", `/a\b`, "/a%00", "/a\x7f", "/a\nb", "/a%", "/a%4", "/a%zz", "/a%252e", "/a;b", "/a%3Bb", "/a#b", "/a%23"} {
		if got, err := CanonicalPath(in); err == nil || copse.KindOf(err) != copse.Invalid {
			t.Errorf("%q: %q, %v", in, got, err)
		}
	}
}
