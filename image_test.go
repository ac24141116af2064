package copse_test

import (
	"bytes"
	"encoding/json"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// image is what an image says of the process in it.
type image struct {
	OCIv1 struct {
		Config struct {
			User                 string
			Env, Entrypoint, Cmd []string
			Volumes              map[string]struct{}
		}
	}
}

// TestImage builds the container image and runs it: its command, as its user, with its environment, and nothing else
// in sight than what is in it. That takes root, which changes the root directory, and no more of a container engine.
func TestImage(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Fatal("this test mounts an image and changes the root directory of a process: run it as root")
	}
	store := t.TempDir()
	options := []string{"--storage-driver", "vfs", "--root", filepath.Join(store, "root"), "--runroot", filepath.Join(store, "run")}
	buildah := func(args ...string) string {
		t.Helper()
		out, err := exec.Command("buildah", append(slices.Clone(options), args...)...).Output()
		if err != nil {
			t.Fatalf("buildah %s: %v %s", strings.Join(args, " "), err, failure(err))
		}
		return strings.TrimSpace(string(out))
	}
	binary, env := buildCopse(t)
	cmd := exec.Command("./scripts/image", "copse")
	cmd.Env = append(env, "BUILDER=buildah "+strings.Join(options, " "), "BINARY="+binary)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	var built image
	if err := json.Unmarshal([]byte(buildah("inspect", "--type", "image", "copse")), &built); err != nil {
		t.Fatal(err)
	}
	of := built.OCIv1.Config
	working := buildah("from", "copse")
	defer buildah("rm", working)
	root := buildah("mount", working)
	checkImage(t, root, of.Volumes)
	if !slices.Equal(of.Entrypoint, []string{"/copse"}) || !slices.Equal(of.Cmd, []string{"serve"}) || of.User != "65532:65532" {
		t.Fatalf("the image's command: %+v", of)
	}

	k := &kubelet{t: t}
	process := func(args ...string) *exec.Cmd {
		cmd := exec.Command(of.Entrypoint[0], args...)
		cmd.Dir = "/"
		cmd.Env = append(slices.Clone(of.Env), "COPSE_BEHIND_TLS_PROXY=true", "COPSE_LISTEN="+k.ports["api"], "COPSE_OPS_LISTEN="+k.ports["ops"])
		cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: root, Credential: &syscall.Credential{Uid: 65532, Gid: 65532}}
		return cmd
	}
	k.port("api")
	k.port("ops")
	if out, err := process("version").CombinedOutput(); err != nil || !strings.Contains(string(out), "copse") {
		t.Errorf("copse version: %v %s", err, out)
	}
	server := process(of.Cmd...)
	var log bytes.Buffer
	server.Stdout, server.Stderr = &log, &log
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	overdue := time.AfterFunc(2*time.Minute, func() { _ = server.Process.Kill() })
	defer overdue.Stop()
	if err := k.ask(http.DefaultClient, "http://"+k.ports["ops"]+"/readyz", ""); err != nil {
		t.Error(err)
	}
	_ = server.Process.Signal(syscall.SIGTERM)
	if err := server.Wait(); err != nil || t.Failed() {
		t.Errorf("it ended with %v\n%s", err, &log)
	}
	if info, err := os.Stat(filepath.Join(root, "data", "copse", "copse.db")); err != nil || info.Mode().Perm()&0o077 != 0 {
		t.Errorf("the database: %v %v", info, err)
	}
}

// checkImage: there are the program, certificates and a directory for data, and nothing to be run beside it.
func checkImage(t *testing.T, root string, volumes map[string]struct{}) {
	t.Helper()
	var files []string
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			files = append(files, strings.TrimPrefix(path, root))
		}
		return err
	})
	if err != nil || !slices.Equal(files, []string{"/copse", "/etc/ssl/certs/ca-certificates.crt"}) {
		t.Errorf("in the image: %v %v", files, err)
	}
	info, err := os.Stat(filepath.Join(root, "data"))
	if err != nil {
		t.Fatal(err)
	}
	if owner := info.Sys().(*syscall.Stat_t); owner.Uid != 65532 {
		t.Errorf("/data belongs to %d", owner.Uid)
	}
	if _, ok := volumes["/data"]; !ok {
		t.Errorf("volumes: %v", volumes)
	}
	certificates, err := os.ReadFile(filepath.Join(root, "etc/ssl/certs/ca-certificates.crt"))
	if n := bytes.Count(certificates, []byte("BEGIN CERTIFICATE")); err != nil || n < 50 {
		t.Errorf("%d certificates: %v", n, err)
	}
}

func failure(err error) string {
	if exit, ok := err.(*exec.ExitError); ok {
		return string(exit.Stderr)
	}
	return ""
}
