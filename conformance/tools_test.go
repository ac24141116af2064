package conformance

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// The foreign clients are installed once per set of pinned versions, outside of the repository, and
// used by later runs. What can't be installed fails the test that needs it.
var (
	pythonEnv   = sync.OnceValues(func() (string, error) { return installed("python", "requirements.txt", installPython) })
	nodeModules = sync.OnceValues(func() (string, error) { return installed("js", "package-lock.json", installNode) })
)

// python is the directory of a virtual environment with boto3 and the AWS CLI.
func python(t *testing.T) string {
	t.Helper()
	dir, err := pythonEnv()
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// node is a directory with the programs of js/ and their node_modules.
func node(t *testing.T) string {
	t.Helper()
	dir, err := nodeModules()
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// installed runs install into an own directory per content of the lock file. Several runs of the
// tests may ask at the same time, from several processes.
func installed(name, lockFile string, install func(source, target string) error) (string, error) {
	source, err := filepath.Abs(name)
	if err != nil {
		return "", err
	}
	pinned, err := os.ReadFile(filepath.Join(source, lockFile))
	if err != nil {
		return "", err
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = os.TempDir()
	}
	cache = filepath.Join(cache, "copse-test")
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return "", err
	}
	target := filepath.Join(cache, fmt.Sprintf("%s-%.12x", name, sha256.Sum256(pinned)))
	unlock, err := lock(target + ".lock")
	if err != nil {
		return "", err
	}
	defer unlock()
	complete := target + ".complete"
	if _, err := os.Stat(complete); err == nil {
		return target, nil
	} else if !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	// What an interrupted installation left.
	if err := os.RemoveAll(target); err != nil {
		return "", err
	}
	if err := install(source, target); err != nil {
		return "", err
	}
	return target, os.WriteFile(complete, nil, 0o644)
}

func lock(path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		_ = f.Close()
		return nil, err
	}
	return func() { _ = f.Close() }, nil
}

func installPython(source, target string) error {
	if err := command("", "python3", "-m", "venv", target); err != nil {
		return err
	}
	return command("", filepath.Join(target, "bin", "pip"), "install", "--quiet", "--disable-pip-version-check",
		"--no-deps", "-r", filepath.Join(source, "requirements.txt"))
}

func installNode(source, target string) error {
	if err := os.MkdirAll(target, 0o755); err != nil {
		return err
	}
	for _, name := range []string{".npmrc", "package.json", "package-lock.json"} {
		text, err := os.ReadFile(filepath.Join(source, name))
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(target, name), text, 0o644); err != nil {
			return err
		}
	}
	// No package's own install script is needed, so none is run.
	return command(target, "npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--silent")
}

func command(dir, name string, args ...string) error {
	cmd := exec.Command(name, args...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w\n%s\nscripts/deps installs what the tests need", name, strings.Join(args, " "), err, out)
	}
	return nil
}
