//go:build unix

package server

import (
	"syscall"
	"testing"

	"github.com/copse-authz/copse/internal/api"
)

func TestDoctorFindsFewDescriptors(t *testing.T) {
	p := newPatient(t)
	var was syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &was); err != nil {
		t.Fatal(err)
	}
	few := was
	few.Cur = 1024
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &few); err != nil {
		t.Fatal(err)
	}
	d := p.look()
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &was); err != nil {
		t.Fatal(err)
	}
	wantFound(t, d, api.SeverityWarning, "limits", "may open 1024 files, and each connection is one -> LimitNOFILE")
}
