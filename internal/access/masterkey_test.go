package access

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/storage/memory"
)

func TestMasterKeyFile(t *testing.T) {
	raw := bytes.Repeat([]byte{0xfb}, MasterKeySize) // has + and / in base64, - and _ in its URL form
	good := hex.EncodeToString(raw) + "\n"
	write := func(t *testing.T, text string, mode os.FileMode) string {
		t.Helper()
		file := filepath.Join(t.TempDir(), "k")
		if err := os.WriteFile(file, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(file, mode); err != nil { // whatever the umask is
			t.Fatal(err)
		}
		return file
	}
	for name, text := range map[string]string{
		"hexadecimal":    good,
		"in capitals":    strings.ToUpper(good),
		"base64":         base64.StdEncoding.EncodeToString(raw),
		"base64 for URL": base64.RawURLEncoding.EncodeToString(raw),
		"white space":    "  " + good + "\n\n",
	} {
		t.Run(name, func(t *testing.T) {
			key, err := LoadMasterKey(write(t, text, 0o600))
			if err != nil || !bytes.Equal(key, raw) {
				t.Errorf("%v, %t", err, bytes.Equal(key, raw))
			}
		})
	}
	for name, c := range map[string]struct {
		text  string
		mode  os.FileMode
		names string
	}{
		"group may read":   {good, 0o640, "chmod 600"},
		"world may read":   {good, 0o604, "chmod 600"},
		"world may write":  {good, 0o602, "chmod 600"},
		"too short":        {good[2:], 0o600, "32 random bytes"},
		"too long":         {"00" + good, 0o600, "32 random bytes"},
		"two keys":         {good + good, 0o600, "32 random bytes"},
		"empty":            {"", 0o600, "32 random bytes"},
		"a pass phrase":    {"correct horse battery staple", 0o600, "32 random bytes"},
		"a very long file": {strings.Repeat("00", 1<<20), 0o600, "32 random bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := LoadMasterKey(write(t, c.text, c.mode))
			wantKind(t, err, copse.Invalid)
			if !strings.Contains(err.Error(), c.names) {
				t.Errorf("%q does not say %q", err, c.names)
			}
			if len(c.text) > 40 && strings.Contains(err.Error(), c.text[:40]) {
				t.Errorf("%q shows the key", err)
			}
		})
	}
	t.Run("a directory", func(t *testing.T) {
		dir := t.TempDir()
		if err := os.Chmod(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		_, err := LoadMasterKey(dir)
		wantKind(t, err, copse.Invalid)
	})
}

func TestOpenMasterKey(t *testing.T) {
	dir, empty := t.TempDir(), memory.New()
	defer func() { _ = empty.Close() }()
	made, generated, err := OpenMasterKey(t.Context(), empty, "", dir)
	if err != nil || !generated {
		t.Fatal(generated, err)
	}
	info, err := os.Stat(filepath.Join(dir, MasterKeyFile))
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o600 {
		t.Errorf("mode %04o, want 0600", info.Mode().Perm())
	}
	again, generated, err := OpenMasterKey(t.Context(), empty, "", dir)
	if err != nil || generated || !bytes.Equal(made, again) {
		t.Errorf("second time: generated %t, %v", generated, err)
	}
	if _, err := GenerateMasterKey(filepath.Join(dir, MasterKeyFile)); err == nil {
		t.Error("a master key was overwritten")
	}
	// A named file must exist: a typo may not start an empty key.
	if _, _, err := OpenMasterKey(t.Context(), empty, filepath.Join(dir, "typo"), dir); err == nil {
		t.Error("a named file that does not exist was accepted")
	}
	other, _, err := OpenMasterKey(t.Context(), empty, "", t.TempDir())
	if err != nil || bytes.Equal(made, other) {
		t.Errorf("two generated keys are equal, or %v", err)
	}
}

func TestPrivate(t *testing.T) {
	for _, c := range []struct {
		mode         fs.FileMode
		ours, ofRoot bool
	}{
		{0o600, true, true}, {0o400, true, true}, {0o440, false, true}, {0o640, false, true},
		{0o660, false, false}, {0o650, false, false}, {0o444, false, false}, {0o644, false, false}, {0o604, false, false}, {0o602, false, false},
	} {
		if ours, ofRoot := private(c.mode, false), private(c.mode, true); ours != c.ours || ofRoot != c.ofRoot {
			t.Errorf("%04o: %t, and %t of root, want %t and %t", c.mode, ours, ofRoot, c.ours, c.ofRoot)
		}
	}
}
